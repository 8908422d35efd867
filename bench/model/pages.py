"""Query and Scan: pages of items in the order of their points."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Final

from bench.model.expressions import Request, Tests, resolve
from bench.model.partitions import Demand, Point, admit
from bench.model.reads import READ_STEP, factor
from bench.model.refusals import MisfitError, invalid, throttled
from bench.model.tables import LARGEST_PARTITION_VALUE, LARGEST_SORT_VALUE, Database, Table
from bench.model.values import Stored
from bench.model.writes import Answer

_LARGEST_PAGE: Final = 1024 * 1024
_BEYOND: Final = b"\xff" * (LARGEST_SORT_VALUE + 1)
"""Comes after every sort value."""


def query(request: Request, database: Database, now: float) -> Answer:
    """Answer Query over one partition value, in the order of its sort key."""
    table = database.table(request)
    wanted, tests = resolve(request, "KeyConditionExpression", "FilterExpression")
    attribute = table.key.partition
    if len(wanted) != 1 or wanted[0].operator != "=" or wanted[0].attribute != attribute.name:
        raise invalid(f"Query condition missed key schema element: {attribute.name}; in this model it has no other")
    first = table.key.start(attribute.encoded({attribute.name: wanted[0].value}, LARGEST_PARTITION_VALUE))
    begin = max(_start(request, table, first), bisect_left(table.points, first))
    return _page(request, table, table.points[begin : bisect_left(table.points, first + _BEYOND)], tests, now)


def scan(request: Request, database: Database, now: float) -> Answer:
    """Answer Scan over a whole table, in the order of the partition values' hashes."""
    table = database.table(request)
    (tests,) = resolve(request, "FilterExpression")
    return _page(request, table, table.points[_start(request, table, b"") :], tests, now)


def _start(request: Request, table: Table, within: Point) -> int:
    """Find where the page begins: after the key that the page before ended with."""
    given = request.get("ExclusiveStartKey")
    if given is None:
        return 0
    try:
        _, point = table.key.named_by(given)
    except MisfitError as error:
        raise MisfitError("The provided starting key is invalid") from error
    if not point.startswith(within):
        raise MisfitError("The provided starting key is outside query boundaries based on provided conditions")
    return bisect_right(table.points, point)


def _page(request: Request, table: Table, points: Sequence[Point], tests: Tests, now: float) -> Answer:
    limit: int = request.get("Limit", len(points) + 1)
    if limit < 1:
        raise invalid("Limit must be greater than or equal to 1")
    read = _read(table, points, limit)
    if admit(_demands(table, read, factor(request)), now):
        raise throttled(table.arn, "Read")
    items = [stored.item for _, stored in read if all(test.holds(stored.item) for test in tests)]
    answer: Answer = {"Count": len(items), "ScannedCount": len(read)}
    if request.get("Select") != "COUNT":
        answer["Items"] = items
    # A page that reached its limit has a key to go on with, even where nothing follows.
    if len(read) == limit or len(read) < len(points):
        last = read[-1][1].item
        answer["LastEvaluatedKey"] = {name: last[name] for name in table.key.names}
    return answer


def _read(table: Table, points: Sequence[Point], limit: int) -> list[tuple[Point, Stored]]:
    """Take items up to the limit, or up to 1 MB."""
    read: list[tuple[Point, Stored]] = []
    size = 0
    for point in points[:limit]:
        stored = table.stored_at(point)
        if read and size + stored.size > _LARGEST_PAGE:
            break
        read.append((point, stored))
        size += stored.size
    return read


def _demands(table: Table, read: Sequence[tuple[Point, Stored]], cost: float) -> Sequence[Demand]:
    """Charge each partition for what was read in it, rounded up to 4 KB."""
    sizes: Counter[Point] = Counter()
    firsts: dict[Point, Point] = {}
    for point, stored in read:
        start = table.partitions.start_of(point)
        firsts.setdefault(start, point)
        sizes[start] += stored.size
    return [
        Demand(table=table.partitions, point=first, reads=cost * -(-sizes[start] // READ_STEP))
        for start, first in firsts.items()
    ]
