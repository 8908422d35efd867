"""The store: what an application keeps one of. It holds settings and a backend, nothing per call."""

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, final

from aioidempotency import _results
from aioidempotency._blocks import Blocks
from aioidempotency._concurrency import Once, concurrently
from aioidempotency._core import protocol
from aioidempotency._core.decisions import Claimed, Decision, Replay
from aioidempotency._core.model import AttributeNames, Lease, Record
from aioidempotency._driver import Driver
from aioidempotency._effects import Effects
from aioidempotency._execution import Execution
from aioidempotency._functions import check_awaitable, return_type
from aioidempotency._settings import (
    Duration,
    OnInProgress,
    Settings,
    check_kind,
    check_namespace,
    check_table_name,
    one_of,
    seconds,
    time_limit,
    whole_number,
)
from aioidempotency.backends import Backend, Closes, CreatesTables
from aioidempotency.backends.dynamodb import Config, DynamoDBBackend, DynamoDBClient, Session
from aioidempotency.backends.group_commit import GroupCommit, grouped
from aioidempotency.backends.memory import MemoryBackend
from aioidempotency.codecs import Codec, JsonCodec
from aioidempotency.events import GroupCommitUnavailable, Hook, KeyMissing, decided
from aioidempotency.exceptions import ConfigurationError
from aioidempotency.partitioning import CompositeKey, Layout, SimpleKey, Terms

P = ParamSpec("P")
T = TypeVar("T")


@final
class AsyncIdempotencyStore(Effects):
    """Remembers which calls were executed, and with what result, in one DynamoDB table.

    Make one for an application, and share it between tasks. It opens a client at its first call, or
    uses the one it is given; `async with store` or `aclose` closes what it opened itself.

    Args:
        table_name: The table's name or ARN.
        namespace: The first part of every key. Two stores with one namespace share records.
        layout: The table's key. `SimpleKey("id")` fits a table made for Powertools.
        attributes: What the table calls the other attributes.
        retention: Seconds that a finished record answers.
        lease: Seconds after which a call whose process died frees its key. A running call renews it.
        client: An aiobotocore DynamoDB client that the caller opens and closes.
        session: The aiobotocore session to make a client from.
        endpoint_url: Where to reach DynamoDB, for emulators and compatible databases.
        region_name: The table's AWS region.
        config: A botocore configuration, laid over the store's own.
        backend: Where operations go instead of DynamoDB; wins over all client arguments.
        codec: How results become text.
        group_commit: Send the operations of concurrent tasks together, `GroupCommit()`; None sends each alone.
        local_cache: Finished records to keep in this process, those last used: their duplicates send nothing. A
            record that is deleted from the table by other means still answers here until it expires.
        read_first: Read before claiming: worth it where duplicates of large results are common, since a refused
            write is billed by the size of the item it met, and a read at a twentieth of that.
        clock_skew: Seconds by which the clocks of two machines may differ.
        verify_layout: Whether the first call makes sure that the table's records lie as `layout` says, by one read.
        outbox_table: The table of emitted events, with the key `pk` and `sk`; None: the own one, if it has a sort key.
        compress_over: Characters of JSON over which a result is compressed; None compresses nothing.
            Powertools cannot read a compressed result.
        on_completion_failure: What to do when a result could not be stored before the lease ended:
            report it and answer all the same, or raise, with the result on the error.
        fail_open: Run calls unprotected while the store does not answer; `failed_open` counts them.
        clock: Epoch seconds; replace it in tests.
        on_event: Called with every event, see `aioidempotency.events`.

    Raises:
        ConfigurationError: Settings that make no sense, or contradict each other.
    """

    def __init__(
        self,
        table_name: str,
        *,
        namespace: str = "",
        layout: Layout = SimpleKey("id"),  # noqa: B008 - an immutable value
        attributes: AttributeNames = AttributeNames(),  # noqa: B008 - an immutable value
        retention: Duration = 3600,
        lease: Duration = 60,
        client: DynamoDBClient | None = None,
        session: Session | None = None,
        endpoint_url: str | None = None,
        region_name: str | None = None,
        config: Config | None = None,
        backend: Backend | None = None,
        codec: Codec = JsonCodec(),  # noqa: B008 - it has no state
        group_commit: GroupCommit | None = None,
        local_cache: int = 0,
        read_first: bool = False,
        clock_skew: Duration = 1.0,
        verify_layout: bool = True,
        outbox_table: str | None = None,
        compress_over: int | None = 32 * 1024,
        on_completion_failure: Literal["report", "raise"] = "report",
        fail_open: bool = False,
        clock: Callable[[], float] = time.time,
        on_event: Hook | None = None,
    ) -> None:
        check_table_name(table_name)
        check_kind(layout, "layout", SimpleKey | CompositeKey)
        check_kind(attributes, "attributes", AttributeNames)
        check_namespace(namespace)
        if inspect.iscoroutinefunction(on_event):
            raise ConfigurationError("on_event= is called in line, and not awaited; give it a plain function")
        one_of(on_completion_failure, "on_completion_failure", ("report", "raise"))
        terms = Terms(
            retention=seconds(retention, "retention"),
            lease=seconds(lease, "lease"),
            clock_skew=seconds(clock_skew, "clock_skew", zero=True),
        )
        self._settings = Settings(
            table=layout.table(table_name, attributes),
            layout=layout.bound(terms),
            namespace=namespace,
            terms=terms,
            read_first=read_first,
            clock=clock,
        )
        self._closes_backend = backend is None or group_commit is not None
        if (asked := backend) is None:
            asked = DynamoDBBackend(
                client,
                session=session,
                endpoint_url=endpoint_url,
                region_name=region_name,
                config=config,
                time_limit=time_limit(terms.lease),
            )
        if group_commit is not None:
            plain_only = GroupCommitUnavailable(table_name)
            asked = grouped(
                asked, group_commit, closes_inner=backend is None, fell_back=lambda: self._driver.report(plain_only)
            )
        self._driver = Driver(
            asked,
            codec,
            clock=clock,
            clock_skew=terms.clock_skew,
            compress_over=compress_over,
            hook=on_event,
            fail_open=fail_open,
            on_completion_failure=on_completion_failure,
            local_cache=whole_number(local_cache, "local_cache"),
            outbox=self._settings.outbox(outbox_table),
        )
        if verify_layout and self._settings.laid is not None:
            self._driver.opening = Once(self.verify_layout)

    @classmethod
    def in_memory(cls, table_name: str = "in-memory", **options: Any) -> Self:
        """Make a store whose records live in this process, for tests; it takes the same options."""
        return cls(table_name, backend=MemoryBackend(), **options)

    @property
    def codec(self) -> Codec:
        """How results become text."""
        return self._driver.codec

    @property
    def failed_open(self) -> int:
        """How many calls ran unprotected, because the store did not answer and `fail_open` is set."""
        return self._driver.failed_open

    async def claim(
        self,
        key: object,
        *,
        fingerprint: object = None,
        lease: Duration | None = None,
        retention: Duration | None = None,
        namespace: str = "",
    ) -> Decision:
        """Try to own a key. All four decisions are expected outcomes; match them.

        Raises:
            MissingKeyError: The key is None or empty.
            ResultUnavailableError: The key was executed, and its result cannot be had.
            StoreError: The store did not answer. Whether the claim was written is then unknown; if it
                was, the key is free again when the lease is over.
        """
        attempt = self._settings.attempt(
            key,
            namespace=namespace,
            fingerprint=fingerprint,
            lease=None if lease is None else self._settings.protected(lease),
            retention=None if retention is None else self._settings.kept(retention),
        )
        decision = self._driver.cached(attempt) or await self._driver.claim(attempt)
        self._driver.report(decided(decision))
        if not isinstance(decision, Replay):
            return decision
        self._driver.cache.put(attempt.route.key, decision.record)
        return Replay(_results.opened(decision.record, self.codec))

    async def claim_many(
        self, keys: Iterable[object], *, limit: int = 32, lease: Duration | None = None, namespace: str = ""
    ) -> list[Decision]:
        """Claim keys concurrently, `limit` at a time; the decisions come in the order asked.

        When one claim fails, the others are released before its error is raised.
        """
        made: list[Lease] = []

        async def claim(key: object) -> Decision:
            decision = await self.claim(key, lease=lease, namespace=namespace)
            if isinstance(decision, Claimed):
                made.append(decision.lease)
            return decision

        try:
            return await concurrently(claim, keys, limit=limit)
        except BaseException:
            await self._driver.abandon([(lease.location, lease.owner) for lease in made])
            raise

    async def complete(self, lease: Lease, result: object) -> Record:
        """Store the result of a claimed key, for as long as its retention says.

        A result that cannot be stored leaves a tombstone, so that the key does not run again.

        Raises:
            LeaseLostError: Someone else holds the record; nothing was changed.
            StoreError: The store did not answer; the call may be repeated.
        """
        encoded = self._driver.encoded(lease, result)
        return _results.opened(await self._driver.complete(lease, encoded), self.codec, tolerant=True)

    async def renew(self, lease: Lease) -> Lease:
        """Move the end of a lease to its duration from now.

        Raises:
            LeaseLostError: Someone else holds the record, or it is finished.
            StoreError: The store did not answer; the old lease still counts.
        """
        return await self._driver.renew(lease)

    async def release(self, lease: Lease) -> None:
        """Give a key back, so that the next call runs. A finished record stays.

        Raises:
            LeaseLostError: Someone else holds the record; nothing was deleted.
            StoreError: The store did not answer.
        """
        await self._driver.release(lease)

    def execute(
        self,
        key: object,
        *,
        fingerprint: object = None,
        lease: Duration | None = None,
        retention: Duration | None = None,
        heartbeat: bool | Duration = True,
        on_in_progress: OnInProgress = "raise",
        on_error: Literal["release", "hold"] = "release",
        store_errors: tuple[type[Exception], ...] = (),
        read_first: bool | None = None,
        namespace: str = "",
        result_type: object = Any,
    ) -> AbstractAsyncContextManager[Execution]:
        """Open a block that runs once for each key.

        Entering claims the key; while the block runs, its lease is renewed. Leaving stores what
        `execution.complete` was given, or None; an error in the block releases the key and passes on
        as itself.

        Args:
            key: Text, or anything that the decorator accepts as key material.
            fingerprint: What must be equal between two calls with this key.
            lease: Instead of the store's.
            retention: Instead of the store's.
            heartbeat: Whether the lease is renewed; or the seconds between renewals, a third of the
                lease at the most.
            on_in_progress: What to do while another owner runs the key.
            on_error: Whether an error in the block gives the key back, or holds it until its lease ends.
            store_errors: Errors that are results: stored, and raised again by replays.
            read_first: Instead of the store's.
            namespace: Stands between the store's namespace and the digest.
            result_type: What a replayed result is read back as.

        Raises:
            InProgressError: Another owner runs the key.
            MismatchError: The key was used with another fingerprint.
            ResultUnavailableError: The key was executed, and its result cannot be had.
            LeaseLostError: On leaving: the lease was lost, or could not be renewed; the block was
                cancelled, or its result not stored.
            StoreError: The store did not answer the claim.
        """
        blocks = self._blocks(
            lease=lease,
            retention=retention,
            heartbeat=heartbeat,
            on_in_progress=on_in_progress,
            on_error=on_error,
            store_errors=store_errors,
            read_first=read_first,
        )
        return blocks.open(key, fingerprint=fingerprint, namespace=namespace, result_type=result_type)

    def _blocks(self, **given: Any) -> Blocks:
        """Check and read once what calls have in common."""
        return Blocks.of(self._driver, self._settings, **given)

    async def run(self, key: object, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function once for each key, and answer with its result or its replay.

        The errors are those of `execute`, and whatever the function raises.
        """
        check_awaitable(function)
        async with self.execute(key, result_type=return_type(function)) as execution:
            if not execution.replayed:
                execution.complete(await function(*args, **kwargs))
        return execution.result  # type: ignore[return-value] # read back as the function's return type

    async def get(self, key: object, *, namespace: str = "") -> Record | None:
        """Read the record of a key, strongly consistent; None when there is none that counts."""
        route = self._settings.route(key, namespace)
        record = await self._driver.drive(protocol.read(route, now=self._driver.now()))
        return None if record is None else _results.opened(record, self.codec, tolerant=True)

    async def get_many(self, keys: Iterable[object], *, limit: int = 32, namespace: str = "") -> list[Record | None]:
        """Read records concurrently, `limit` at a time; the answers come in the order asked."""

        async def get(key: object) -> Record | None:
            return await self.get(key, namespace=namespace)

        return await concurrently(get, keys, limit=limit)

    async def create_table(self) -> None:
        """Create the table, and that of the outbox if it is another: on demand, with TTL on its expiration; wait until it can be used.

        A table of the same name and key keeps its settings, but its TTL is turned on. The layout is
        written into the table, where it does not say one yet.

        Raises:
            ConfigurationError: A table of this name has another key, or TTL on another attribute; or the
                backend makes no tables.
            LayoutMismatchError: Its records lie otherwise.
        """
        backend, table = self._driver.backend, self._settings.table
        if not isinstance(backend, CreatesTables):
            raise ConfigurationError(f"{backend!r} makes no tables; create {table.name!r} by other means")
        await backend.create_table(table)
        if self._driver.outbox is not None and self._driver.outbox.table is not table:
            await backend.create_table(self._driver.outbox.table)
        if self._driver.opening is not None:
            await self._driver.opening()

    async def verify_layout(self) -> None:
        """Make sure that the table's records lie as the store's layout says; with `SimpleKey` they always do.

        The first call of a store does it, unless `verify_layout=False`. A table that says nothing is
        told the store's layout; one that is a phase of `Reshard` behind it is moved on.

        Raises:
            LayoutMismatchError: They lie otherwise: calls would run again.
            StoreError: The store did not answer.
        """
        if (laid := self._settings.laid) is not None:
            await self._driver.verify_layout(laid)

    async def aclose(self) -> None:
        """End all renewals, and close what the store opened. A later call opens anew.

        Let running calls end first: without renewals, a body is cancelled before its lease ends.
        """
        await self._driver.heartbeats.aclose()
        if self._closes_backend and isinstance(self._driver.backend, Closes):
            await self._driver.backend.aclose()

    def warn_of_missing_key(self, namespace: str) -> None:
        """Report that calls in this namespace run without a key."""
        self._driver.report(KeyMissing(namespace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        doing = f"{len(self._driver.flights)} calls under way, {len(self._driver.heartbeats)} leases kept"
        return f"<AsyncIdempotencyStore {self._settings.table.name!r}: {doing}, on {self._driver.backend!r}>"
