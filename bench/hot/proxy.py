"""A proxy that gives each partition of a DynamoDB-compatible server the limit that DynamoDB gives it.

    python -m bench.hot.proxy http://127.0.0.1:4566 --scale 0.02

An emulator answers every write as fast as it can, so on it a hot partition is never hot. This proxy stands in
front of one. It reads table and partition key of each item that a request is about, takes the request's
units from a token bucket of that partition, and answers as DynamoDB does where there are none. Everything
else is the emulator's answer.

What is simpler than DynamoDB:

- Each partition value of a table is a partition of its own, which is never split or merged.
- Units are taken before the request is forwarded, and not given back, whatever comes of it.
- Sizes are those of the request: an item's names and values as text. A read takes one unit, as any item up to 4 KB.
- A table has no limit of its own.

It knows tables that were created through it, and no requests but those below: any other one is refused.
"""

import argparse
import asyncio
import json
import math
import re
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, final

from aiohttp import ClientSession, TCPConnector, web

from tests.support.lifeline import announce, exit_with_parent, listen

Body = dict[str, Any]
Answer = tuple[int, Body]
Partition = tuple[str, str, Literal["Write", "Read"]]
"""A table, a partition value, and which of its two buckets."""

UNITS_PER_SECOND: Final = {"Write": 1000.0, "Read": 3000.0}
"""What one partition of DynamoDB gives, in both billing modes."""

BURST: Final = 1.0
"""Seconds of unused units that a partition keeps: DynamoDB keeps up to 300, and guarantees none of them."""

_FREE: Final = {"CreateTable", "DeleteTable", "DescribeTable", "ListTables", "UpdateTimeToLive", "DescribeTimeToLive"}
_IN_TRANSACTION: Final = 2
"""A transaction writes, or reads, each item twice: to prepare, and to commit."""

_TABLE_OF_STATEMENT: Final = re.compile(r'(?:INSERT INTO|UPDATE|DELETE FROM) "([^"]+)"')
_OK: Final = 200
_JSON: Final = "application/x-amz-json-1.0"
_TOO_MUCH: Final = "The level of configured provisioned throughput for the table was exceeded."
_BUSY: Final = {"Code": "ThrottlingError", "Message": "Throughput exceeds the current capacity of your table or index."}


class Cost(NamedTuple):
    """Units that one item of a request takes from its partition."""

    partition: Partition
    units: float


@final
class UnknownRequestError(Exception):
    """A request whose partitions the proxy cannot name."""


@final
@dataclass(slots=True, kw_only=True)
class Partitions:
    """The token buckets of all partitions; each is full when it is first asked for.

    Attributes:
        scale: Multiplies what a partition gives in a second.
        consumed: Units that were taken.
        throttled: How often a partition had too few.
    """

    scale: float
    clock: Callable[[], float] = time.monotonic
    consumed: Counter[Partition] = field(default_factory=Counter)
    throttled: Counter[Partition] = field(default_factory=Counter)
    _levels: dict[Partition, tuple[float, float]] = field(default_factory=dict)

    def admit(self, costs: Sequence[Cost]) -> set[Partition]:
        """Take the units of all these items, or none; name the partitions that have too few."""
        now = self.clock()
        needed: Counter[Partition] = Counter()
        for cost in costs:
            needed[cost.partition] += cost.units  # type: ignore[assignment] # a read may take half a unit
        levels = {partition: self._level(partition, now) for partition in needed}
        # What no full bucket holds is taken from a full one, which then owes the rest: else it would never be taken.
        busy = {each for each, units in needed.items() if levels[each] < min(units, self._capacity(each))}
        self.throttled.update(busy)
        if not busy:
            self.consumed.update(needed)
            self._levels |= {each: (levels[each] - units, now) for each, units in needed.items()}
        return busy

    def _level(self, partition: Partition, now: float) -> float:
        capacity = self._capacity(partition)
        level, seen = self._levels.get(partition, (capacity, now))
        return min(capacity, level + (now - seen) * capacity / BURST)

    def _capacity(self, partition: Partition) -> float:
        return UNITS_PER_SECOND[partition[2]] * self.scale * BURST


@final
class Proxy:
    """Forwards to `upstream` what the partitions have units for; it listens on a port of 127.0.0.1."""

    def __init__(self, upstream: str, partitions: Partitions, session: ClientSession, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.partitions = partitions
        self._upstream = upstream
        self._session = session
        self._partition_keys: dict[str, str] = {}

    async def respond(self, request: web.Request) -> web.Response:
        """Answer one request."""
        status, answer = await self._answered(request, json.loads(await request.read()))
        written = json.dumps(answer).encode()
        headers = {"Content-Type": _JSON, "x-amz-crc32": str(zlib.crc32(written))}
        return web.Response(status=status, body=written, headers=headers)

    async def _answered(self, request: web.Request, body: Body) -> Answer:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation == "CreateTable":
            self._partition_keys[body["TableName"]] = body["KeySchema"][0]["AttributeName"]
        if operation in _FREE:
            return await self._forward(request, body)
        try:
            costs = self._costs(operation, body)
        except UnknownRequestError as error:
            return _refusal("ValidationException", f"the proxy does not know {operation}, {error}")
        match operation:
            case "BatchExecuteStatement":
                return await self._statements(request, body, costs)
            case "BatchGetItem":
                return await self._reads(request, body, costs)
            case _:
                busy = self.partitions.admit(costs)
                if not busy:
                    return await self._forward(request, body)
                return _cancelled(costs, busy) if operation.startswith("Transact") else _throttled(busy)

    async def _statements(self, request: web.Request, body: Body, costs: Sequence[Cost]) -> Answer:
        """Forward the statements that find units; each of the others is answered by itself."""
        admitted = [index for index, cost in enumerate(costs) if not self.partitions.admit([cost])]
        responses: list[Body] = [{"Error": _BUSY, "TableName": cost.partition[0]} for cost in costs]
        if admitted:
            statements = [body["Statements"][index] for index in admitted]
            status, answer = await self._forward(request, {**body, "Statements": statements})
            if status != _OK:
                return status, answer
            for index, each in zip(admitted, answer["Responses"], strict=True):
                responses[index] = each
        return _OK, {"Responses": responses}

    async def _reads(self, request: web.Request, body: Body, costs: Sequence[Cost]) -> Answer:
        """Forward the reads that find units; the other keys are left unprocessed."""
        busy = [self.partitions.admit([cost]) for cost in costs]
        if all(busy):
            return _throttled(busy[0])
        wanted, left, of_keys = Body(), Body(), iter(busy)
        for table, asked in body["RequestItems"].items():
            for key in asked["Keys"]:
                whose = left if next(of_keys) else wanted
                whose.setdefault(table, {**asked, "Keys": []})["Keys"].append(key)
        status, answer = await self._forward(request, {**body, "RequestItems": wanted})
        return status, answer | ({"UnprocessedKeys": left} if status == _OK and left else {})

    async def _forward(self, request: web.Request, body: Body) -> Answer:
        # The signature does not fit a body that was written anew: emulators read the region and the service in it alone.
        headers = {name: request.headers[name] for name in ("X-Amz-Target", "Authorization") if name in request.headers}
        headers["Content-Type"] = _JSON
        async with self._session.post(self._upstream, data=json.dumps(body), headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    def _costs(self, operation: str, body: Body) -> list[Cost]:
        """Say what each item of a request costs, in the request's order."""
        match operation:
            case "PutItem" | "UpdateItem" | "DeleteItem":
                return [self._one_write(body)]
            case "GetItem":
                return [self._one_read(body)]
            case "TransactWriteItems":
                actions = [action for each in body["TransactItems"] for action in each.values()]
                return [self._one_write(action, times=_IN_TRANSACTION) for action in actions]
            case "TransactGetItems":
                gets = [{**each["Get"], "ConsistentRead": True} for each in body["TransactItems"]]
                return [self._one_read(get, times=_IN_TRANSACTION) for get in gets]
            case "BatchGetItem":
                asked = body["RequestItems"].items()
                return [
                    self._one_read({**each, "TableName": table, "Key": key})
                    for table, each in asked
                    for key in each["Keys"]
                ]
            case "BatchExecuteStatement":
                return [self._one_statement(each) for each in body["Statements"]]
            case _:
                raise UnknownRequestError("which none of its costs is for")

    def _one_write(self, action: Body, *, times: int = 1) -> Cost:
        """Take what is written, or the key and the values of an update, for the item's size."""
        item: Body = action.get("Item") or action["Key"] | action.get("ExpressionAttributeValues", {})
        key = item[self._partition_key(action["TableName"])]["S"]
        size = sum(len(name.encode()) + _bytes(value) for name, value in item.items())
        return Cost((action["TableName"], key, "Write"), times * math.ceil(size / 1024))

    def _one_read(self, get: Body, *, times: int = 1) -> Cost:
        partition = get["Key"][self._partition_key(get["TableName"])]["S"]
        return Cost((get["TableName"], partition, "Read"), times * (1.0 if get.get("ConsistentRead") else 0.5))

    def _one_statement(self, given: Body) -> Cost:
        """Read a statement as the library writes them: each value is a parameter, and the key is compared with one."""
        text, parameters = given["Statement"], given.get("Parameters", [])
        named = _TABLE_OF_STATEMENT.match(text)
        key = re.escape(self._partition_key(named[1])) if named else ""
        place = re.search(rf"""'{key}': \?|"{key}"=\?""", text)
        if not named or not place:
            raise UnknownRequestError(f"of {text}")
        partition = parameters[text.count("?", 0, place.start())]["S"]
        return Cost((named[1], partition, "Write"), math.ceil((len(text) + sum(map(_bytes, parameters))) / 1024))

    def _partition_key(self, table: str) -> str:
        if table not in self._partition_keys:
            raise UnknownRequestError(f"since table {table!r} was not created through it")
        return self._partition_keys[table]


@asynccontextmanager
async def proxying(upstream: str, partitions: Partitions) -> AsyncIterator[Proxy]:
    """Run a proxy until the block ends, in this event loop and on a free port of 127.0.0.1."""
    listener = listen()
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        proxy = Proxy(upstream, partitions, session, listener.getsockname()[1])
        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_post("/", proxy.respond)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield proxy
        finally:
            await runner.cleanup()


def _bytes(value: Body) -> int:
    return sum(len(str(content).encode()) for content in value.values())


def _refusal(name: str, message: str, **fields: object) -> Answer:
    return 400, {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": message, **fields}


def _throttled(busy: set[Partition]) -> Answer:
    arn = "arn:aws:dynamodb:eu-central-1:000000000000:table/"
    reasons = [{"reason": f"Table{kind}KeyRangeThroughputExceeded", "resource": arn + table} for table, _, kind in busy]
    return _refusal("ProvisionedThroughputExceededException", _TOO_MUCH, ThrottlingReasons=reasons)


def _cancelled(costs: Sequence[Cost], busy: set[Partition]) -> Answer:
    reasons = [_BUSY if cost.partition in busy else {"Code": "None"} for cost in costs]
    codes = ", ".join(each["Code"] for each in reasons)
    message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    return _refusal("TransactionCanceledException", message, CancellationReasons=reasons)


async def _serve(upstream: str, scale: float) -> None:
    async with proxying(upstream, Partitions(scale=scale)) as proxy:
        announce(proxy.port)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m bench.hot.proxy", description="Limits for an emulator's partitions."
    )
    parser.add_argument("upstream", help="the emulator's URL")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies what a partition gives in a second")
    options = parser.parse_args()
    exit_with_parent()
    asyncio.run(_serve(options.upstream, options.scale))
