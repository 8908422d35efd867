"""ExecuteStatement and BatchExecuteStatement: each statement an action or a read of its own.

Statements cost what the plain requests cost. In a batch each one is judged, throttled and answered by
itself, and the answer is HTTP 200 whatever became of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from bench.model import actions, partiql
from bench.model.actions import Action
from bench.model.expressions import Request, Test
from bench.model.parameters import check, check_number
from bench.model.partiql import Statement
from bench.model.partitions import Demand, Point, admit
from bench.model.reads import factor, read_units
from bench.model.refusals import BUSY, MisfitError, ServiceError, invalid, throttled, unmet
from bench.model.tables import Database, Table
from bench.model.values import Item, Stored, measured
from bench.model.writes import Answer

PARAMETERS: Final = frozenset({"Statement", "Parameters", "ConsistentRead", "ReturnValuesOnConditionCheckFailure"})
_MOST: Final = 25
"""Statements in one batch."""

_SHORT: Final = {"ValidationException": "ValidationError", "SerializationException": "ValidationError"}
"""What a batch calls an error; of the others it leaves "Exception" away."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A statement with its parameters: what it is about, and for a write what it does."""

    kind: partiql.Kind
    table: Table
    point: Point
    action: Action | None
    cost: float

    def run(self, now: float) -> Stored | None:
        """Run it, and give the item that a read finds.

        Raises:
            ServiceError: It is refused, or its partition is busy.
        """
        if self.action is None:
            found = self.table.get(self.point)
            self._admit(Demand(table=self.table.partitions, point=self.point, reads=read_units(found, self.cost)), now)
            return found
        outcome = actions.judge(self.action)
        self._admit(outcome.demand(), now)
        if not outcome.holds:
            if self.kind == "INSERT":
                raise ServiceError("DuplicateItemException", "Duplicate primary key exists in table")
            raise unmet(outcome.shown)
        outcome.apply()
        return None

    def _admit(self, demand: Demand, now: float) -> None:
        if admit((demand,), now):
            raise throttled(self.table.arn, "Write" if self.action else "Read")


def execute_statement(request: Request, database: Database, now: float) -> Answer:
    """Answer ExecuteStatement for a statement that names one item."""
    found = _bound(request, database).run(now)
    return {"Items": [] if found is None else [found.item]}


def batch_execute_statement(request: Request, database: Database, now: float) -> Answer:
    """Answer BatchExecuteStatement: all reads or all writes, and no two on one item."""
    given: Sequence[Any] = request.get("Statements", ())
    check_number(len(given), "statements", _MOST)
    for each in given:
        check(each, PARAMETERS)
    wanted = [_bound_or_refused(each, database) for each in given]
    bound = [each for each in wanted if isinstance(each, _Bound)]
    if len({each.action is None for each in bound}) > 1:
        raise invalid("BatchExecuteStatement cannot mix read and write statements")
    if len({(each.table.name, each.point) for each in bound}) != len(bound):
        raise invalid("BatchExecuteStatement cannot include multiple statements on one item")
    return {"Responses": [_response(each, now) for each in wanted]}


def _bound_or_refused(given: Request, database: Database) -> _Bound | ServiceError:
    try:
        return _bound(given, database)
    except ServiceError as error:
        return error


def _response(wanted: _Bound | ServiceError, now: float) -> Answer:
    if isinstance(wanted, ServiceError):
        return {"Error": _error(wanted)}
    named: Answer = {"TableName": wanted.table.name}
    try:
        found = wanted.run(now)
    except ServiceError as error:
        return {"Error": _error(error), **named}
    return named if found is None else {**named, "Item": found.item}


def _error(error: ServiceError) -> Mapping[str, Any]:
    if error.name == "ProvisionedThroughputExceededException":
        return BUSY
    code = _SHORT.get(error.name) or error.name.removesuffix("Exception")
    return {"Code": code, "Message": error.message, **error.fields}


def _bound(given: Request, database: Database) -> _Bound:
    statement = partiql.parsed(given.get("Statement", "")).filled(given.get("Parameters", []))
    table = database.table({"TableName": statement.table})
    cost = factor(given)
    if statement.kind == "SELECT":
        _, point, tests = _named(statement, table)
        if tests:
            raise invalid("A SELECT in this model has the attributes of the key in its WHERE, and no others")
        return _Bound(kind="SELECT", table=table, point=point, action=None, cost=cost)
    shows = given.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    action = _inserted(statement, table) if statement.kind == "INSERT" else _changed(statement, table, shows=shows)
    return _Bound(kind=statement.kind, table=table, point=action.point, action=action, cost=cost)


def _inserted(statement: Statement, table: Table) -> Action:
    item = dict(statement.assignments)
    if len(item) != len(statement.assignments):
        raise invalid("An INSERT in this model gives each attribute once")
    return actions.put(table, item, tests=(_presence(table, "attribute_not_exists"),), shows_refused=False)


def _changed(statement: Statement, table: Table, *, shows: bool) -> Action:
    """Make the action of an UPDATE or DELETE. Where nothing is, the one is refused, and the other does nothing."""
    key, point, tests = _named(statement, table)
    if statement.kind == "DELETE":
        wanted = () if table.get(point) is None else tests
        return Action(table=table, point=point, tests=wanted, change=actions.delete, shows_refused=shows)
    assigned = tuple(Test("=", name, measured(value)[0]) for name, value in statement.assignments)
    change = actions.update(table, key, assigned, statement.removed)
    wanted = (_presence(table, "attribute_exists"), *tests)
    return Action(table=table, point=point, tests=wanted, change=change, shows_refused=shows)


def _named(statement: Statement, table: Table) -> tuple[Item, Point, tuple[Test, ...]]:
    """Find the item that a WHERE names, and what else it insists on."""
    given: dict[str, Any] = {}
    tests: list[Test] = []
    for each in statement.requirements:
        if each.operator == "=" and each.attribute in table.key.names and each.attribute not in given:
            given[each.attribute] = each.value
        else:
            tests.append(Test(each.operator, each.attribute, {} if each.value is None else measured(each.value)[0]))
    if len(given) != len(table.key.names):
        raise MisfitError("Where clause does not contain a mandatory equality on all key attributes")
    key, point = table.key.named_by(given)
    return key, point, tuple(tests)


def _presence(table: Table, operator: Literal["attribute_exists", "attribute_not_exists"]) -> Test:
    return Test(operator, table.key.partition.name, {})
