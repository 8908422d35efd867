"""A backend that takes batches, holds them until a test lets them go, and remembers what it was asked."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import final

from aioidempotency import AttributeNames, IdempotencyError, MemoryBackend
from aioidempotency._core.conditions import Absent, HeldBy
from aioidempotency._core.model import Location, Table
from aioidempotency._core.operations import Delete, Get, Operation, Put, Reply, Update
from aioidempotency.backends.dynamodb.arguments import GroupCommit
from aioidempotency.backends.dynamodb.batches import Outcome
from aioidempotency.backends.dynamodb.group_commit import GroupCommitBackend

TABLE = Table("records", "id", None, AttributeNames())
Fault = Callable[[Operation], Outcome | None]


def put(key: str) -> Put:
    """A claim of a key, as far as a backend knows it."""
    location = Location(table=TABLE, partition=key)
    return Put(location, {**location.item, "owner": {"S": "me"}, "status": {"S": "INPROGRESS"}}, Absent())


def completion(key: str, *, owner: str = "me") -> Update:
    """A write of an owner."""
    return Update(Location(table=TABLE, partition=key), {"data": {"S": "1"}}, HeldBy(owner))


def release(key: str, *, owner: str = "me") -> Delete:
    """Another one."""
    return Delete(Location(table=TABLE, partition=key), HeldBy(owner))


def get(key: str) -> Get:
    """A read of it."""
    return Get(Location(table=TABLE, partition=key))


@final
class Inner:
    """Executes operations in memory, each request when it is let go; `fault` answers for one of a batch instead.

    Attributes:
        requests: The keys of each request, in order; a plain call is a text, a batch a list.
        owners: The owners of the operations with one, in order.
        fault: Answers for an operation of a batch.
        plain_fault: Fails a plain call.
        broken: Fails every batch.
        refuses: Fails a batch that holds this operation.
    """

    def __init__(self) -> None:
        self.requests: list[str | list[str]] = []
        self.owners: list[str] = []
        self.fault: Fault = lambda _: None
        self.broken: IdempotencyError | BaseException | None = None
        self.refuses: Callable[[Operation], BaseException | None] = lambda _: None
        self.time_limit = 10.0
        self.closed = False
        self.plain_fault: Callable[[Operation], BaseException | None] = lambda _: None
        self._memory = MemoryBackend()
        self._held: deque[asyncio.Event] = deque()
        self._holding = True

    def let_go(self, count: int = 1) -> None:
        """Let the oldest requests go on."""
        for _ in range(count):
            self._held.popleft().set()

    def let_go_last(self) -> None:
        """Let the newest request go on."""
        self._held.pop().set()

    def let_all_go(self) -> None:
        """Let all requests go on, later ones, too."""
        self._holding = False
        while self._held:
            self._held.popleft().set()

    def hold_again(self) -> None:
        """Hold later requests."""
        self._holding = True

    @property
    def held(self) -> int:
        """How many requests are held."""
        return len(self._held)

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation."""
        self.requests.append(operation.location.partition)
        self._note(operation)
        await self._hold()
        if (error := self.plain_fault(operation)) is not None:
            raise error
        return await self._memory.execute(operation)

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Execute many."""
        self.requests.append([operation.location.partition for operation in operations])
        self._note(*operations)
        await self._hold()
        for error in (self.broken, *map(self.refuses, operations)):
            if error is not None:
                raise error
        return [self.fault(each) or await self._memory.execute(each) for each in operations]

    async def create_table(self, table: Table) -> None:
        """Need none."""

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True

    def _note(self, *operations: Operation) -> None:
        for each in operations:
            if isinstance(each, Update | Delete) and isinstance(each.condition, HeldBy):
                self.owners.append(each.condition.owner)

    async def _hold(self) -> None:
        if self._holding:
            gate = asyncio.Event()
            self._held.append(gate)
            await gate.wait()


@final
class Crowd:
    """A group commit around such a backend, and the calls that are made to it."""

    def __init__(self, **settings: int | bool) -> None:
        self.inner = Inner()
        self.causes: list[IdempotencyError] = []
        given = GroupCommit(**settings)  # type: ignore[arg-type] # numbers and flags, as they are named
        self.max_batch, self.max_in_flight = given.max_batch, given.max_in_flight
        self.backend = GroupCommitBackend(self.inner, given, closes_inner=True, fell_back=self.causes.append)
        self.calls: dict[str, asyncio.Task[Reply]] = {}

    async def call(self, *operations: Operation) -> None:
        """Begin calls, and let each come as far as it can."""
        for operation in operations:
            key = operation.location.partition
            self.calls[key if key not in self.calls else f"{key} again"] = asyncio.create_task(
                self.backend.execute(operation)
            )
        await settle()

    def answers(self, *names: str) -> list[Reply | BaseException | None]:
        """Read what calls have come to; None while they wait."""
        return [_answer(self.calls[name]) for name in names or self.calls]

    async def all(self) -> list[Reply | BaseException]:
        """Let everything end."""
        self.inner.let_all_go()
        return await asyncio.gather(*self.calls.values(), return_exceptions=True)


async def settle() -> None:
    """Let all tasks come as far as they can without time or a gate."""
    for _ in range(20):
        await asyncio.sleep(0)


def _answer(task: asyncio.Task[Reply]) -> Reply | BaseException | None:
    if not task.done():
        return None
    return task.exception() or task.result()
