"""GetItem, BatchGetItem and TransactGetItems."""

from collections.abc import Mapping
from typing import Any, Final

from bench.model.expressions import Request
from bench.model.partitions import Demand, Point, admit
from bench.model.refusals import BUSY, NO_REASON, MisfitError, cancelled, invalid, throttled
from bench.model.tables import Database, Table
from bench.model.values import Stored
from bench.model.writes import Answer

READ_STEP: Final = 4096
_MOST: Final = 100
CONSISTENT: Final = 1.0
_EVENTUAL: Final = 0.5
_TRANSACTIONAL: Final = 2.0


def factor(request: Mapping[str, Any]) -> float:
    """Tell what a unit costs: half of one where the reader takes an old answer, too."""
    return CONSISTENT if request.get("ConsistentRead") else _EVENTUAL


def read_units(stored: Stored | None, cost: float) -> float:
    """Tell what it costs to read an item: in steps of 4 KB, and at least one of them."""
    return cost * (1 if stored is None else max(1, -(-stored.size // READ_STEP)))


def get_item(request: Request, database: Database, now: float) -> Answer:
    """Answer GetItem."""
    table = database.table(request)
    _, point = table.key.named_by(request.get("Key"))
    if admit((_demand(table, point, factor(request)),), now):
        raise throttled(table.arn, "Read")
    return _answer(table.get(point))


def batch_get_item(request: Request, database: Database, now: float) -> Answer:
    """Answer BatchGetItem: what a busy partition could not give comes back as unprocessed."""
    wanted: Mapping[str, Any] = request.get("RequestItems") or {}
    if not 1 <= sum(len(each.get("Keys", ())) for each in wanted.values()) <= _MOST:
        raise invalid("Too many items requested for the BatchGetItem call, or none")
    found: dict[str, list[object]] = {name: [] for name in wanted}
    unprocessed: dict[str, Any] = {}
    for name, each in wanted.items():
        table = database.table({"TableName": name})
        left = []
        for key, point in _distinct(table, each["Keys"]):
            if admit((_demand(table, point, factor(each)),), now):
                left.append(key)
            elif (stored := table.get(point)) is not None:
                found[name].append(stored.item)
        if len(left) == len(each["Keys"]) and len(wanted) == 1:
            raise throttled(table.arn, "Read")
        if left:
            unprocessed[name] = {**each, "Keys": left}
    return {"Responses": found, "UnprocessedKeys": unprocessed}


def transact_get_items(request: Request, database: Database, now: float) -> Answer:
    """Answer TransactGetItems: all items as of one moment."""
    given = request.get("TransactItems")
    if not isinstance(given, list) or not 1 <= len(given) <= _MOST:
        raise invalid("Member must have length less than or equal to 100, and greater than or equal to 1")
    places = [_place(each, database) for each in given]
    if len({(table.name, point) for table, point in places}) != len(places):
        raise invalid("Transaction request cannot include multiple operations on one item")
    busy = admit([_demand(table, point, _TRANSACTIONAL) for table, point in places], now)
    if busy:
        raise cancelled([BUSY if index in busy else NO_REASON for index in range(len(places))])
    return {"Responses": [_answer(table.get(point)) for table, point in places]}


def _place(given: Mapping[str, Any], database: Database) -> tuple[Table, Point]:
    get = given["Get"]
    table = database.table(get)
    return table, table.key.named_by(get.get("Key"))[1]


def _distinct(table: Table, keys: list[object]) -> list[tuple[object, Point]]:
    points = {table.key.named_by(key)[1]: key for key in keys}
    if len(points) != len(keys):
        raise MisfitError("Provided list of item keys contains duplicates")
    return [(key, point) for point, key in points.items()]


def _demand(table: Table, point: Point, cost: float) -> Demand:
    return Demand(table=table.partitions, point=point, reads=read_units(table.get(point), cost))


def _answer(stored: Stored | None) -> Answer:
    return {} if stored is None else {"Item": stored.item}
