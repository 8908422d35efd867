"""A backend that answers wrongly: the error names the backend, and shows no data."""

from collections.abc import Callable
from typing import Any, Final, final

import pytest

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, IdempotencyError, MemoryBackend, StoreError, Wait
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Delete,
    Found,
    FoundAll,
    Get,
    Operation,
    Put,
    Update,
)
from aioidempotency.events import CompletionFailed, Event, ReleaseFailed

CANARY: Final = "canary-5f1c"


@final
class Wrongly:
    """A backend in memory that answers some operations with whatever it is told to."""

    def __init__(self, kind: type, answer: Callable[[], Any]) -> None:
        self.armed = True
        self._inner = MemoryBackend()
        self._kind, self._answer = kind, answer

    async def execute(self, operation: Operation) -> Any:
        """Execute an operation, and answer wrongly."""
        reply = await self._inner.execute(operation)
        return self._answer() if self.armed and isinstance(operation, self._kind) else reply


def _raise() -> Any:
    raise LookupError(CANARY)


NO_REPLIES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a dictionary": lambda: {"Item": {"data": {"S": CANARY}}},
    "a read's reply": lambda: Found({"data": {"S": CANARY}}),
    "a list of replies": lambda: FoundAll((None,)),
    "an item that is none": lambda: ConditionFailed({"id": CANARY}),  # type: ignore[dict-item]
}


@pytest.fixture(params=NO_REPLIES)
def answer(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Each answer that is no reply to a write."""
    found: Callable[[], Any] = NO_REPLIES[request.param]
    return found


def told(error: BaseException) -> str:
    """Read all that an error and its causes say."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return " ".join(f"{each} {each!r}" for each in chain if isinstance(each, IdempotencyError))


async def test_a_claim_that_is_answered_wrongly_is_refused(answer: Callable[[], Any]) -> None:
    """The body does not run on what is no answer; nor with `fail_open`: the settings are wrong, nothing is down."""
    store = AsyncIdempotencyStore("orders", backend=Wrongly(Put, answer), fail_open=True)
    with pytest.raises(ConfigurationError, match="the backend Wrongly answered Put with") as caught:
        async with store.execute("key"):
            pytest.fail("the body must not run")
    assert CANARY not in told(caught.value)
    assert store.failed_open == 0
    assert "0 calls under way" in repr(store)


async def test_a_completion_that_is_answered_wrongly_keeps_the_result(answer: Callable[[], Any]) -> None:
    """The body has run: its caller gets the result, and the event says that it may not be stored."""
    events: list[Event] = []
    store = AsyncIdempotencyStore("orders", backend=Wrongly(Update, answer), on_event=events.append)
    async with store.execute("key", heartbeat=False) as execution:
        execution.complete(CANARY)
    assert any(isinstance(event, CompletionFailed) for event in events)
    raising = AsyncIdempotencyStore("orders", backend=Wrongly(Update, answer), on_completion_failure="raise")
    with pytest.raises(ConfigurationError, match="the backend Wrongly answered Update with") as caught:
        async with raising.execute("key", heartbeat=False) as execution:
            execution.complete(CANARY)
    assert caught.value.result == CANARY
    assert CANARY not in told(caught.value)


async def test_a_release_that_is_answered_wrongly_does_not_hide_the_bodys_error(answer: Callable[[], Any]) -> None:
    """C11: what went wrong in the body is what its caller must hear."""
    events: list[Event] = []
    store = AsyncIdempotencyStore("orders", backend=Wrongly(Delete, answer), on_event=events.append)
    with pytest.raises(ZeroDivisionError):
        async with store.execute("key"):
            raise ZeroDivisionError
    assert any(isinstance(event, ReleaseFailed) for event in events)


@pytest.mark.parametrize("reply", [None, Applied(), ConditionFailed(None), CANARY, Found(CANARY)])  # type: ignore[arg-type]
async def test_a_read_that_is_answered_wrongly_is_refused(reply: Any) -> None:
    """Nothing may be taken for gone, or free, that was not read."""
    backend = Wrongly(Get, lambda: reply)
    store = AsyncIdempotencyStore("orders", backend=backend)
    with pytest.raises(ConfigurationError, match="the backend Wrongly answered Get with") as caught:
        await store.get("key")
    assert CANARY not in told(caught.value)
    other = AsyncIdempotencyStore("orders", backend=backend)
    await store.claim("key")
    with pytest.raises(ConfigurationError, match="answered Get"):
        async with other.execute("key", on_in_progress=Wait(1)):
            pytest.fail("the body must not run")


@pytest.mark.parametrize("kind", [Put, Get])
async def test_an_exception_of_the_backends_own_is_a_store_error(kind: type) -> None:
    """O14: it names the backend, and the exception by its type: its text may hold data. The cause is attached."""
    store = AsyncIdempotencyStore("orders", backend=Wrongly(kind, _raise))
    with pytest.raises(StoreError, match="the backend Wrongly raised LookupError") as caught:
        await (store.claim("key") if kind is Put else store.get("key"))
    assert isinstance(caught.value.__cause__, LookupError)
    assert CANARY not in told(caught.value)
