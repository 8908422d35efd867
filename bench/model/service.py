"""The operations by their names, and the parameters that each of them knows."""

import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import msgspec

from bench.model import actions, pages, reads, schema, statements, transactions, writes
from bench.model.expressions import Request
from bench.model.limits import Limits
from bench.model.parameters import check
from bench.model.refusals import ServiceError, malformed
from bench.model.report import report
from bench.model.tables import Database
from bench.model.writes import Answer

OK: Final = 200
REFUSED: Final = 400
BROKEN: Final = 500
REPORT: Final = "AioidempotencyModel.Report"

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """A function that answers, and the parameters that it knows."""

    answer: Callable[[Request, Database, float], Answer]
    parameters: frozenset[str]


def _operation(answer: Callable[[Request, Database, float], Answer], *parameters: str) -> Operation:
    return Operation(answer, frozenset(parameters))


_RETURN: Final = {"ReturnValues"}
_FILTER: Final = ("FilterExpression", "ExpressionAttributeNames", "ExpressionAttributeValues")
_PAGE: Final = ("TableName", "Limit", "ExclusiveStartKey", "Select", "ConsistentRead", *_FILTER)

OPERATIONS: Final[Mapping[str, Operation]] = {
    "PutItem": Operation(writes.put_item, actions.PARAMETERS["Put"] | _RETURN),
    "UpdateItem": Operation(writes.update_item, actions.PARAMETERS["Update"] | _RETURN),
    "DeleteItem": Operation(writes.delete_item, actions.PARAMETERS["Delete"] | _RETURN),
    "GetItem": _operation(reads.get_item, "TableName", "Key", "ConsistentRead"),
    "BatchGetItem": _operation(reads.batch_get_item, "RequestItems"),
    "TransactWriteItems": _operation(transactions.transact_write_items, "TransactItems", "ClientRequestToken"),
    "TransactGetItems": _operation(reads.transact_get_items, "TransactItems"),
    "ExecuteStatement": Operation(statements.execute_statement, statements.PARAMETERS),
    "BatchExecuteStatement": _operation(statements.batch_execute_statement, "Statements"),
    "Query": _operation(pages.query, *_PAGE, "KeyConditionExpression"),
    "Scan": _operation(pages.scan, *_PAGE),
    "CreateTable": _operation(
        schema.create_table,
        *("TableName", "KeySchema", "AttributeDefinitions", "BillingMode", "ProvisionedThroughput"),
    ),
    "DescribeTable": _operation(schema.describe_table, "TableName"),
    "DeleteTable": _operation(schema.delete_table, "TableName"),
    "ListTables": _operation(schema.list_tables, "Limit", "ExclusiveStartTableName"),
    "UpdateTimeToLive": _operation(schema.update_time_to_live, "TableName", "TimeToLiveSpecification"),
    "DescribeTimeToLive": _operation(schema.describe_time_to_live, "TableName"),
}
_PREFIX: Final = "DynamoDB_20120810."
_TARGETS: Final = {_PREFIX + name: each for name, each in OPERATIONS.items()} | {REPORT: _operation(report, "Reset")}


@final
class Service:
    """All tables behind one entrance: a target and a body in, a status and a body out."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._database = Database(limits)

    def call(self, target: str, request: Any, now: float) -> Answer:
        """Answer a request that is decoded already.

        Raises:
            ServiceError: The service refuses it.
        """
        operation = _TARGETS.get(target)
        if operation is None:
            raise ServiceError("UnknownOperationException", f"This model does not know {target}")
        if target != REPORT:
            self._database.requests[target.removeprefix(_PREFIX)] += 1
        check(request, operation.parameters)
        return operation.answer(request, self._database, now)

    def answer(self, target: str, body: bytes, now: float) -> tuple[int, bytes]:
        """Answer a request as it comes over the wire."""
        try:
            return OK, _encode(self.call(target, _decode(body), now))
        except ServiceError as refusal:
            return REFUSED, _encode(refusal.body)
        except msgspec.DecodeError as error:
            return REFUSED, _encode(malformed(str(error)).body)
        except Exception as error:  # noqa: BLE001 - the server goes on, and the client learns of it
            traceback.print_exc(file=sys.stderr)
            return BROKEN, _encode(ServiceError("InternalServerError", repr(error)).body)
