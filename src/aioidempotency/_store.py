"""The store: an application makes one. The store holds settings and parts, and no state of a single call."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, final

import anyio

from aioidempotency import _results
from aioidempotency._call import Call, CallOptions, Execution
from aioidempotency._concurrency import concurrently, running_loop
from aioidempotency._core import model, protocol
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Replay
from aioidempotency._core.model import AttributeNames, Lease, Record
from aioidempotency._effects.relay import OnPoison
from aioidempotency._effects.store import Effects
from aioidempotency._effects.transaction import OutboxEvent, Writes
from aioidempotency._keys import check_namespace, digest
from aioidempotency._namespaces import Functions, namespace_of
from aioidempotency._options import (
    AUTO,
    DISABLED,
    Auto,
    Duration,
    OnInProgress,
    Settings,
    check_function,
    check_kind,
    check_methods,
    check_table_name,
    disabled_by_environment,
    flag,
    labelled,
    not_disabled,
    one_of,
    seconds,
    time_limit,
    whole_number,
)
from aioidempotency._parts import Override, Parts, PartsInUse, PartsOptions, verify_layout
from aioidempotency._result_types import ResultType, check_codec
from aioidempotency._signatures import check_awaitable, return_type
from aioidempotency.backends import Backend, CreatesTables
from aioidempotency.backends.dynamodb import Choice, Config, DynamoDBClient, Session
from aioidempotency.backends.dynamodb.arguments import GroupCommit
from aioidempotency.backends.dynamodb.checks import check_table_name as check_dynamodb_name
from aioidempotency.backends.dynamodb.checks import is_dynamodb
from aioidempotency.backends.dynamodb.transport import DEFAULT
from aioidempotency.backends.memory import MemoryBackend
from aioidempotency.codecs import Codec, JsonCodec
from aioidempotency.events import Hook, KeyMissing, StoreDisabled, TransportFellBack, TtlUnavailable, decided, report
from aioidempotency.exceptions import ConfigurationError, InProgressError
from aioidempotency.partitioning import CompositeKey, KeySchema, SimpleKey, Terms

P = ParamSpec("P")
T = TypeVar("T")


@final
class AsyncIdempotencyStore:
    """Keeps a record of each executed call and its result in one DynamoDB table.

    An application makes one store and shares the store between tasks:

    ```python
    from aioidempotency import AsyncIdempotencyStore

    async with AsyncIdempotencyStore("idempotency", retention=24 * 3600) as store:
        await store.create_table()
        async with store.execute("invoice-42") as execution:
            if not execution.replayed:
                execution.complete("sent")
    ```

    The store opens a client at the first call, unless `client=` is given. `async with store` and `aclose` close the
    store's own client, and never the caller's.

    With the environment variable `AIOIDEMPOTENCY_DISABLED` set to `1` or `true` when the store is made, all bodies run,
    duplicates included, and nothing is read or written. Tests use `override` instead.

    Args:
        table_name: The table's name or ARN.
        namespace: The first part of every key. Two stores with one namespace share records.
        layout: The table's key. `SimpleKey("id")` fits a table made for Powertools.
        attributes: The names of the table's other attributes.
        retention: Seconds for which a finished record answers duplicates.
        lease: Seconds until the key of a dead process is free again. A running call renews its lease.
        client: An aiobotocore DynamoDB client. The caller opens and closes the client.
        session: The aiobotocore session for the store's own client.
        endpoint_url: The address of an emulator or a compatible database.
        region_name: The table's AWS region.
        config: A botocore configuration, merged over the store's own.
        transport: What sends the requests: `"client"`, aiobotocore's client; `"lean"`, which signs and sends by itself,
            in less than a tenth of the processor time; or `"auto"`, the lean one where it can serve, and else the client.
        backend: Executes all operations in place of DynamoDB. The store then ignores all client arguments.
        codec: Turns results into text.
        group_commit: Sends the operations of concurrent tasks together, with `GroupCommit()`. None sends each alone.
        local_cache: The number of finished records to keep in this process, the most recently used ones. A duplicate
            of such a record sends no request. After another process deletes the record, the cached copy still answers
            until its expiration.
        read_first: Whether to read the record before the claim. Reading first pays off with many duplicates of large
            results: DynamoDB bills a refused write by the stored item's size, at up to 20 times the price of a read.
        clock_skew: The largest difference between the clocks of two machines, in seconds.
        verify_layout: Whether the first call compares the table's layout with `layout`, by one read. The store then
            also writes its longest retention into the table, because a move with `Reshard` has to wait for it.
        outbox_table: The table of emitted events, with the key `pk` and `sk`. None means the store's own table, which
            then needs a sort key.
        compress_over: The longest uncompressed result, in characters of JSON. None compresses nothing. Powertools
            cannot read a compressed result.
        on_completion_failure: The reaction to a result that could not be stored before the end of the lease. `"report"`
            answers with the result and emits an event; `"raise"` raises, with the result on the error.
        fail_open: Run calls unprotected while the store does not answer. `failed_open` counts these calls.
        label: The text in a record's `claimed_by`, for people, cut to 256 bytes. The default names the host and the
            process id, and on Lambda the function, its log stream and the request id. None writes no text.
        clock: Returns epoch seconds. Tests pass their own clock.
        on_event: Called with every event, see `aioidempotency.events`.

    Raises:
        ConfigurationError: A setting makes no sense, or contradicts another one; or `AIOIDEMPOTENCY_DISABLED` has an
            unknown value.
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
        transport: Choice = DEFAULT,
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
        check_methods(codec, "codec", "encode", "decode")
        check_function(clock, "clock")
        if on_event is not None:
            check_function(on_event, "on_event")
        one_of(on_completion_failure, "on_completion_failure", ("report", "raise"))
        terms = Terms(
            retention=seconds(retention, "retention"),
            lease=seconds(lease, "lease"),
            clock_skew=seconds(clock_skew, "clock_skew", zero=True),
        )
        settings = Settings(
            table=layout.table(table_name, attributes),
            # How far back `TimeBuckets` looks depends on the store's retention, lease and clock skew.
            layout=layout.bound(terms),
            namespace=namespace,
            terms=terms,
            read_first=flag(read_first, "read_first"),
            clock=clock,
            codec=codec,
            compress_over=None if compress_over is None else whole_number(compress_over, "compress_over"),
            fail_open=flag(fail_open, "fail_open"),
            on_completion_failure=on_completion_failure,
            label=labelled(label),
            disabled=disabled_by_environment(),
        )
        if backend is not None:
            _check_backend(backend)
        if backend is None or is_dynamodb(backend):
            check_dynamodb_name(table_name)
            if outbox_table is not None:
                check_dynamodb_name(outbox_table, "outbox_table")
        if (target := backend) is None:
            from aioidempotency.backends.dynamodb import DynamoDBBackend  # noqa: PLC0415 - loads botocore

            target = DynamoDBBackend(
                client,
                session=session,
                endpoint_url=endpoint_url,
                region_name=region_name,
                config=config,
                time_limit=time_limit(terms.lease),
                transport=transport,
                fell_back=lambda reason: report(TransportFellBack(table_name, reason), on_event),
            )
        self._parts_options = PartsOptions(
            hook=on_event,
            local_cache=whole_number(local_cache, "local_cache"),
            group_commit=group_commit,
            verify_layout=flag(verify_layout, "verify_layout"),
            outbox_table=outbox_table,
        )
        parts = self._parts_options.parts(
            settings,
            self._parts_options.grouped(target, settings, closes_inner=backend is None),
            # The store closes a group commit of its own. Closing the group commit leaves a caller's backend open.
            closes_backend=backend is None or group_commit is not None,
            promised=max(terms.retention, terms.lease + terms.clock_skew),
        )
        self._in_use = PartsInUse(parts)
        self._functions = Functions()
        # Kept by type, so that a block reads its type once, and not at each call.
        self._known_types = lru_cache(maxsize=1024)(self._read_type)
        if settings.disabled:
            report(StoreDisabled(table_name, DISABLED), on_event)

    @classmethod
    def in_memory(cls, table_name: str = "in-memory", **options: Any) -> Self:
        """Make a store with records in this process, for tests. The options are those of the class.

        ```python
        from aioidempotency import AsyncIdempotencyStore
        from aioidempotency.testing import FakeClock

        clock = FakeClock()
        store = AsyncIdempotencyStore.in_memory(retention=60, clock=clock)
        ```
        """
        return cls(table_name, backend=MemoryBackend(), **options)

    @property
    def codec(self) -> Codec:
        """The codec that turns results into text and back."""
        return self._parts.settings.codec

    @property
    def _parts(self) -> Parts:
        """The parts in use. A method that awaits reads them once: an override may begin or end meanwhile."""
        return self._in_use.parts

    @property
    def failed_open(self) -> int:
        """The number of calls that ran unprotected because of `fail_open`: the store did not answer."""
        return self._parts.records.failed_open

    async def claim(
        self,
        key: object,
        *,
        fingerprint: object = None,
        lease: Duration | None = None,
        retention: Duration | None = None,
        namespace: str = "",
    ) -> Decision:
        """Try to claim a key, and return one of four decisions. All four are expected: match them all.

        ```python
        from aioidempotency import AsyncIdempotencyStore, Claimed, InProgress, Mismatch, Replay

        store = AsyncIdempotencyStore.in_memory()
        match await store.claim("order-1", fingerprint={"amount": 10}):
            case Claimed(lease):
                await store.complete(lease, "paid")
            case Replay() as replay:
                print(replay.result)
            case InProgress() | Mismatch():
                print("refused")
        ```

        The caller renews the lease, and completes or releases the key. `execute` does all this by itself.

        Args:
            key: Text, or any key material that the decorator accepts.
            fingerprint: A value that must be the same in all calls with this key. With None, nothing is compared.
            lease: Seconds of the lease, in place of the store's setting.
            retention: Seconds for which the finished record answers, in place of the store's setting.
            namespace: A part of the record's key, between the store's namespace and the digest.

        Raises:
            MissingKeyError: The key is None or empty.
            SerializationError: The key or the fingerprint has no canonical form.
            ResultUnavailableError: An earlier call was executed, and its result cannot be read.
            StoreError: The store did not answer. DynamoDB may have written the claim all the same. The key is then
                free again after the lease.
        """
        options = self._options(lease=lease, retention=retention)
        call = options.call(
            key, fingerprint=_digest(fingerprint), namespace=namespace, result_type=self._result_type(Any)
        )
        return await self._claimed(call)

    async def _claimed(self, call: Call) -> Decision:
        records, attempt = call.parts.records, call.attempt()
        decision = records.cached(attempt.route.key, lambda: attempt) or await records.claim(attempt)
        records.report(decided(decision))
        if not isinstance(decision, Replay):
            return decision
        # The cache keeps the undecoded record. Each caller gets a result of its own, and cannot change another's.
        if records.cache is not None:
            records.cache.put(attempt.route.key, decision.record)
        return Replay(_results.opened(decision.record, self._result_type(Any)))

    async def claim_many(
        self, keys: Iterable[object], *, limit: int = 32, lease: Duration | None = None, namespace: str = ""
    ) -> list[Decision]:
        """Claim keys concurrently, `limit` at a time. The decisions come in the order of the keys.

        ```python
        from aioidempotency import AsyncIdempotencyStore, Claimed

        store = AsyncIdempotencyStore.in_memory()

        for decision in await store.claim_many(["order-1", "order-2"]):
            if isinstance(decision, Claimed):
                await store.complete(decision.lease, "paid")
        ```

        If one claim fails, `claim_many` releases the other keys and raises the error. The errors are those of `claim`.
        """
        # A cancelled claim releases its own key. The keys of answered claims are released here.
        made: list[Lease] = []
        # All keys are claimed with the same parts, even if an override begins or ends meanwhile.
        parts = self._parts
        options = CallOptions.of(PartsInUse(parts), lease=lease)

        async def claim(key: object) -> Decision:
            decision = await self._claimed(options.call(key, namespace=namespace, result_type=self._result_type(Any)))
            if isinstance(decision, Claimed):
                made.append(decision.lease)
            return decision

        try:
            return await concurrently(claim, keys, limit=limit)
        except BaseException:
            await parts.records.give_back((lease.key, protocol.release(lease)) for lease in made)
            raise

    async def complete(self, lease: Lease, result: object) -> Record:
        """Store the result of a claimed key, for the claim's retention.

        ```python
        from aioidempotency import AsyncIdempotencyStore, Claimed

        store = AsyncIdempotencyStore.in_memory()
        decision = await store.claim("order-1")
        if isinstance(decision, Claimed):
            record = await store.complete(decision.lease, {"receipt": 7})
            print(record.result)
        ```

        In place of a result that cannot be stored, `complete` stores a tombstone. So the call does not run again before
        the record expires.

        Returns:
            The finished record.

        Raises:
            LeaseLostError: The record has another owner, or the lease has ended in a `TimeBuckets` layout. The result
                is not stored.
            StoreError: The store did not answer. The caller may repeat the call.
        """
        check_kind(lease, "lease", Lease)
        records, settings, anything = self._parts.records, self._parts.settings, self._result_type(Any)
        try:
            encoded = _results.serialize(result, lease, settings, anything, records.report)
        except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything
            encoded = _results.tombstone(error, lease, settings, records.report)
        # The result is stored, so a codec that cannot read its own text must not fail the call.
        record = model.record_of(await records.complete(lease, encoded))
        return _results.opened(record, anything, tolerant=True)

    async def renew(self, lease: Lease) -> Lease:
        """Extend a lease to its full duration from now.

        ```python
        from aioidempotency import AsyncIdempotencyStore, Claimed

        store = AsyncIdempotencyStore.in_memory()
        decision = await store.claim("report-7", lease=30)
        if isinstance(decision, Claimed):
            lease = await store.renew(decision.lease)
            await store.complete(lease, "written")
        ```

        Returns:
            The new lease. Further calls need the new lease, not the old one.

        Raises:
            LeaseLostError: The record has another owner, is finished or is gone, or the lease has ended in a
                `TimeBuckets` layout.
            StoreError: The store did not answer. The old lease is valid until its own end.
        """
        check_kind(lease, "lease", Lease)
        return await self._parts.records.renew(lease)

    async def release(self, lease: Lease) -> None:
        """Give a key back, so that the next call runs. A finished record stays.

        ```python
        from aioidempotency import AsyncIdempotencyStore, Claimed

        store = AsyncIdempotencyStore.in_memory()
        decision = await store.claim("order-1")
        if isinstance(decision, Claimed):
            await store.release(decision.lease)
        assert isinstance(await store.claim("order-1"), Claimed)
        ```

        Raises:
            LeaseLostError: The record has another owner. Nothing was deleted.
            StoreError: The store did not answer. The key is free after the lease at the latest.
        """
        check_kind(lease, "lease", Lease)
        await self._parts.records.release(lease)

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
        upgrade: Callable[[Any], object] | None = None,
    ) -> AbstractAsyncContextManager[Execution]:
        """Open a block for work that must run once for each key. A replay enters the block, too.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        store = AsyncIdempotencyStore.in_memory()

        async with store.execute("invoice-42") as execution:
            if not execution.replayed:
                execution.complete("sent")
        print(execution.result)
        ```

        On entry, the block claims the key, and renews the lease from then on. On exit, the block stores the argument of
        `execution.complete`, or None. An error in the block releases the key and passes on unchanged.

        Args:
            key: Text, or any key material that the decorator accepts.
            fingerprint: A value that must be the same in all calls with this key. With None, nothing is compared.
            lease: Seconds of the lease, in place of the store's setting.
            retention: Seconds for which the finished record answers, in place of the store's setting.
            heartbeat: Whether to renew the lease, or the seconds between renewals: a third of the lease at most.
            on_in_progress: The reaction while another owner is running the key: `"raise"` raises `InProgressError`, and
                `Wait(seconds)` waits for the result.
            on_error: Whether an error in the block releases the key, or holds the key until the end of the lease.
            store_errors: Classes of errors to store like results. A replay raises the stored error again.
            read_first: Whether to read before claiming, in place of the store's setting.
            namespace: A part of the record's key, between the store's namespace and the digest.
            result_type: The type of the result. A type that cannot be read back is refused.
            upgrade: Called with the JSON of a stored result that does not fit `result_type` any more. Its answer is
                read as `result_type`.

        Raises:
            ConfigurationError: A setting makes no sense, or results of `result_type` cannot be read back. Nothing was
                written.
            MissingKeyError: The key is None or empty.
            InProgressError: Another owner is running the key.
            MismatchError: The key was used with another fingerprint.
            ResultUnavailableError: An earlier call was executed, and its result cannot be read.
            LeaseLostError: On exit: the lease was lost, or was not renewed in time. The block was cancelled, or its
                result was not stored.
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
            upgrade=upgrade,
        )
        try:
            expected = self._known_types(result_type)
        except TypeError as error:
            raise _unusable(result_type, error) from error
        return options.call(key, fingerprint=_digest(fingerprint), namespace=namespace, result_type=expected)

    def _options(self, **given: Any) -> CallOptions:
        """Validate the options of calls."""
        return CallOptions.of(self._in_use, **given)

    def _result_type(self, annotation: object, function: str = "") -> ResultType:
        """Find the type of the results of a function, or of all blocks."""
        try:
            return self._known_types(annotation, function)
        except TypeError as error:
            raise _unusable(annotation, error) from error

    def _read_type(self, result_type: object, _function: str = "") -> ResultType:
        """Read the type of results. `_function` keeps the types of functions apart, as each counts its own results."""
        check_codec(self.codec)
        return ResultType(result_type, self.codec)

    async def run(self, key: object, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function once for each key, and return the result or its replay.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        async def charge(amount: int) -> str:
            return f"paid {amount}"

        store = AsyncIdempotencyStore.in_memory()
        print(await store.run("order-1", charge, 10))
        ```

        Two functions never share a key, because the namespace is `namespace_of(function)`. A replay has the type of the
        function's return annotation.

        Raises:
            ConfigurationError: The function is no coroutine function, or its return annotation cannot be read back.
            IdempotencyError: The errors of `execute`. The function's own errors pass on unchanged.
        """
        check_awaitable(function, "run(key, function, *args)")
        name = namespace_of(function)
        block = self._options().call(key, namespace=name, result_type=self._result_type(return_type(function), name))
        async with block as execution:
            if not execution.replayed:
                execution.complete(await function(*args, **kwargs))
        return execution.result  # type: ignore[return-value] # read back as the function's return type

    async def get(self, key: object, *, namespace: str = "") -> Record | None:
        """Read the record of a key, strongly consistent. Return None without a record, or if the record has expired.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        store = AsyncIdempotencyStore.in_memory()
        await store.claim("order-1")
        record = await store.get("order-1")
        print(record.status if record else "unknown")
        ```

        Args:
            key: Text, or any key material that the decorator accepts.
            namespace: The namespace of the call. `namespace_of` names the namespace of a function.

        Raises:
            MissingKeyError: The key is None or empty.
            StoreError: The store did not answer.
        """
        parts = self._parts
        record = await parts.records.read(parts.settings.route(key, namespace))
        # The status is of use without the result, so an unreadable result does not raise.
        return None if record is None else _results.opened(record, self._result_type(Any), tolerant=True)

    async def get_many(self, keys: Iterable[object], *, limit: int = 32, namespace: str = "") -> list[Record | None]:
        """Read records concurrently, `limit` at a time. The answers come in the order of the keys.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        store = AsyncIdempotencyStore.in_memory()
        await store.claim("order-1")
        for record in await store.get_many(["order-1", "order-2"]):
            print(record and record.status)
        ```

        The errors are those of `get`.
        """

        async def get(key: object) -> Record | None:
            return await self.get(key, namespace=namespace)

        return await concurrently(get, keys, limit=limit)

    async def forget(self, key: object, *, namespace: str = "", running: bool = False) -> bool:
        """Free a key, so that the next call runs.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        store = AsyncIdempotencyStore.in_memory()

        async with store.execute("invoice-42") as execution:
            execution.complete("sent to the wrong address")
        assert await store.forget("invoice-42")
        assert await store.get("invoice-42") is None
        ```

        `forget` deletes a finished record, with its result, error or tombstone. `forget` also deletes the record of a
        lapsed lease. Another process with the result in its `local_cache` goes on answering from the cache.

        With `running=True`, `forget` shuts out a running owner. The owner's completion, renewal and release are refused
        with `LeaseLostError`, for as long as the record would have lived. The next refused renewal cancels the body,
        also in this process. A body without a heartbeat runs to its end. Only the present owner is shut out. Later
        owners are not.
        Calls of Powertools cannot be shut out, because Powertools stores results without a condition.

        Args:
            key: Text, or any key material that the decorator accepts.
            namespace: A part of the record's key, between the store's namespace and the digest. For a decorated
                function, and for `run`, `namespace_of(function)`.
            running: Whether a running owner may be shut out.

        Returns:
            Whether there was a record to free.

        Raises:
            MissingKeyError: The key is None or empty.
            InProgressError: The key is running and `running` is False, or the record changed at every attempt.
            StoreError: The store did not answer. Call again.
        """
        call = self._options().call(key, namespace=namespace, result_type=self._result_type(Any))
        parts, attempt = call.parts, call.attempt()
        outcome = await parts.records.forget(attempt, running=running)
        if isinstance(outcome, InProgress):
            raise InProgressError(outcome.record, outcome.retry_after)
        if outcome.fenced:
            # The next call in this loop has to look at the table, not at the call that was shut out.
            parts.running[asyncio.get_running_loop()].in_flight.pop(attempt.route.key, None)
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

        ```python
        from aioidempotency import AsyncIdempotencyStore

        async with AsyncIdempotencyStore("idempotency") as store:
            await store.create_table()
            order = {"TableName": "shop", "Item": {"pk": "order-1", "total": 10}}
            await store.commit_once("order-1", "accepted", [{"Put": order}])
        ```

        Use `commit_once` in a handler that knows its writes beforehand. There is no lease, and no body runs. A duplicate
        writes nothing and gets the stored result. After a failure or a cancellation, call again with the same key: the
        call applies the writes, or gets the result of the first call.

        Args:
            key: Text, or any key material that the decorator accepts.
            result: The answer for duplicates.
            writes: Actions in DynamoDB's request form, `[{"Put": {...}}, ...]`, or a function that fills a
                `Transaction`.
            fingerprint: A value that must be the same in all calls with this key. With None, nothing is compared.
            retention: Seconds for which the record answers, in place of the store's setting.
            namespace: A part of the record's key, between the store's namespace and the digest.
            result_type: The type of a stored result. A type that cannot be read back is refused.

        Returns:
            The given result, or the stored one.

        Raises:
            TransactionError: The writes were refused, by DynamoDB or before the request. Nothing is stored.
            ConfigurationError: The locations of keys depend on time, as with `TimeBuckets`, or results of `result_type`
                cannot be read back.
            InProgressError: A running claim holds the key.
            MismatchError: The key was used with another fingerprint.
            ResultUnavailableError: An earlier call was executed, and its result cannot be read.
            SerializationError: The result or a value cannot be stored.
            StoreError: The store did not answer. Call again.
        """
        expected = self._result_type(result_type)
        call = self._options(retention=retention).call(
            key, fingerprint=_digest(fingerprint), namespace=namespace, result_type=expected
        )
        effects = _effects(call.parts, "commit_once")
        return await effects.commit_once(call.attempt(), result, writes, result_type=expected)

    async def get_or_create_id(
        self,
        key: object,
        factory: Callable[[], str | Awaitable[str]] | None = None,
        *,
        expires_after: Duration | None = None,
        namespace: str = "",
    ) -> str:
        """Return one permanent id for a key: the id of the first call.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        store = AsyncIdempotencyStore.in_memory()

        first = await store.get_or_create_id("client-order-1")
        assert await store.get_or_create_id("client-order-1") == first
        ```

        Each call costs one conditional write, refused or not. Ids have no lease. An id's location does not depend on
        the layout, so a `Reshard` leaves ids in place.

        Args:
            key: Text, or any key material that the decorator accepts: a client's own id, for example.
            factory: Returns a new id, a text. Each call makes a new id, and drops the new id if the key already has an
                id. Without a factory, ids are UUIDs of version 7.
            expires_after: Seconds until the key loses its id. The next call then makes a new id. None keeps ids
                for ever.
            namespace: A part of the record's key, between the store's namespace and the digest.

        Raises:
            MissingKeyError: The key is None or empty.
            SerializationError: The factory returned no text.
            StoreError: The store did not answer. Call again.
        """
        effects = _effects(self._parts, "get_or_create_id")
        return await effects.get_or_create_id(key, factory, expires_after=expires_after, namespace=namespace)

    async def put_if_absent(
        self, table_name: str, item: Mapping[str, object], key: str | Sequence[str] = ("pk",)
    ) -> dict[str, object]:
        """Put an item into a table of yours, unless the table has an item with that key: one conditional put.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        async with AsyncIdempotencyStore("idempotency") as store:
            item = await store.put_if_absent("shop", {"pk": "order-1", "total": 10})
            print(item["total"])
        ```

        Args:
            table_name: The table's name or ARN.
            item: Plain Python values, or typed ones in DynamoDB's request form.
            key: The names of the table's one or two key attributes.

        Returns:
            The item in the table after the call: the given item or an earlier one. Values are plain Python values, or
                typed ones if all values of `item` are typed.

        Raises:
            ConfigurationError: The item lacks a key attribute, or the table does not exist.
            SerializationError: DynamoDB cannot store a value, or the item exceeds 400 KB.
            StoreError: The store did not answer. Call again.
        """
        return await _effects(self._parts, "put_if_absent").put_if_absent(table_name, item, key)

    def outbox(
        self,
        *,
        shards: Collection[int] | None = None,
        poll: Duration | None = 1.0,
        event_type: object = Any,
        on_poison: OnPoison | None = None,
    ) -> AsyncGenerator[OutboxEvent, None]:
        """Iterate over the events that transactions emitted. Asking for the next event deletes the previous one.

        Delivery is at least once: after an interruption, the outbox hands out the current event again. Events of one
        key come in the order of their sequence numbers. If a transaction is sent after another one was answered, its
        event comes later. Several relays may run. Several relays deliver more duplicates, but the first deliveries keep
        their order.

        Each key has a fair turn, of up to 100 items. An event that cannot be published holds up the later events of
        its key alone: tell the relay with `event.failed(error)`, and let the loop go on. An error that leaves the loop
        ends the relay; the next one hands out that event after all others.

        Args:
            shards: The shards of the outbox to read, by number from 0 to 15. Several relays may divide the shards. None
                reads all 16.
            poll: Seconds between reads of an empty outbox. None ends the iteration instead.
            event_type: The type of an event's data.
            on_poison: Called after each failure with the event, its error and the number of its failures. True puts the
                event aside: the outbox never hands out the event again. May be a coroutine function. The error is None
                if an earlier relay ended during the delivery. An unreadable event has its text as data.

        Raises:
            ConfigurationError: The store has no table for events, or events of `event_type` cannot be read back.
            SerializationError: At the end, with `poll=None`: an event does not fit the type. The event stays. Other
                relays report `EventHeldBack`, and go on.
            StoreError: While iterating: the store did not answer. Start a new iteration.
        """
        effects = _effects(self._parts, "outbox")
        return effects.relay(shards=shards, poll=poll, event_type=event_type, on_poison=on_poison)

    async def create_table(self) -> None:
        """Create the table, and the outbox's table if that is another one. Return when both can be used.

        ```python
        from aioidempotency import AsyncIdempotencyStore, CompositeKey, HashBuckets

        layout = CompositeKey("pk", "sk", partitioning=HashBuckets(32))

        async with AsyncIdempotencyStore("orders", layout=layout) as store:
            await store.create_table()
        ```

        A new table is on demand, with TTL on the expiration attribute. An existing table with the same key keeps its
        settings, and gets TTL. `create_table` also writes the layout item, unless the table has one.

        Raises:
            ConfigurationError: The existing table has another key or another TTL attribute, or the backend creates no
                tables.
            LayoutMismatchError: The table has another layout.
            StoreError: The store did not answer.
        """
        parts = self._parts
        backend, table = parts.records.backend, parts.settings.table
        if not isinstance(backend, CreatesTables):
            raise ConfigurationError(f"{backend!r} makes no tables; create {table.name!r} by other means")
        box = parts.effects.box
        # With a sort key, events lie in the store's own table, under partitions of their own.
        for each in (table,) if box is None or box.table is table else (table, box.table):
            if await backend.create_table(each) is False:
                parts.records.report(TtlUnavailable(each.name))
        # Write the layout item at once: a store with another layout is then refused from its first call on.
        if parts.records.opening is not None:
            await parts.records.opening()

    async def verify_layout(self) -> None:
        """Compare the table's layout with the store's. Tables with a `SimpleKey` always agree.

        ```python
        from aioidempotency import AsyncIdempotencyStore, CompositeKey, HashBuckets

        layout = CompositeKey(partitioning=HashBuckets(32))
        store = AsyncIdempotencyStore.in_memory(layout=layout)
        await store.verify_layout()
        ```

        The first call of a store does the same, unless `verify_layout=False`. So does the first call with a longer
        retention than any before. A table without a layout item gets the store's layout. If the table is one phase
        of `Reshard` behind the store, the layout item moves on to the store's phase. If the layout item has only
        shorter retentions, the longest retention of this store is added.

        Raises:
            LayoutMismatchError: The layouts differ, so calls would run again. See `Reshard`.
            StoreError: The store did not answer.
        """
        parts = self._parts
        await verify_layout(parts.settings, parts.records)

    def override(
        self,
        *,
        backend: Backend | None = None,
        clock: Callable[[], float] | None = None,
        disabled: bool | None = None,
    ) -> AbstractContextManager[Self]:
        """Have the store work on another backend for a while, or by another clock: for tests.

        ```python
        from aioidempotency import AsyncIdempotencyStore, MemoryBackend, idempotent

        store = AsyncIdempotencyStore("orders")  # as a module of the application makes the store

        @idempotent(store, key="order_id")
        async def charge(order_id: str) -> str:
            return f"receipt for {order_id}"

        with store.override(backend=MemoryBackend()) as same:
            assert same is store
            await charge("1")  # sends nothing to DynamoDB
        ```

        The override counts for the whole process: for every decorated function, block and method of the store, in all
        tasks and threads, from the entry of the block to its end. The cache, the layout check and `failed_open` are the
        override's own. With `group_commit`, the store sends batches to a backend that takes batches.

        A call under way keeps the backend of its claim, and its lease is renewed there. A `Lease` of `claim` keeps no
        backend: `complete` and `release` go to the backend in use, so end a lease on the side where it began. An
        iteration over `outbox` keeps the backend that was in use when `outbox` was called.

        `aclose` inside the block closes nothing that the store opened outside, unless the override keeps the store's
        backend. The caller closes a given backend, after the block.

        Args:
            backend: Executes all operations inside the block. None keeps the backend.
            clock: Returns epoch seconds. None keeps the clock.
            disabled: Whether bodies run at every call, and nothing is read or written, as with the environment variable
                `AIOIDEMPOTENCY_DISABLED`. False enables a store that the variable disables. None keeps the state.

        Returns:
            A context manager over the store. Overrides nest.

        Raises:
            ConfigurationError: An argument has the wrong type.
            RuntimeError: On exit: the override was left before an override inside. The inner override stays in force.
        """
        return Override(self, self._in_use, self._parts_options, backend=backend, clock=clock, disabled=disabled)

    async def aclose(self, *, drain: Duration = 0) -> None:
        """End all renewals in the running loop, and close the store's own client there. A later call opens a new one.

        ```python
        from aioidempotency import AsyncIdempotencyStore

        store = AsyncIdempotencyStore.in_memory()
        assert await store.get("order-1") is None
        await store.aclose(drain=10)
        ```

        A call that still runs goes on without renewals, until its lease ends. If such calls open a new client, the last
        of them closes the client. `drain` lets the calls end first.

        Args:
            drain: Seconds to wait for running calls.
        """
        patience = seconds(drain, "drain", zero=True)
        loop = running_loop()
        # Calls that began in an override may outlast it. Nobody else would end their renewals.
        for parts in (self._parts, *self._in_use.left):
            running = parts.running.get(loop)
            if running is not None:
                # Set first: a call that outlives `aclose` and opens a new client then closes that client at its end.
                running.closed = True
                with anyio.move_on_after(patience):
                    await running.drain()
                await running.leases.aclose()
            await parts.close()

    def warn_of_missing_key(self, namespace: str) -> None:
        """Report a call without a key in this namespace."""
        self._parts.records.report(KeyMissing(namespace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        # Leases and calls of all loops, because a `repr` may be asked for in any thread.
        parts = self._parts
        running = parts.running.values()
        calls, leases = sum(len(each.in_flight) for each in running), sum(len(each.leases) for each in running)
        doing = f"{calls} calls under way, {leases} leases kept"
        return f"<AsyncIdempotencyStore {parts.settings.table.name!r}: {doing}, on {parts.records.backend!r}>"


def _check_backend(backend: object) -> None:
    """Require an object with `execute`. A store has one, too, of another kind."""
    check_methods(backend, "backend", "execute")
    if isinstance(backend, AsyncIdempotencyStore):
        raise ConfigurationError("backend= takes a backend, and not a store")


def _unusable(annotation: object, error: TypeError) -> ConfigurationError:
    """Refuse a type that cannot be looked up, such as one with a list among its notes."""
    return ConfigurationError(f"results of type {annotation} cannot be read back: {error}; give another result_type=")


def _digest(fingerprint: object) -> str | None:
    return None if fingerprint is None else digest(fingerprint, subject="the fingerprint")


def _effects(parts: Parts, action: str) -> Effects:
    """Find the part for an action that no disabled store can do."""
    if parts.settings.disabled:
        raise not_disabled(f"`{action}`")
    return parts.effects
