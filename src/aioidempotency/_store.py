"""The store: what an application keeps one of. It holds its parts and their settings, nothing per call."""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, final

import anyio

from aioidempotency import _results
from aioidempotency._call import CallOptions, Execution, Parts
from aioidempotency._concurrency import Once, PerLoop, concurrently
from aioidempotency._core import protocol
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Replay
from aioidempotency._core.model import AttributeNames, Lease, Record
from aioidempotency._effects.store import Effects
from aioidempotency._effects.transaction import OutboxEvent, Writes
from aioidempotency._keys import check_namespace, digest
from aioidempotency._namespaces import Functions, namespace_of
from aioidempotency._options import (
    AUTO,
    Auto,
    Duration,
    OnInProgress,
    Settings,
    check_kind,
    check_table_name,
    labelled,
    one_of,
    seconds,
    time_limit,
    whole_number,
)
from aioidempotency._records import Records
from aioidempotency._signatures import check_awaitable, return_type
from aioidempotency._waiting import RunningCalls
from aioidempotency.backends import Backend, Closes, CreatesTables
from aioidempotency.backends.dynamodb import Config, DynamoDBBackend, DynamoDBClient, GroupCommit, Session
from aioidempotency.backends.dynamodb.group_commit import grouped
from aioidempotency.backends.memory import MemoryBackend
from aioidempotency.codecs import Codec, JsonCodec
from aioidempotency.events import GroupCommitUnavailable, Hook, KeyMissing, decided
from aioidempotency.exceptions import ConfigurationError, InProgressError
from aioidempotency.partitioning import CompositeKey, KeySchema, SimpleKey, Terms, table_layout

P = ParamSpec("P")
T = TypeVar("T")


@final
class AsyncIdempotencyStore:
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
        config: A botocore configuration, merged over the store's own.
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
        label: Who claims, for people who read a record's `claimed_by`: cut to 256 bytes. Left out, the label is the host's
            name and the process id; on Lambda the function, its log stream and the request id. None writes no label.
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
        layout: KeySchema = SimpleKey("id"),  # noqa: B008 - an immutable value
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
        label: str | Auto | None = AUTO,
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
        settings = Settings(
            table=layout.table(table_name, attributes),
            layout=layout.bound(terms),
            namespace=namespace,
            terms=terms,
            read_first=read_first,
            clock=clock,
            codec=codec,
            compress_over=compress_over,
            fail_open=fail_open,
            on_completion_failure=on_completion_failure,
            label=labelled(label),
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
            asked = grouped(
                asked,
                group_commit,
                closes_inner=backend is None,
                fell_back=lambda cause: self._records.report(GroupCommitUnavailable(table_name, cause)),
            )
        records = Records(
            asked,
            clock=clock,
            clock_skew=terms.clock_skew,
            hook=on_event,
            local_cache=whole_number(local_cache, "local_cache"),
        )
        if verify_layout and settings.wanted_layout is not None:
            records.opening = Once(self.verify_layout)
        self._settings = settings
        self._records = records
        self._effects = Effects(records, settings, outbox_table)
        self._running = PerLoop(lambda: RunningCalls(records))
        self._functions = Functions()
        self._parts = Parts(
            settings=settings, records=records, effects=self._effects, running=self._running, close=self._close
        )

    @classmethod
    def in_memory(cls, table_name: str = "in-memory", **options: Any) -> Self:
        """Make a store whose records live in this process, for tests; it takes the same options."""
        return cls(table_name, backend=MemoryBackend(), **options)

    @property
    def codec(self) -> Codec:
        """How results become text."""
        return self._settings.codec

    @property
    def failed_open(self) -> int:
        """How many calls ran unprotected, because the store did not answer and `fail_open` is set."""
        return self._records.failed_open

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
        options = self._options(lease=lease, retention=retention)
        call = options.call(key, fingerprint=_digest(fingerprint), namespace=namespace, result_type=Any)
        attempt = call.attempt()
        decision = self._records.cached(attempt.route.key, lambda: attempt) or await self._records.claim(attempt)
        self._records.report(decided(decision))
        if not isinstance(decision, Replay):
            return decision
        if self._records.cache is not None:
            self._records.cache.put(attempt.route.key, decision.record)
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
            await self._records.give_back((lease.key, protocol.release(lease)) for lease in made)
            raise

    async def complete(self, lease: Lease, result: object) -> Record:
        """Store the result of a claimed key, for as long as its retention says.

        A result that cannot be stored leaves a tombstone, so that the key does not run again.

        Raises:
            LeaseLostError: Someone else holds the record; nothing was changed.
            StoreError: The store did not answer; the call may be repeated.
        """
        encoded = _results.serialize_or_tombstone(result, lease, self._settings, self._records.report)
        return _results.opened(await self._records.complete(lease, encoded), self.codec, tolerant=True)

    async def renew(self, lease: Lease) -> Lease:
        """Move the end of a lease to its duration from now.

        Raises:
            LeaseLostError: Someone else holds the record, or it is finished.
            StoreError: The store did not answer; the old lease still counts.
        """
        return await self._records.renew(lease)

    async def release(self, lease: Lease) -> None:
        """Give a key back, so that the next call runs. A finished record stays.

        Raises:
            LeaseLostError: Someone else holds the record; nothing was deleted.
            StoreError: The store did not answer.
        """
        await self._records.release(lease)

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
        options = self._options(
            lease=lease,
            retention=retention,
            heartbeat=heartbeat,
            on_in_progress=on_in_progress,
            on_error=on_error,
            store_errors=store_errors,
            read_first=read_first,
        )
        return options.call(key, fingerprint=_digest(fingerprint), namespace=namespace, result_type=result_type)

    def _options(self, **given: Any) -> CallOptions:
        """Validate the options of calls, once for all of them."""
        return CallOptions.of(self._parts, **given)

    async def run(self, key: object, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function once for each key, and answer with its result or its replay.

        Two functions never share a key: the namespace is the one that `namespace_of(function)` tells.
        The errors are those of `execute`, and whatever the function raises.
        """
        check_awaitable(function)
        block = self.execute(key, namespace=namespace_of(function), result_type=return_type(function))
        async with block as execution:
            if not execution.replayed:
                execution.complete(await function(*args, **kwargs))
        return execution.result  # type: ignore[return-value] # read back as the function's return type

    async def get(self, key: object, *, namespace: str = "") -> Record | None:
        """Read the record of a key, strongly consistent; None when there is none that counts."""
        record = await self._records.read(self._settings.route(key, namespace))
        return None if record is None else _results.opened(record, self.codec, tolerant=True)

    async def get_many(self, keys: Iterable[object], *, limit: int = 32, namespace: str = "") -> list[Record | None]:
        """Read records concurrently, `limit` at a time; the answers come in the order asked."""

        async def get(key: object) -> Record | None:
            return await self.get(key, namespace=namespace)

        return await concurrently(get, keys, limit=limit)

    async def forget(self, key: object, *, namespace: str = "", running: bool = False) -> bool:
        """Free a key, so that its next call runs.

        A finished record is deleted, whether it holds a result, an error or a tombstone, and so is the record of a
        lease that is over. Other processes that keep the result in their `local_cache` go on answering from there.

        With `running=True`, a running owner is shut out: its completion, renewal and release are refused with
        `LeaseLostError` for as long as its record would have lived. The body is cancelled when its next renewal is
        refused, also in this process; a body without a heartbeat runs to its end. Only the owner that runs now is shut
        out, and no call that claims meanwhile. Powertools' own calls cannot be shut out: Powertools stores results
        without a condition.

        Args:
            key: Text, or anything that the decorator accepts as key material.
            namespace: Stands between the store's namespace and the digest; `namespace_of(function)` for the keys of a
                decorated function, or of `run`.
            running: Whether a running owner may be shut out.

        Returns:
            Whether there was anything to free.

        Raises:
            InProgressError: The key is running, and `running` is not set; or the record kept changing.
            StoreError: The store did not answer; call again.
        """
        attempt = self._options().call(key, namespace=namespace, result_type=Any).attempt()
        outcome = await self._records.forget(attempt, running=running)
        if isinstance(outcome, InProgress):
            raise InProgressError(outcome.record, outcome.retry_after)
        if outcome.fenced:
            # The next call in this loop has to look at the table, not at the call that was shut out.
            self._running[asyncio.get_running_loop()].in_flight.pop(attempt.route.key, None)
        return outcome.found

    async def commit_once(
        self,
        key: object,
        result: object,
        writes: Writes,
        *,
        fingerprint: object = None,
        retention: Duration | None = None,
        namespace: str = "",
        result_type: object = Any,
    ) -> object:
        """Apply writes and store their result once for each key, in one transaction, without a claim.

        It is for handlers that know what to write before anything has happened: no lease is held and no
        body runs. A duplicate writes nothing, and is answered with the stored result. When it fails or is
        cancelled, calling it again with the key tells what came of it.

        Args:
            key: Text, or anything that the decorator accepts as key material.
            result: What duplicates are answered with.
            writes: Actions as the wire has them, `[{"Put": {...}}, ...]`; or a function that is given a
                `Transaction` to write into.
            fingerprint: What must be equal between two calls with this key.
            retention: Instead of the store's.
            namespace: Stands between the store's namespace and the digest.
            result_type: What a stored result is read back as.

        Returns:
            The result given, or the stored one.

        Raises:
            TransactionError: The writes were refused, by DynamoDB or before they were sent; nothing is stored.
            ConfigurationError: The locations of keys depend on time, as with `TimeBuckets`.
            InProgressError: The key is held by a claim that runs.
            MismatchError: The key was used with another fingerprint.
            ResultUnavailableError: The key was executed, and its result cannot be had.
            SerializationError: The result or a value cannot be stored.
            StoreError: The store did not answer; call again.
        """
        attempt = self._options(retention=retention).call(
            key, fingerprint=_digest(fingerprint), namespace=namespace, result_type=result_type
        )
        return await self._effects.commit_once(attempt.attempt(), result, writes, result_type=result_type)

    async def get_or_create_id(
        self,
        key: object,
        factory: Callable[[], str | Awaitable[str]] | None = None,
        *,
        expires_after: Duration | None = None,
        namespace: str = "",
    ) -> str:
        """Answer with one id for a key, for ever: the one that the first call made.

        It costs one conditional write, refused or not. Ids have no lease; their location does not depend on
        the layout, so no `Reshard` moves them.

        Args:
            key: Text, or anything that the decorator accepts as key material: a client's own id, say.
            factory: Makes an id, a text; it is called each time, and its id is dropped where there is one.
                A UUID of version 7 where none is given.
            expires_after: Seconds after which the key has no id any more, and the next call makes one.
            namespace: Stands between the store's namespace and the digest.

        Raises:
            MissingKeyError: The key is None or empty.
            SerializationError: The factory made no text.
            StoreError: The store did not answer; call again.
        """
        return await self._effects.get_or_create_id(key, factory, expires_after=expires_after, namespace=namespace)

    async def put_if_absent(
        self, table_name: str, item: Mapping[str, object], key: str | Sequence[str] = ("pk",)
    ) -> dict[str, object]:
        """Store an item in a table of yours unless one with its key is there, by one conditional put.

        Args:
            table_name: The table's name or ARN.
            item: Plain Python values, or typed ones as the wire has them.
            key: The names of the table's one or two key attributes.

        Returns:
            The item that is there now, this one or the earlier one, as plain Python values; typed where all
            values of `item` were.

        Raises:
            ConfigurationError: The item lacks a key attribute, or the table is not there.
            SerializationError: DynamoDB cannot hold a value, or the item is over 400 KB.
            StoreError: The store did not answer; call again.
        """
        return await self._effects.put_if_absent(table_name, item, key)

    def outbox(
        self, *, shards: Collection[int] | None = None, poll: Duration | None = 1.0, event_type: object = Any
    ) -> AsyncGenerator[OutboxEvent, None]:
        """Hand out the events that transactions emitted, and delete each when the next one is asked for.

        At least once: what the loop was doing when it ended is handed out again. Events of one key come in
        the order of their sequence numbers: each after all those of its key whose transaction had been
        answered before its own was sent. Several relays may run; their duplicates are then more, their
        order is the same for the first delivery of each event.

        Args:
            shards: Which of the 16 shards of the outbox to look at, to share the work; all by default.
            poll: Seconds between looks at an empty outbox; None ends when it is empty.
            event_type: What an event is read back as.

        Raises:
            ConfigurationError: The store has no table for events.
            SerializationError: While iterating: an event does not fit the type; it stays.
            StoreError: While iterating: the store did not answer; iterate anew.
        """
        return self._effects.relay(shards=shards, poll=poll, event_type=event_type)

    async def create_table(self) -> None:
        """Create the table, and that of the outbox if it is another: on demand, with TTL on its expiration; wait until it can be used.

        A table of the same name and key keeps its settings, but its TTL is turned on. The layout is
        written into the table, where it does not say one yet.

        Raises:
            ConfigurationError: A table of this name has another key, or TTL on another attribute; or the
                backend makes no tables.
            LayoutMismatchError: Its records lie otherwise.
        """
        backend, table = self._records.backend, self._settings.table
        if not isinstance(backend, CreatesTables):
            raise ConfigurationError(f"{backend!r} makes no tables; create {table.name!r} by other means")
        await backend.create_table(table)
        box = self._effects.box
        if box is not None and box.table is not table:
            await backend.create_table(box.table)
        if self._records.opening is not None:
            await self._records.opening()

    async def verify_layout(self) -> None:
        """Make sure that the table's records lie as the store's layout says; with `SimpleKey` they always do.

        The first call of a store does it, unless `verify_layout=False`. A table that says nothing is
        told the store's layout; one that is a phase of `Reshard` behind it is moved on.

        Raises:
            LayoutMismatchError: They lie otherwise: calls would run again.
            StoreError: The store did not answer.
        """
        if (wanted := self._settings.wanted_layout) is not None:
            procedure = table_layout.verify(wanted, now=self._settings.clock())
            table_layout.check(await self._records.run_unverified(procedure), wanted)

    async def aclose(self, *, drain: Duration = 0) -> None:
        """End all renewals in the running loop, and close what the store opened there. A later call opens anew.

        A call that still runs goes on without renewals, until its lease ends; the last one closes what it opened
        anew. Let running calls end first:

        Args:
            drain: Seconds to wait for running calls.
        """
        patience = seconds(drain, "drain", zero=True)
        running = self._running.get(asyncio.get_running_loop())
        if running is not None:
            running.closed = True
            with anyio.move_on_after(patience):
                await running.drain()
            await running.leases.aclose()
        await self._close()

    async def _close(self) -> None:
        if self._closes_backend and isinstance(self._records.backend, Closes):
            await self._records.backend.aclose()

    def warn_of_missing_key(self, namespace: str) -> None:
        """Report that calls in this namespace run without a key."""
        self._records.report(KeyMissing(namespace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        running = self._running.values()
        calls, leases = sum(len(each.in_flight) for each in running), sum(len(each.leases) for each in running)
        doing = f"{calls} calls under way, {leases} leases kept"
        return f"<AsyncIdempotencyStore {self._settings.table.name!r}: {doing}, on {self._records.backend!r}>"


def _digest(fingerprint: object) -> str | None:
    return None if fingerprint is None else digest(fingerprint, subject="the fingerprint")
