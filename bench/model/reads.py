"""GetItem, BatchGetItem and TransactGetItems."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.model.expressions import Request
from bench.model.parameters import check, check_number
from bench.model.partitions import Demand, Point, admit
from bench.model.refusals import BUSY, NO_REASON, MisfitError, cancelled, invalid, throttled
from bench.model.tables import Database, Table
from bench.model.values import Item, Stored
from bench.model.writes import Answer

READ_STEP: Final = 4096
_KEYS: Final = frozenset({"Keys", "ConsistentRead"})
_GET: Final = frozenset({"TableName", "Key"})
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
    wanted: Mapping[str, Any] = request.get("RequestItems", {})
    for each in wanted.values():
        check(each, _KEYS)
    asked = sum(len(each.get("Keys", ())) for each in wanted.values())
    check_number(asked, "requestItems")
    found: dict[str, list[Item]] = {}
    left: dict[str, Any] = {}
    for name, each in wanted.items():
        table = database.table({"TableName": name})
        found[name], keys = _batch(table, each, now)
        if keys:
            left[name] = {**each, "Keys": keys}
    if asked == sum(len(each["Keys"]) for each in left.values()):
        raise throttled(database.table({"TableName": next(iter(wanted))}).arn, "Read")
    return {"Responses": found, "UnprocessedKeys": left}


def _batch(table: Table, wanted: Mapping[str, Any], now: float) -> tuple[list[Item], list[object]]:
    """Read one table's part: the items that are there, and the keys whose partitions are busy."""
    found: list[Item] = []
    left: list[object] = []
    for key, point in _distinct(table, wanted.get("Keys", [])):
        if admit((_demand(table, point, factor(wanted)),), now):
            left.append(key)
        elif (stored := table.get(point)) is not None:
            found.append(stored.item)
    return found, left


def transact_get_items(request: Request, database: Database, now: float) -> Answer:
    """Answer TransactGetItems: all items as of one moment."""
    given: Sequence[Any] = request.get("TransactItems", ())
    check_number(len(given), "transactItems")
    places = [_place(each, database) for each in given]
    if len({(table.name, point) for table, point in places}) != len(places):
        raise invalid("Transaction request cannot include multiple operations on one item")
    busy = admit([_demand(table, point, _TRANSACTIONAL) for table, point in places], now)
    if busy:
        raise cancelled([BUSY if index in busy else NO_REASON for index in range(len(places))])
    return {"Responses": [_answer(table.get(point)) for table, point in places]}


def _place(given: Any, database: Database) -> tuple[Table, Point]:
    check(given, frozenset({"Get"}))
    get = given.get("Get")
    check(get, _GET)
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
