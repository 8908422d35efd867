"""The adapter in the process of the tests: contexts, time-outs, leftovers, and wrong uses."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    ConfigurationError,
    Execution,
    Wait,
    idempotent,
)
from aioidempotency._aws_lambda import adapter
from aioidempotency._concurrency import CLEANUP_LIMIT
from aioidempotency._core.operations import Delete
from aioidempotency.aws_lambda import lambda_handler, sqs_batch
from aioidempotency.backends.memory import MemoryBackend
from tests.support.gate import GateBackend
from tests.support.lambda_events import Context, event, failures, message
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


async def invoked(
    handler: Callable[..., Awaitable[Any]], seconds: float, *, margin: float = 0.5, leftover: Any = "cancel"
) -> Any:
    """Run one invocation in the running loop, as the adapter does in its own. A white-box way to virtual time."""
    context = Context(seconds)
    terms = adapter._Terms(margin, leftover)
    return await adapter._invocation(lambda: handler({"id": "1"}, context), context, "app.handler", terms)


def test_each_invocation_has_context_variables_of_its_own() -> None:
    """L2: what one sets, the next does not see; what stands around the handler, all see."""
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")

    @lambda_handler
    async def handler(event: str, context: object) -> tuple[str, str]:
        before = tenant.get("nobody")
        tenant.set(event)
        return before, trace.get("none")

    reset = trace.set("outside")
    assert [handler(name, Context()) for name in ("anna", "bert")] == [("nobody", "outside")] * 2
    trace.reset(reset)
    assert tenant.get("nobody") == "nobody"


def test_the_lease_lasts_until_the_end_of_the_invocation() -> None:
    """L4: whatever lease the store and the call have, and without renewals."""
    store = AsyncIdempotencyStore.in_memory(lease=600)

    @lambda_handler(margin=1)
    @idempotent(store, key="event", lease=300)
    async def handler(event: str, context: object) -> tuple[float, bool]:
        lease = Execution.current().lease
        assert lease is not None
        return lease.duration, "0 leases kept" in repr(store)

    duration, nothing_kept = handler("1", Context(20))
    assert 19 < duration <= 20
    assert nothing_kept


@in_virtual_time
async def test_waiting_for_another_owner_ends_with_the_handler() -> None:
    """L4: `margin` before the end, whatever patience the call has."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    assert isinstance(await store.claim("1", namespace="charges"), Claimed)

    @idempotent(store, key="event.id", namespace="charges", on_in_progress=Wait(500))
    async def handler(event: dict[str, str], context: object) -> None: ...

    with pytest.raises(TimeoutError, match="cancelled 2 s before the end"):
        await invoked(handler, 10, margin=2)
    assert asyncio.get_running_loop().time() == 8


@in_virtual_time
async def test_a_time_out_of_the_handlers_own_passes_on() -> None:
    """L4, C11: it is the user's error, and came before the adapter's."""
    mine = TimeoutError("mine")

    async def handler(event: object, context: object) -> None:
        raise mine

    with pytest.raises(TimeoutError) as raised:
        await invoked(handler, 10)
    assert raised.value is mine


@in_virtual_time
async def test_a_result_that_came_in_spite_of_the_cancellation_is_the_answer() -> None:
    """L4: the work is done, and its record complete."""

    async def handler(event: object, context: object) -> str:
        try:
            await pass_time(100)
        except asyncio.CancelledError:
            return "done"
        return "late"

    assert await invoked(handler, 10) == "done"


@in_virtual_time
async def test_a_body_that_blocks_the_loop_past_the_end_costs_no_finished_record() -> None:
    """L5, L7: the adapter's cancellation comes together with the end of the batch, and the batch answers all the same."""

    @sqs_batch(AsyncIdempotencyStore.in_memory(clock=epoch_seconds))
    async def handle(record: dict[str, str]) -> None:
        await pass_time(1)
        if record["body"] == "block":
            loop: Any = asyncio.get_running_loop()
            loop._now += 9.8
            await pass_time(1)

    batch = event(message("a", "done"), message("b", "block"))
    response = await invoked(lambda _, context: handle(batch, context), 10)
    assert failures(response) == ["b"]


@in_virtual_time
async def test_leftover_tasks_end_before_the_answer() -> None:
    """L2: their clean-up runs, with the block that one of them holds."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    ended: list[str] = []

    async def work() -> None:
        try:
            async with store.execute("work"):
                await pass_time(100)
        finally:
            await pass_time(0.5)
            ended.append("work")

    async def handler(event: object, context: object) -> asyncio.Task[None]:
        task = asyncio.create_task(work())
        await pass_time(1)
        return task

    task = await invoked(handler, 10)
    assert task.cancelled()
    assert ended == ["work"]
    assert await store.get("work") is None


@in_virtual_time
async def test_a_leftover_that_does_not_end_is_waited_for_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """L2: the runtime still has half of the margin to send the answer; a task is told once in its invocation."""

    async def stubborn() -> None:
        while True:
            try:
                await pass_time(100)
            except asyncio.CancelledError:
                if asyncio.get_running_loop().time() > 50:
                    raise

    async def handler(event: object, context: object) -> asyncio.Task[None]:
        task = asyncio.create_task(stubborn())
        await pass_time(1)
        return task

    for seconds, ends in ((4, 3.5), (40, 3.5 + 1 + CLEANUP_LIMIT)):
        task = await invoked(handler, seconds, margin=1)
        assert not task.done()
        assert asyncio.get_running_loop().time() == ends
    assert caplog.text.count("TasksLeftBehind") == 2
    await pass_time(100)
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        each.cancel()
    await pass_time(1)


@in_virtual_time
async def test_tasks_of_the_application_that_were_there_before_go_on() -> None:
    """L2: what was started outside of an invocation is no leftover of it."""
    before = asyncio.create_task(pass_time(1000))

    async def handler(event: object, context: object) -> None: ...

    await invoked(handler, 10)
    assert not before.done()
    before.cancel()


@pytest.mark.parametrize("leftover", ["cancel", "report"])
async def test_a_key_that_is_being_given_back_is_waited_for(leftover: str, caplog: pytest.LogCaptureFixture) -> None:
    """L2: a block that was closed with its generator gives its key back in the background; it is no task of the user's."""
    backend = GateBackend(MemoryBackend(), Delete, "before")
    store = AsyncIdempotencyStore("records", backend=backend)

    async def blocks() -> Any:
        async with store.execute("key"):
            yield

    async def handler(event: object, context: object) -> None:
        generator = blocks()
        await anext(generator)
        await generator.aclose()

    invocation = asyncio.ensure_future(invoked(handler, 10, leftover=leftover))
    await backend.reached.wait()
    assert not invocation.done()
    backend.open()
    await invocation
    assert await store.get("key") is None
    assert caplog.text == ""


async def test_called_inside_a_running_loop_the_adapter_names_the_async_form() -> None:
    """L3: a test, or an application that calls its handler, awaits the function below."""

    @lambda_handler
    async def handler(event: str, context: object) -> str:
        return event

    with pytest.raises(ConfigurationError, match=r"await handler\.__wrapped__\(event, context\)"):
        handler("1", Context())
    assert await handler.__wrapped__("1", Context()) == "1"  # type: ignore[attr-defined] # as the message says


def test_a_second_thread_is_told_that_a_process_handles_one_invocation() -> None:
    """L3: the loop is busy, and a second loop would be a second client."""
    began, ends = threading.Event(), threading.Event()

    @lambda_handler
    async def handler(event: str, context: object) -> str:
        if event == "first":
            began.set()
            await asyncio.to_thread(ends.wait)
        return event

    first = threading.Thread(target=handler, args=("first", Context()))
    first.start()
    began.wait()
    try:
        with pytest.raises(ConfigurationError, match="in another thread"):
            handler("second", Context())
    finally:
        ends.set()
        first.join()
    assert handler("third", Context()) == "third"


@pytest.mark.parametrize("context", [None, {}, MagicMock(), "context"])
def test_a_context_without_remaining_time_is_refused(context: object) -> None:
    """L4: with what to pass instead; a mock answers everything, and tells nothing."""
    ran: list[object] = []

    @lambda_handler
    async def handler(event: str, context: object) -> None:
        ran.append(event)

    with pytest.raises(ConfigurationError, match=r"get_remaining_time_in_millis\(\)"):
        handler("1", context)
    assert ran == []


def test_event_and_context_can_be_passed_by_name() -> None:
    """U5: under the handler's own names."""

    @lambda_handler
    async def handler(incoming: str, ctx: object) -> str:
        return incoming

    assert handler(incoming="1", ctx=Context()) == handler("1", ctx=Context()) == "1"
    assert (handler.__name__, handler.__module__) == ("handler", __name__)


def test_a_wrong_handler_is_told_what_to_write() -> None:
    """L1: a plain function, one that was adapted before, and one without the two arguments."""

    def plain(event: object, context: object) -> None: ...
    async def one(event: object) -> None: ...
    async def good(event: object, context: object) -> None: ...
    async def generator(event: object, context: object) -> Any:
        yield

    wrong: list[tuple[Any, str]] = [
        (plain, "Write `async def`, or leave lambda_handler out"),
        (lambda_handler(good), "goes above lambda_handler"),
        (generator, "async generator"),
        (one, r"async def one\(event, context\)"),
        (AsyncIdempotencyStore.in_memory(), "coroutine function"),
        ("app.handler", "coroutine function"),
    ]
    for function, expected in wrong:
        with pytest.raises(ConfigurationError, match=expected):
            lambda_handler(function)
    for options, expected in (({"margin": -1}, "margin="), ({"on_leftover": "keep"}, "on_leftover=")):
        with pytest.raises(ConfigurationError, match=expected):
            lambda_handler(**options)


def test_the_adapter_above_an_idempotent_function_is_no_coroutine_function_for_it() -> None:
    """L1: in the wrong order, the decorator refuses the adapter's plain function."""

    @lambda_handler
    async def handler(event: str, context: object) -> None: ...

    with pytest.raises(ConfigurationError, match="async def"):
        idempotent(AsyncIdempotencyStore.in_memory())(handler)  # type: ignore[arg-type]
