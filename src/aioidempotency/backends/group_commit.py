"""Operations of concurrent tasks, sent together.

1. With nothing on its way, an operation leaves at once, as the plain call: a lone caller waits for
   nobody. While calls are on their way, operations gather; they leave together when they fill a
   batch, or when one of these returns and fewer than two are left.
2. Each operation is answered by itself. What one statement comes to, its cancellation, its throttling,
   changes nothing for its neighbours. A batch is no transaction.
3. No two operations of one batch are about one item: the service would reject the whole. Nor of two that
   are under way together: the release of a cancelled claim would overtake it, and the key stay held.
4. A batch belongs to no caller: it has a task of its own, which no caller's cancellation reaches.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from aioidempotency._core.model import Table
from aioidempotency._core.operations import Get, Operation, Reply
from aioidempotency._core.statements import can_be_said
from aioidempotency.backends import DescribesKeys
from aioidempotency.backends._batches import BatchError, Batches
from aioidempotency.backends._lane import Lane
from aioidempotency.exceptions import ConfigurationError

LARGEST_BATCH = 25
"""Statements that DynamoDB takes in one request."""


@final
@dataclass(frozen=True, slots=True)
class GroupCommit:
    """Sends the operations of concurrent tasks together: fewer requests, and less processor time for each.

    A lone call is sent as without it. It costs the same write units, and needs the permissions
    `dynamodb:PartiQLInsert`, `PartiQLUpdate`, `PartiQLDelete` and `BatchGetItem`, besides those of the
    plain calls. A batch is no transaction: each operation succeeds or fails by itself.

    Args:
        max_batch: Operations in one request; DynamoDB takes 25.
        max_in_flight: Requests under way at a time, each for reads and for writes.
        max_waiting: Operations that wait to be sent; further callers wait until there is room.
        fallback: Whether to send plain calls where the permissions for batches are missing, with one
            event; else that is a `ConfigurationError`.

    Raises:
        ConfigurationError: A number is out of its bounds.
    """

    max_batch: int = LARGEST_BATCH
    max_in_flight: int = 4
    max_waiting: int = field(default=10_000, kw_only=True)
    fallback: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        bounds = {"max_batch": LARGEST_BATCH, "max_in_flight": 1000, "max_waiting": 10_000_000}
        for name, most in bounds.items():
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= most:
                raise ConfigurationError(f"GroupCommit takes {name}= as a whole number from 1 to {most}: not {given!r}")


@final
class GroupCommitBackend:
    """Gathers operations around a backend that takes many at once.

    Args:
        closes_inner: Whether `aclose` closes the inner backend, too.
        fell_back: Called once, when plain calls take over.
    """

    def __init__(
        self, inner: Batches, settings: GroupCommit, *, closes_inner: bool, fell_back: Callable[[], object]
    ) -> None:
        self._inner = inner
        self._closes_inner = closes_inner
        self._settings = settings
        self._fell_back = fell_back
        self._plain = False
        self._lanes: dict[tuple[asyncio.AbstractEventLoop, bool], Lane] = {}

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, alone or together with others.

        Raises:
            StoreError: DynamoDB did not answer it within the time limit.
            ConfigurationError: There is no PartiQL here, or no permission for it.
        """
        reads = isinstance(operation, Get)
        theirs = operation.location.typed is not None  # a batch is of one table, whose key is text
        if self._plain or theirs or not (reads or can_be_said(operation)):
            return await self._inner.execute(operation)
        return await self._lane(reads=reads).execute(operation)

    async def create_table(self, table: Table) -> None:
        """Create the table, as the inner backend does."""
        await self._inner.create_table(table)

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Name the attributes of a table's key, as the inner backend does."""
        if not isinstance(self._inner, DescribesKeys):
            raise ConfigurationError(f"{self._inner!r} does not tell the key of a table")
        return await self._inner.key_of(table_name)

    async def aclose(self) -> None:
        """Let the running loop's waiting operations fail, and close what was opened."""
        loop = asyncio.get_running_loop()
        for reads in (False, True):
            lane = self._lanes.pop((loop, reads), None)
            if lane is not None:
                await lane.aclose()
        if self._closes_inner:
            await self._inner.aclose()

    def _lane(self, *, reads: bool) -> "Lane":
        loop = asyncio.get_running_loop()
        lane = self._lanes.get((loop, reads))
        if lane is None:
            self._lanes = {key: kept for key, kept in self._lanes.items() if not key[0].is_closed()}
            lane = self._lanes[loop, reads] = Lane(
                self._inner,
                self._refused,
                max_batch=self._settings.max_batch,
                max_in_flight=self._settings.max_in_flight,
                max_waiting=self._settings.max_waiting,
            )
        return lane

    def _refused(self, error: BatchError) -> bool:
        """Say whether what was refused as a batch is sent by plain calls; from now on, all is."""
        if not (self._settings.fallback and error.denied):
            return False
        if not self._plain:
            self._plain = True
            self._fell_back()
        return True

    def __repr__(self) -> str:
        lanes = self._lanes.values()
        waiting, flying = sum(len(lane.waiting) for lane in lanes), sum(lane.in_flight for lane in lanes)
        doing = "plain calls only" if self._plain else f"{waiting} operations waiting, {flying} requests under way"
        return f"<GroupCommitBackend: {doing}, on {self._inner!r}>"


def grouped(
    inner: object, settings: GroupCommit, *, closes_inner: bool, fell_back: Callable[[], object]
) -> GroupCommitBackend:
    """Send operations of concurrent tasks together.

    Raises:
        ConfigurationError: The inner backend takes no batches.
    """
    if not isinstance(settings, GroupCommit):
        raise ConfigurationError(f"group_commit= takes an instance of GroupCommit: not {settings!r}")
    if not isinstance(inner, Batches):
        raise ConfigurationError(f"group_commit= sends batches, and {inner!r} takes none; leave it out, or backend=")
    return GroupCommitBackend(inner, settings, closes_inner=closes_inner, fell_back=fell_back)
