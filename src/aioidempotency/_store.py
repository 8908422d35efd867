"""The store: what an application keeps one of. It holds settings and a backend, nothing per call."""

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar, final, runtime_checkable

import anyio

from aioidempotency import _results
from aioidempotency._concurrency import CLEANUP_LIMIT, concurrently
from aioidempotency._core import keys, protocol
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import AttributeNames, Encoded, Lease, Location, Record, Status, Table
from aioidempotency._core.protocol import Claim, Completed, Lost, Procedure, Released, Renewed
from aioidempotency._execution import Executing, Execution
from aioidempotency._functions import check_awaitable, return_type
from aioidempotency._settings import Duration, check_namespace, check_table_name, seconds, time_limit
from aioidempotency.backends import Backend
from aioidempotency.backends.dynamodb import Config, DynamoDBBackend, DynamoDBClient, Session
from aioidempotency.backends.memory import MemoryBackend
from aioidempotency.codecs import Codec, JsonCodec
from aioidempotency.events import (
    CallClaimed,
    CallMismatched,
    CallRefused,
    CallReplayed,
    Event,
    Hook,
    RecordCompleted,
    ReleaseFailed,
    ResultDropped,
    report,
)
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    LeaseLostError,
    MissingKeyError,
    ResultUnavailableError,
    SerializationError,
)
from aioidempotency.partitioning import Layout, SimpleKey

P = ParamSpec("P")
T = TypeVar("T")


@runtime_checkable
class _CreatesTables(Protocol):
    async def create_table(self, table: Table) -> None: ...


@runtime_checkable
class _Closes(Protocol):
    async def aclose(self) -> None: ...


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
        lease: Seconds that a running call is protected if its process dies.
        client: An aiobotocore DynamoDB client that the caller opens and closes.
        session: The aiobotocore session to make a client from.
        endpoint_url: Where to reach DynamoDB, for emulators and compatible databases.
        region_name: The table's AWS region.
        config: A botocore configuration, laid over the store's own.
        backend: Where operations go instead of DynamoDB; wins over all client arguments.
        codec: How results become text.
        clock_skew: Seconds by which the clocks of two machines may differ.
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
        clock_skew: float = 1.0,
        clock: Callable[[], float] = time.time,
        on_event: Hook | None = None,
    ) -> None:
        check_table_name(table_name)
        check_namespace(namespace)
        self._table = layout.table(table_name, attributes)
        self._layout = layout
        self._namespace = namespace
        self._retention = seconds(retention, "retention")
        self._lease = seconds(lease, "lease")
        self._clock_skew = 0.0 if clock_skew == 0 else seconds(clock_skew, "clock_skew")
        self._codec = codec
        self._clock = clock
        self._hook = on_event
        self._backend: Backend = backend or DynamoDBBackend(
            client,
            session=session,
            endpoint_url=endpoint_url,
            region_name=region_name,
            config=config,
            time_limit=time_limit(self._lease),
        )
        self._closes_backend = backend is None

    @classmethod
    def in_memory(cls, table_name: str = "in-memory", **options: Any) -> Self:
        """Make a store whose records live in this process, for tests; it takes the same options."""
        return cls(table_name, backend=MemoryBackend(), **options)

    @property
    def codec(self) -> Codec:
        """How results become text."""
        return self._codec

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
        attempt = self._attempt(key, fingerprint, lease, retention, namespace)
        decision = await self._claim(attempt)
        return Replay(self._opened(decision.record)) if isinstance(decision, Replay) else decision

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
            with anyio.move_on_after(CLEANUP_LIMIT, shield=True):
                await concurrently(self._give_back, made, limit=limit)
            raise

    async def complete(self, lease: Lease, result: object) -> Record:
        """Store the result of a claimed key, for as long as its retention says.

        A result that cannot be stored leaves a tombstone, so that the key does not run again.

        Raises:
            LeaseLostError: Someone else holds the record; nothing was changed.
            StoreError: The store did not answer; the call may be repeated.
        """
        return self._opened(await self.complete_encoded(lease, self.encoded(lease, result)), tolerant=True)

    async def renew(self, lease: Lease) -> Lease:
        """Move the end of a lease to its duration from now.

        Raises:
            LeaseLostError: Someone else holds the record, or it is finished.
            StoreError: The store did not answer; the old lease still counts.
        """
        renewing = protocol.renew(lease, now=self.now(), clock_skew=self._clock_skew)
        match await self._drive(renewing):
            case Renewed(renewed):
                return renewed
            case Lost(record):
                raise LeaseLostError(lease.key, record)

    async def release(self, lease: Lease) -> None:
        """Give a key back, so that the next call runs. A finished record stays.

        Raises:
            LeaseLostError: Someone else holds the record; nothing was deleted.
            StoreError: The store did not answer.
        """
        match await self._drive(protocol.release(lease.location, lease.owner)):
            case Released():
                return
            case Lost(record):
                raise LeaseLostError(lease.key, record)

    def execute(
        self,
        key: object,
        *,
        fingerprint: object = None,
        lease: Duration | None = None,
        retention: Duration | None = None,
        namespace: str = "",
        result_type: object = Any,
    ) -> AbstractAsyncContextManager[Execution]:
        """Open a block that runs once for each key.

        Entering claims the key. Leaving stores what `execution.complete` was given, or None; an error
        in the block releases the key and passes on as itself.

        Raises:
            InProgressError: Another owner runs the key.
            MismatchError: The key was used with another fingerprint.
            ResultUnavailableError: The key was executed, and its result cannot be had.
            LeaseLostError: On leaving: someone else took the key over; the result was not stored.
            StoreError: The store did not answer the claim.
        """
        attempt = self._attempt(key, fingerprint, lease, retention, namespace)
        return Executing(self, lambda: self._claim(attempt), result_type=result_type)

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
        now = self.now()
        location = self._layout.location(self._table, self.key(key, namespace=namespace), now)
        record = await self._drive(protocol.read(location, now=now))
        return None if record is None else self._opened(record, tolerant=True)

    async def get_many(self, keys: Iterable[object], *, limit: int = 32, namespace: str = "") -> list[Record | None]:
        """Read records concurrently, `limit` at a time; the answers come in the order asked."""

        async def get(key: object) -> Record | None:
            return await self.get(key, namespace=namespace)

        return await concurrently(get, keys, limit=limit)

    async def create_table(self) -> None:
        """Create the table: on demand, with TTL on its expiration; wait until it can be used.

        A table of the same name and key is left as it is.

        Raises:
            ConfigurationError: A table of this name has another key, or the backend makes no tables.
        """
        if not isinstance(self._backend, _CreatesTables):
            raise ConfigurationError(f"{self._backend!r} makes no tables; create {self._table.name!r} by other means")
        await self._backend.create_table(self._table)

    def key(self, material: object, *, namespace: str = "") -> str:
        """Make a record's key, `namespace#digest`, from key material.

        Raises:
            MissingKeyError: The material is None or empty.
            SerializationError: The material has no canonical form.
        """
        if keys.is_missing(material):
            raise MissingKeyError("the key")
        check_namespace(namespace)
        return f"{'#'.join(filter(None, (self._namespace, namespace)))}#{keys.digest(material)}"

    def now(self) -> float:
        """Read the store's clock: epoch seconds."""
        return self._clock()

    def report(self, event: Event) -> None:
        """Log an event and hand it to the hook."""
        report(event, self._hook)

    def encoded(self, lease: Lease, result: object) -> Encoded:
        """Write a result as it is stored; a tombstone where it cannot be."""
        try:
            return _results.encode(result, lease, self._codec)
        except SerializationError as error:
            self.report(ResultDropped(lease.key, str(error)))
            return _results.TOMBSTONE

    def decoded(self, record: Record, result_type: object) -> object:
        """Read a finished record's result, see `_results.decode`."""
        return _results.decode(record, result_type, self._codec)

    async def complete_encoded(self, lease: Lease, result: Encoded) -> Record:
        """Store a result that is encoded already."""
        match await self._drive(protocol.complete(lease, result, now=self.now())):
            case Completed(record):
                self.report(RecordCompleted(lease.key))
                return record
            case Lost(record):
                raise LeaseLostError(lease.key, record)

    async def aclose(self) -> None:
        """Close what the store opened. It can be used again afterwards, and opens anew."""
        if self._closes_backend and isinstance(self._backend, _Closes):
            await self._backend.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _attempt(
        self,
        key: object,
        fingerprint: object,
        lease: Duration | None,
        retention: Duration | None,
        namespace: str,
    ) -> Claim:
        """Decide everything about a call, before its first request."""
        now = self.now()
        return Claim(
            location=self._layout.location(self._table, self.key(key, namespace=namespace), now),
            owner=secrets.token_hex(16),
            now=now,
            lease=self._lease if lease is None else seconds(lease, "lease"),
            retention=self._retention if retention is None else seconds(retention, "retention"),
            clock_skew=self._clock_skew,
            fingerprint=None if fingerprint is None else keys.digest(fingerprint, subject="the fingerprint"),
        )

    async def _claim(self, attempt: Claim) -> Decision:
        """Claim; when cancelled meanwhile, give back what may have been written."""
        try:
            decision = await self._drive(protocol.claim(attempt))
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(CLEANUP_LIMIT, shield=True):
                await self._abandon(attempt.location, attempt.owner)
            raise
        self.report(_event(decision))
        return decision

    async def _give_back(self, lease: Lease) -> None:
        await self._abandon(lease.location, lease.owner)

    async def _abandon(self, location: Location, owner: str) -> None:
        """Release a record whose caller is not there any more to hear of a failure."""
        try:
            await self._drive(protocol.release(location, owner))
        except IdempotencyError:
            self.report(ReleaseFailed(location.key))

    async def _drive(self, procedure: Procedure[T]) -> T:
        """Execute a procedure's operations, one after the other."""
        try:
            operation = next(procedure)
            while True:
                operation = procedure.send(await self._backend.execute(operation))
        except StopIteration as outcome:
            return outcome.value  # type: ignore[no-any-return] # StopIteration is not generic

    def _opened(self, record: Record, *, tolerant: bool = False) -> Record:
        """Decode the result of a record that is handed out."""
        if record.status is not Status.COMPLETED:
            return record
        try:
            return replace(record, result=self.decoded(record, Any))
        except ResultUnavailableError:
            if tolerant:
                return record
            raise

    def __repr__(self) -> str:
        return f"<AsyncIdempotencyStore {self._table.name!r} on {self._backend!r}>"


def _event(decision: Decision) -> Event:
    match decision:
        case Claimed(lease):
            return CallClaimed(lease.key, lease.fencing_token)
        case Replay(record):
            return CallReplayed(record.key)
        case InProgress(record, retry_after):
            return CallRefused(record.key, retry_after)
        case Mismatch(record):
            return CallMismatched(record.key)
