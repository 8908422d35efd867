"""Event batches: a handler runs once for each record, and Lambda learns exactly which records failed.

Invariants:

1. Nothing leaves a batch once its first record began: an exception would make Lambda deliver all records again, with
   those that are done.
2. A batch answers in time: its records are cancelled before the adapter would cancel the batch, and a record that does
   not end then is reported without waiting for its end.
3. A record waits for an earlier one only: for the one before it in its sequence, or for the first one with its key. So
   records never wait in a circle; and a record that waits takes no place of a running one.
"""

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, Final, Literal, Protocol, TypedDict, Unpack, final

from aioidempotency._aws_lambda.adapter import BODY_ENDS, MARGIN
from aioidempotency._aws_lambda.facts import (
    Batch,
    BatchResponse,
    ReadBatch,
    read_queue,
    read_stream,
    remaining_seconds,
)
from aioidempotency._call import CallOptions
from aioidempotency._concurrency import CLEANUP_LIMIT
from aioidempotency._keys import check_namespace, digest, is_missing
from aioidempotency._lease import deadline
from aioidempotency._namespaces import MARK, Namespace, namespace_of
from aioidempotency._options import Duration, OnInProgress, one_of, whole_number
from aioidempotency._result_types import ResultType
from aioidempotency._selection import Find, KeySource, MissingParts, finder
from aioidempotency._signatures import check_awaitable, qualified_name, receiver_name, return_type, unbound
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.events import BatchItemFailed, BatchItemPoisoned, Event
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    MismatchError,
    MissingKeyError,
    ResultUnavailableError,
    SerializationError,
)

DAY: Final = 86_400.0

KEPT_BY_QUEUES: Final = 14 * DAY
"""The longest that SQS keeps a message."""

KEPT_BY_STREAMS: Final = 7 * DAY
"""How long a record of a stream answers. Kinesis keeps records for a day unless asked, DynamoDB Streams always."""

STOPS_BEFORE: Final = 0.25
"""Seconds between the cancellation of a batch's records and that of the batch."""

UNWINDING: Final = 0.2
"""Seconds for cancelled records to give their keys back. The batch answers afterwards, whatever still runs."""

POISON: Final = (MissingKeyError, SerializationError, MismatchError, ResultUnavailableError)
"""The refusals that repeat with each delivery of a record."""

RecordHandler = Callable[..., Awaitable[object]]
"""A coroutine function of a record, or of a record and Lambda's context."""

OnPoison = Callable[[Any, Exception], bool | Awaitable[bool]]
"""Called with a record that can never succeed, and with the reason. True takes the record for delivered."""


class BatchOptions(TypedDict, total=False):
    """Options of the handlers of records that mean what they mean for `idempotent`.

    Attributes:
        fingerprint: The source of a value that must be the same in all records with one key, given like `key`.
        namespace: The part of the key that keeps functions apart. The default is `namespace_of(handler)`.
        lease: Seconds until the key of a dead process is free again. Under `lambda_handler`, the remaining time counts.
        heartbeat: Whether to renew the lease. Under `lambda_handler`, nothing is renewed.
        on_in_progress: The reaction if another process handles the record: `"raise"` fails it, `Wait(seconds)` waits.
        on_error: Whether an error of the handler releases the key, or holds the key until the end of the lease.
        store_errors: Classes of errors to store like results. Such a record fails at each delivery, without its handler.
        read_first: Whether to read before claiming.
        missing_key: Whether a record without a key is poison, `"raise"`, or runs unprotected, `"run"`.
        missing_parts: Whether to refuse a null part of a key, `"raise"`, or to allow null as a value, `"allow"`.
    """

    fingerprint: KeySource
    namespace: str | None
    lease: Duration | None
    heartbeat: bool | Duration
    on_in_progress: OnInProgress
    on_error: Literal["release", "hold"]
    store_errors: tuple[type[Exception], ...]
    read_first: bool | None
    missing_key: Literal["raise", "run"]
    missing_parts: MissingParts


class BatchHandler(Protocol):
    """A coroutine function of Lambda's event and context."""

    async def __call__(self, event: object, context: object = None) -> BatchResponse:
        """Handle all records of the event, and name those that failed."""
        ...


def sqs_batch(
    store: AsyncIdempotencyStore,
    *,
    key: KeySource = "record.messageId",
    concurrency: int = 10,
    on_poison: OnPoison | None = None,
    retention: Duration = KEPT_BY_QUEUES,
    **options: Unpack[BatchOptions],
) -> Callable[[RecordHandler], BatchHandler]:
    """Run a coroutine function once for each message of SQS, and report exactly the messages that failed.

    ```python
    from aioidempotency import AsyncIdempotencyStore
    from aioidempotency.aws_lambda import lambda_handler, sqs_batch

    store = AsyncIdempotencyStore.in_memory()

    @lambda_handler
    @sqs_batch(store, key="powertools_json(record.body).order_id")
    async def handler(record: dict) -> None:
        print("charging", record["messageId"])
    ```

    The event source mapping needs `ReportBatchItemFailures`. Without it, Lambda ignores the answer, and deletes the
    messages that failed.

    A message is delivered if the handler returns, or if an earlier delivery was handled. A message fails if the handler
    raises, if another process is handling it, or if it did not end in time. Lambda gets the message's id, and SQS
    delivers the message again. The messages of a FIFO queue run in order inside their group, and a failure fails the
    rest of the group. Messages with one key in one event run once, and share the outcome.

    The handler takes `(record)`, or `(record, context)`.

    Args:
        store: The store of the records.
        key: The source of the key: a JMESPath expression over `{"record": message}`, or a callable over the message.
        concurrency: How many messages run at once.
        on_poison: Called with a message that can never succeed, and with the reason: no key, a key that cannot be read,
            another payload than before (`MismatchError`), or a lost result (`ResultUnavailableError`). May be a
            coroutine function. True takes the message for delivered; any other answer fails the message.
        retention: Seconds for which a handled message answers duplicates. SQS keeps a message for 14 days at most.
        **options: `fingerprint`, `namespace`, `lease`, `heartbeat`, `on_in_progress`, `on_error`, `store_errors`,
            `read_first`, `missing_key` and `missing_parts`, as in `idempotent`.

    Raises:
        ConfigurationError: When decorating: the function is no coroutine function of a record, or a setting makes no
            sense. When called: the event is none of SQS.
    """
    return _decorator(
        store, read_queue, key=key, concurrency=concurrency, on_poison=on_poison, retention=retention, **options
    )


def stream_batch(
    store: AsyncIdempotencyStore,
    *,
    key: KeySource = "record.eventID",
    on_poison: OnPoison | None = None,
    retention: Duration = KEPT_BY_STREAMS,
    **options: Unpack[BatchOptions],
) -> Callable[[RecordHandler], BatchHandler]:
    """Run a coroutine function once for each record of Kinesis or a DynamoDB stream, in order, up to the first failure.

    ```python
    from aioidempotency import AsyncIdempotencyStore
    from aioidempotency.aws_lambda import lambda_handler, stream_batch

    store = AsyncIdempotencyStore.in_memory()

    @lambda_handler
    @stream_batch(store)
    async def handler(record: dict) -> None:
        print("indexing", record["eventID"])
    ```

    The event source mapping needs `ReportBatchItemFailures`. Lambda takes the first failure for a checkpoint: this record
    and all later ones come again, so no later record runs. A poisoned record stops its shard until the record expires,
    or until `on_poison` takes it for delivered.

    The handler takes `(record)`, or `(record, context)`.

    Args:
        store: The store of the records.
        key: The source of the key: a JMESPath expression over `{"record": record}`, or a callable over the record.
        on_poison: Called with a record that can never succeed, and with the reason, as in `sqs_batch`. True takes the
            record for delivered.
        retention: Seconds for which a handled record answers duplicates.
        **options: The same as in `sqs_batch`.

    Raises:
        ConfigurationError: When decorating: the function is no coroutine function of a record, or a setting makes no
            sense. When called: the event is none of a stream.
    """
    return _decorator(store, read_stream, key=key, concurrency=1, on_poison=on_poison, retention=retention, **options)


def _decorator(
    store: AsyncIdempotencyStore,
    read: ReadBatch,
    *,
    key: KeySource,
    concurrency: int,
    on_poison: OnPoison | None,
    retention: Duration,
    fingerprint: KeySource = None,
    namespace: str | None = None,
    missing_key: Literal["raise", "run"] = "raise",
    missing_parts: MissingParts = "raise",
    **options: Any,
) -> Callable[[RecordHandler], BatchHandler]:
    """Check the settings, and make the decorator."""
    one_of(missing_key, "missing_key", ("raise", "run"))
    one_of(missing_parts, "missing_parts", ("raise", "allow"))
    if whole_number(concurrency, "concurrency") < 1:
        raise ConfigurationError(f"concurrency= takes a number of records at once, 1 or more: not {concurrency}")
    if on_poison is not None and not callable(on_poison):
        raise ConfigurationError(f"on_poison= takes a callable over a record and an error: not {on_poison!r}")
    if key is None:
        raise ConfigurationError(
            "key= is None, and a whole record is no key, since parts of it change with each delivery; leave key= out, "
            "or name a member of the record"
        )
    checked = store._options(retention=retention, **options)  # noqa: SLF001 - a batch is the store's other half

    def decorate(function: RecordHandler) -> BatchHandler:
        target = _Target(
            store,
            function,
            checked,
            key=key,
            fingerprint=fingerprint,
            namespace=namespace,
            concurrency=concurrency,
            on_poison=on_poison,
            missing_key=missing_key,
            missing_parts=missing_parts,
        )

        async def batch(event: object, context: object = None) -> BatchResponse:
            found = read(event, target.name)
            body_ends = BODY_ENDS.get()
            if body_ends is not None or (left := remaining_seconds(context)) is None:
                return await _Run(target, found, context, body_ends).response()
            # Awaited without the adapter: by a test, or by a handler that does more.
            with deadline(left):
                body_ends = asyncio.get_running_loop().time() + left - MARGIN
                return await _Run(target, found, context, body_ends).response()

        # Without `__wrapped__`, which would lend the batch the signature of the record's handler.
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(batch, attribute, getattr(function, attribute, getattr(batch, attribute)))
        setattr(batch, MARK, target.namespace)
        if namespace is None:
            store._functions.add(target.namespace.text, function, batch)  # noqa: SLF001 - as the decorator does
        return batch

    return decorate


def _of_a_record(record: object) -> None:
    """Stand for the handlers of records, in whose keys the record is named `record`."""


def check_handler(function: RecordHandler) -> str:
    """Require a coroutine function of a record, and name the function.

    Raises:
        ConfigurationError: The function is no coroutine function of a record.
    """
    if not callable(function):
        raise ConfigurationError(f"a handler of records is a coroutine function: not {type(function).__name__}")
    name = qualified_name(function)
    try:
        check_awaitable(function)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{name} is not a coroutine function: write `async def`; @lambda_handler goes above the batch, not below"
        ) from error
    if receiver_name(function) is not None:
        raise ConfigurationError(
            f"{name} is a method, and Lambda calls functions: decorate a bound method, or a function"
        )
    if isinstance(getattr(function, MARK, None), Namespace):
        raise ConfigurationError(f"{name} is idempotent twice: take @idempotent away, the batch claims each record")
    if not any(_accepts(function, count) for count in (1, 2)):
        raise ConfigurationError(f"{name} takes neither (record) nor (record, context): {inspect.signature(function)}")
    return name


def _accepts(function: RecordHandler, count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


@final
class _Target:
    """One handler of records, with its settings.

    Attributes:
        name: The handler's name, for messages.
        options: The options of the handler's calls.
        namespace: The part of the key that keeps functions apart.
        find_key: Finds the key's material.
        find_payload: Finds the fingerprint's material. None without a fingerprint.
        concurrency: How many records run at once.
        on_poison: Decides whether a poisoned record counts as delivered.
        unprotected: Whether a record without a key runs.
    """

    def __init__(
        self,
        store: AsyncIdempotencyStore,
        function: RecordHandler,
        options: CallOptions,
        *,
        key: KeySource,
        fingerprint: KeySource,
        namespace: str | None,
        concurrency: int,
        on_poison: OnPoison | None,
        missing_key: Literal["raise", "run"],
        missing_parts: MissingParts,
    ) -> None:
        name = self.name = check_handler(function)
        self.options = options
        self.namespace = Namespace(namespace_of(function) if namespace is None else namespace)
        check_namespace(self.namespace.text)
        # Each record has one name, whatever the handler calls its parameter.
        self.find_key, _ = finder(key, _of_a_record, option="key", name=name, types={}, missing_parts=missing_parts)
        self.find_payload: Find | None = None
        if fingerprint is not None:
            self.find_payload, _ = finder(fingerprint, _of_a_record, option="fingerprint", name=name, types={})
        self.concurrency = concurrency
        self.on_poison = on_poison
        self.unprotected = missing_key == "run"
        self._store = store
        self._function = function
        # A second parameter with a default is the context only if it says so.
        second = list(inspect.signature(function).parameters)[1:2]
        self._takes_context = not _accepts(function, 1) or second == ["context"]
        self._result_type: list[ResultType] = []
        self._warned = False
        try:
            self.result_type()
        except ConfigurationError as error:
            # A name defined further down in the module is unknown now. The first record looks again.
            if not isinstance(error.__cause__, NameError):
                raise

    def result_type(self) -> ResultType:
        """Resolve the type of results.

        Raises:
            ConfigurationError: The annotation cannot be resolved, or results of its type cannot be read back.
        """
        if not self._result_type:
            expected = self._store._result_type(return_type(self._function), self.namespace.text)  # noqa: SLF001 - as blocks do
            self._result_type.append(expected)
        return self._result_type[0]

    def handle(self, record: object, context: object) -> Awaitable[object]:
        """Call the handler."""
        return self._function(record, context) if self._takes_context else self._function(record)

    def described(self, error: BaseException) -> str:
        """Name an error's class, and the last line of the handler's file on its way, without its message."""
        frames = traceback.extract_tb(error.__traceback__)
        code = getattr(inspect.unwrap(unbound(self._function)[0]), "__code__", None)
        own = [frame for frame in frames if code is not None and frame.filename == code.co_filename] or frames
        kind = type(error).__qualname__
        return f"{kind} at {own[-1].filename}:{own[-1].lineno}" if own else kind

    def report(self, event: Event) -> None:
        """Log an event and call the store's hook."""
        self.options.in_use.parts.records.report(event)

    def warn_once(self) -> None:
        """Report the first record without a key."""
        if not self._warned:
            self._warned = True
            self._store.warn_of_missing_key(self.namespace.text)


@final
class _Found:
    """The key and the fingerprint of a record, found before the first record runs.

    Attributes:
        material: The key's material.
        payload: The fingerprint's digest, or None.
        identity: Equal for a record and its duplicates in the event. None without a key.
        error: Why the key or the fingerprint cannot be found.
    """

    __slots__ = ("error", "identity", "material", "payload")

    def __init__(self, target: _Target, record: object) -> None:
        self.material: object = None
        self.payload: str | None = None
        self.identity: tuple[str, str | None] | None = None
        self.error: Exception | None = None
        try:
            self.material = target.find_key((record,), {})
            if target.find_payload is not None:
                self.payload = digest(target.find_payload((record,), {}), subject="the fingerprint")
            if not is_missing(self.material):
                self.identity = digest(self.material), self.payload
        except Exception as error:  # noqa: BLE001 - a callable of the user's may raise anything on a damaged record
            self.error = error


@final
class _Run:
    """One event under way.

    Args:
        target: The handler.
        batch: The records of the event.
        context: Lambda's context.
        body_ends: The loop's time at which the adapter cancels the batch. None without an end.
    """

    def __init__(self, target: _Target, batch: Batch, context: object, body_ends: float | None) -> None:
        self._target = target
        self._batch = batch
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._body_ends = inf if body_ends is None else body_ends
        self._stops_at = self._body_ends - STOPS_BEFORE
        self._stopping = False
        self._places = asyncio.Semaphore(target.concurrency)
        self._found = [_Found(target, record) for record in batch.records]
        self._delivered: list[bool] = [False] * len(batch.records)
        # Of records with one key, the first one runs, and the others wait for its end.
        self._firsts: dict[int, int] = {}
        # Events and no futures: a record that is cancelled while it waits would cancel a future for all.
        self._ended: dict[int, asyncio.Event] = {}
        # A store that is disabled runs every body.
        shared = not target.options.in_use.parts.settings.disabled
        seen: dict[tuple[str, str | None], int] = {}
        for position, found in enumerate(self._found):
            if shared and found.identity is not None:
                first = seen.setdefault(found.identity, position)
                if first != position:
                    self._firsts[position] = first
                    self._ended.setdefault(first, asyncio.Event())

    async def response(self) -> BatchResponse:
        """Run all records, and name those that failed."""
        sequences = [self._loop.create_task(self._run_sequence(sequence)) for sequence in self._batch.sequences]
        patience = None if self._stops_at == inf else max(0.0, self._stops_at - self._loop.time())
        try:
            if sequences:
                await asyncio.wait(sequences, timeout=patience)
        except asyncio.CancelledError:
            # A body that has blocked the loop until the end is no reason to deliver finished records again.
            if self._loop.time() < self._body_ends:
                await self._stop(sequences, CLEANUP_LIMIT)
                raise
        await self._stop(sequences, UNWINDING)
        return self._batch.response(self._delivered)

    async def _stop(self, sequences: list[asyncio.Task[None]], patience: float) -> None:
        """Cancel what still runs, and wait for its end."""
        self._stopping = True
        pending = [sequence for sequence in sequences if not sequence.done()]
        for sequence in pending:
            sequence.cancel()
        if pending:
            await asyncio.wait(pending, timeout=patience)

    async def _run_sequence(self, sequence: Sequence[int]) -> None:
        """Run records one after the other, up to the first failure."""
        try:
            for position in sequence:
                first = self._firsts.get(position)
                if first is not None:
                    await self._ended[first].wait()
                    delivered = self._delivered[first]
                else:
                    async with self._places:
                        if self._stopping or self._loop.time() >= self._stops_at:
                            break  # a claim would only be given back
                        delivered = await self._run(position)
                self._delivered[position] = delivered
                if position in self._ended:
                    self._ended[position].set()
                if not delivered:
                    break
        finally:
            # The rest of the sequence does not run, and duplicates of the rest fail with it.
            for position in sequence:
                if position in self._ended:
                    self._ended[position].set()

    async def _run(self, position: int) -> bool:  # noqa: PLR0911 - one for each way in which a record ends
        """Run one record. True if the record is done."""
        target, record, found = self._target, self._batch.records[position], self._found[position]
        if found.error is not None:
            return await self._poisoned(position, found.error)
        began = False
        try:
            if target.unprotected and is_missing(found.material):
                target.warn_once()
                began = True
                await target.handle(record, self._context)
                return True
            async with target.options.call(
                found.material,
                fingerprint=found.payload,
                namespace=target.namespace.text,
                result_type=target.result_type(),
            ) as execution:
                if not execution.replayed:
                    began = True
                    execution.result = await target.handle(record, self._context)
        except asyncio.CancelledError as error:
            # The batch has cancelled the record; or the body itself, which is one failure, and not the end of its sequence.
            stopped = "not finished before the end of the invocation"
            return self._failed(position, stopped if self._stopping else target.described(error))
        except POISON as error:
            if began:
                return self._failed(position, target.described(error))
            return await self._poisoned(position, error)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - nothing leaves a batch, not even the `sys.exit` of one record
            # Messages of the library hold no data. Messages of the handler may.
            own = isinstance(error, IdempotencyError) and not began
            return self._failed(position, str(error) if own else target.described(error))
        return True

    def _failed(self, position: int, reason: str) -> bool:
        self._target.report(BatchItemFailed(self._target.namespace.text, position + 1, reason))
        return False

    async def _poisoned(self, position: int, error: Exception) -> bool:
        """Ask the hook whether a poisoned record counts as delivered."""
        target, delivered = self._target, False
        reason = str(error) if isinstance(error, IdempotencyError) else target.described(error)
        if target.on_poison is not None:
            try:
                answer = target.on_poison(self._batch.records[position], error)
                # Nothing but True: the answer of a client, passed on by a hook, must not lose a record.
                delivered = (await answer if inspect.isawaitable(answer) else answer) is True
            except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException as failure:  # noqa: BLE001 - nothing leaves a batch
                reason = f"{reason}; and on_poison raised {target.described(failure)}"
        target.report(BatchItemPoisoned(target.namespace.text, position + 1, reason, delivered))
        return delivered
