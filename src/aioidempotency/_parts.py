"""The parts of a store, and overrides: for a while, a store works with other parts.

Invariants:

1. A call reads the parts in use once, when the call begins, and keeps these parts to its end. So an override changes
   nothing for a call under way: the call completes its record in the backend that has its claim.
2. An override has records, effects, running calls and a layout check of its own. Only a backend may be shared with the
   parts outside.
3. An override that is left gives its place to the innermost override that is not left yet, whatever the order.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Lock
from types import TracebackType
from typing import Generic, TypeVar, final

from msgspec import Struct

from aioidempotency._concurrency import Once, PerLoop
from aioidempotency._core.operations import Applied, Found, FoundAll, Get, GetAll, Operation, Query, Reply
from aioidempotency._effects.store import Effects
from aioidempotency._options import Settings, check_function, check_methods, flag
from aioidempotency._records import Records
from aioidempotency._waiting import RunningCalls
from aioidempotency.backends import Backend, Closes, Table
from aioidempotency.backends.dynamodb.arguments import GroupCommit
from aioidempotency.events import GroupCommitUnavailable, Hook, report
from aioidempotency.partitioning import table_layout

S = TypeVar("S")


@final
class Parts(Struct, frozen=True, kw_only=True, eq=False):
    """The parts of a store that its calls use.

    Attributes:
        settings: The store's settings.
        backend: The target of operations, also while the store is disabled.
        closes_backend: Whether closing the store closes the backend.
        records: Runs procedures on the backend.
        effects: Commits a call's own writes.
        running: The calls under way in each event loop.
    """

    settings: Settings
    backend: Backend
    closes_backend: bool
    records: Records
    effects: Effects
    running: PerLoop[RunningCalls]

    @property
    def busy(self) -> bool:
        """Whether any call is under way. The calls of a closed loop never end."""
        # A copy, because another thread, with a loop of its own, may add a value during the iteration.
        return any(calls.busy for loop, calls in tuple(self.running.items()) if not loop.is_closed())

    async def close(self) -> None:
        """Close what the store has opened in the running loop."""
        if self.closes_backend and isinstance(self.backend, Closes):
            await self.backend.aclose()


@final
class PartsOptions(Struct, frozen=True, kw_only=True):
    """The options of a store that its parts are made with, alike in all overrides."""

    hook: Hook | None
    local_cache: int
    group_commit: GroupCommit | None
    verify_layout: bool
    outbox_table: str | None

    def grouped(self, backend: Backend, settings: Settings, *, closes_inner: bool) -> Backend:
        """Put group commit around a backend, if the store has group commit.

        Raises:
            ConfigurationError: The backend takes no batches.
        """
        if self.group_commit is None:
            return backend
        from aioidempotency.backends.dynamodb.group_commit import grouped  # noqa: PLC0415 - loads botocore

        hook, name = self.hook, settings.table.name
        return grouped(
            backend,
            self.group_commit,
            closes_inner=closes_inner,
            fell_back=lambda cause: report(GroupCommitUnavailable(name, cause), hook),
        )

    def parts(self, settings: Settings, backend: Backend, *, closes_backend: bool, promised: float) -> Parts:
        """Make parts on a backend.

        Args:
            settings: The settings of the store, or of the override.
            backend: The target of operations.
            closes_backend: Whether closing the store closes the backend.
            promised: The longest that a record counts, in seconds, by the calls known so far.
        """
        records = Records(
            Nowhere() if settings.disabled else backend,
            clock=settings.clock,
            clock_skew=settings.terms.clock_skew,
            hook=self.hook,
            local_cache=0 if settings.disabled else self.local_cache,
        )
        records.promised = promised
        # A constructor cannot await, so the first operation of any kind waits for the check.
        if self.verify_layout and settings.layout.partitioning is not None and not settings.disabled:
            records.opening = Once(lambda: verify_layout(settings, records))
        return Parts(
            settings=settings,
            backend=backend,
            closes_backend=closes_backend,
            records=records,
            effects=Effects(records, settings, self.outbox_table),
            # A lease's timers belong to the loop of its body, so closing the store in one loop leaves other loops
            # alone.
            running=PerLoop(lambda: RunningCalls(records)),
        )


async def verify_layout(settings: Settings, records: Records) -> None:
    """Compare the table's layout with the settings'. See `AsyncIdempotencyStore.verify_layout`."""
    if (wanted := settings.wanted_layout(records.promised)) is not None:
        # Unverified, because a verified procedure waits for this very check.
        procedure = table_layout.verify(wanted, now=settings.clock())
        table_layout.check(await records.run_unverified(procedure), wanted)


@final
class Nowhere:
    """The backend of a disabled store: takes every write, and keeps nothing."""

    async def execute(self, operation: Operation) -> Reply:
        """Answer as an empty table does."""
        match operation:
            case Get():
                return Found(None)
            case GetAll(locations):
                return FoundAll((None,) * len(locations))
            case Query():
                return FoundAll(())
            case _:
                return Applied()

    async def create_table(self, table: Table) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return "<no table: the store is disabled>"


@final
class PartsInUse:
    """The parts that a store uses now: its own ones, or those of the innermost override.

    Attributes:
        parts: The parts in use. Every call reads this attribute, so an override costs calls nothing.
        left: The parts of overrides that were left before the end of their calls. `aclose` closes them, too.
    """

    __slots__ = ("_lock", "_stack", "left", "parts")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.left: tuple[Parts, ...] = ()
        self._stack = [parts]
        self._lock = Lock()  # threads with loops of their own share a store

    def push(self, make: Callable[[Parts], Parts]) -> Parts:
        """Use other parts, made from the present ones."""
        with self._lock:
            self.parts = made = make(self.parts)
            self._stack.append(made)
        return made

    def remove(self, parts: Parts) -> bool:
        """Use these parts no more. Tell whether they were the innermost ones."""
        with self._lock:
            innermost = parts is self._stack[-1]
            place = self._stack.index(parts)
            self._stack.remove(parts)
            outer = self._stack[place - 1]
            self.parts = self._stack[-1]
            self.left = tuple(each for each in (*self.left, parts) if each.busy)
        # A function that was decorated meanwhile goes on promising its retention.
        if parts.records.promised > outer.records.promised:
            outer.records.promise(parts.records.promised)
        return innermost


@final
class Override(AbstractContextManager[S], Generic[S]):
    """The block of `AsyncIdempotencyStore.override`.

    A class, because `contextlib.contextmanager` makes a decorator, too: around a coroutine function, the override
    would end before the body begins.
    """

    def __init__(
        self,
        store: S,
        in_use: PartsInUse,
        options: PartsOptions,
        *,
        backend: Backend | None,
        clock: Callable[[], float] | None,
        disabled: bool | None,
    ) -> None:
        if backend is not None:
            check_methods(backend, "backend", "execute")
        if clock is not None:
            check_function(clock, "clock")
        if disabled is not None:
            flag(disabled, "disabled")
        self._store = store
        self._in_use = in_use
        self._options = options
        self._backend = backend
        self._clock = clock
        self._disabled = disabled
        self._parts: Parts | None = None

    def __enter__(self) -> S:
        if self._parts is not None:
            raise RuntimeError("this override is entered already; call `override` again for another one inside")
        self._parts = self._in_use.push(self._made)
        return self._store

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parts is None:
            raise RuntimeError("this override was not entered, or was left before")
        parts, self._parts = self._parts, None
        if self._in_use.remove(parts):
            return
        # An error of the block is the better news, and a cancellation must pass.
        if error is None:
            raise RuntimeError(OUT_OF_ORDER)
        error.add_note(OUT_OF_ORDER)

    def _made(self, outer: Parts) -> Parts:
        settings = outer.settings
        clock = settings.clock if self._clock is None else self._clock
        disabled = settings.disabled if self._disabled is None else self._disabled
        if (clock, disabled) != (settings.clock, settings.disabled):
            settings = replace(settings, clock=clock, disabled=disabled)
        backend, closes_backend = outer.backend, outer.closes_backend
        if self._backend is not None:
            backend, closes_backend = self._backend, False
            # A backend that takes no batches, such as a `MemoryBackend`, takes each operation alone.
            if self._options.group_commit is not None and _takes_batches(backend):
                backend = self._options.grouped(backend, settings, closes_inner=False)
                closes_backend = True
        return self._options.parts(settings, backend, closes_backend=closes_backend, promised=outer.records.promised)


def _takes_batches(backend: Backend) -> bool:
    from aioidempotency.backends.dynamodb.batches import Batches  # noqa: PLC0415 - loads botocore

    return isinstance(backend, Batches)


OUT_OF_ORDER = (
    "an override was left before the override inside it, which stays in force until it is left; leave overrides in the "
    "opposite order of their entry"
)
