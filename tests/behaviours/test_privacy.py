"""Payloads, results and raw keys are the user's: they are in no log, event, error or representation."""

import logging
import secrets
from collections.abc import AsyncIterator

import pytest

from aioidempotency import (
    Backend,
    Claimed,
    ConfigurationError,
    IdempotencyError,
    InProgress,
    InProgressError,
    LeaseLostError,
    MismatchError,
    MissingKeyError,
    Replay,
    ResultUnavailableError,
    SerializationError,
    StoreError,
    deadline,
    idempotent,
)
from aioidempotency._core.conditions import Absent
from aioidempotency._core.operations import Applied, Put
from aioidempotency.events import Event
from aioidempotency.testing import FakeClock
from tests.behaviours.conftest import Proxied
from tests.conftest import MakeStore
from tests.support.proxy import Fault

pytestmark = pytest.mark.backends("ministack", "batched")  # statements have errors of their own

KEY, PAYLOAD, RESULT, MESSAGE, ARGUMENT, LABEL = (
    f"canary-{n}" for n in ("key", "payload", "result", "message", "argument", "label")
)


class Said:
    """Everything that the library said in one test: in its log, to the hook, and in what it handed out."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.events: list[Event] = []
        self._caplog = caplog
        self._texts: list[str] = []

    def keep(self, *values: object) -> None:
        self._texts += [text for value in values for text in (repr(value), str(value))]

    def all(self) -> str:
        self.keep(*self.events)
        records = (record for record in self._caplog.records if record.name.startswith("aioidempotency"))
        return "\n".join([*self._texts, *(f"{record.getMessage()} {record.args}" for record in records)])


@pytest.fixture
async def said(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Said]:
    """What the library says in this test; afterwards, no canary is in it."""
    heard = Said(caplog)
    with caplog.at_level(logging.DEBUG):
        yield heard
    text = heard.all()
    assert text
    assert "canary" not in text, [line for line in text.splitlines() if "canary" in line]


def raised(said: Said, error: BaseException, kind: type[IdempotencyError]) -> None:
    assert type(error) is kind
    said.keep(error, error.args, vars(error))


async def test_a_call_and_its_replay(make_store: MakeStore, said: Said) -> None:
    """U3: claimed, completed, replayed, refused, mismatched: neither events nor values tell what it was about, or by whom."""
    store = make_store(on_event=said.events.append, label=LABEL)
    async with store.execute(KEY, fingerprint=PAYLOAD) as execution:
        said.keep(execution, execution.lease)
        with pytest.raises(InProgressError) as refused:
            async with store.execute(KEY, fingerprint=PAYLOAD):
                pass
        raised(said, refused.value, InProgressError)
        running = await store.claim(KEY, fingerprint=PAYLOAD)
        assert isinstance(running, InProgress)
        said.keep(running, running.record)
        execution.complete({RESULT: RESULT})
    async with store.execute(KEY, fingerprint=PAYLOAD) as execution:
        assert execution.replayed
        said.keep(execution)
    with pytest.raises(MismatchError) as mismatched:
        async with store.execute(KEY, fingerprint="another"):
            pass
    raised(said, mismatched.value, MismatchError)
    replay = await store.claim(KEY, fingerprint=PAYLOAD)
    assert isinstance(replay, Replay)
    said.keep(replay, replay.record, await store.get(KEY), store, await store.claim(KEY, fingerprint="another"))


async def test_a_key_that_is_forgotten(make_store: MakeStore, said: Said) -> None:
    """U3, C21: neither who claimed nor who freed is told, but to whoever reads the record's attributes."""
    store = make_store(on_event=said.events.append, label=LABEL)
    claimed = await store.claim(KEY, fingerprint=PAYLOAD)
    assert isinstance(claimed, Claimed)
    with pytest.raises(InProgressError) as refused:
        await store.forget(KEY)
    raised(said, refused.value, InProgressError)
    assert refused.value.record.claimed_by == LABEL
    assert await store.forget(KEY, running=True)
    left = await store.get(KEY)
    assert left is not None
    assert left.freed_by == LABEL
    with pytest.raises(LeaseLostError) as lost:
        await store.complete(claimed.lease, RESULT)
    raised(said, lost.value, LeaseLostError)
    said.keep(left, claimed, claimed.lease, store, await store.claim(KEY))


async def test_a_body_that_fails(make_store: MakeStore, said: Said) -> None:
    """U3: the body's own message passes to the caller, and stays out of the log."""
    store = make_store(on_event=said.events.append)

    @idempotent(store, key="order.id", fingerprint="order")
    async def charge(order: dict[str, str]) -> str:
        raise ValueError(MESSAGE)

    with pytest.raises(ValueError, match=MESSAGE):
        await charge({"id": KEY, "amount": PAYLOAD})
    said.keep(store, charge)


async def test_an_error_that_is_a_result(make_store: MakeStore, said: Said) -> None:
    """U3: the message of a stored error is raised again, and is in no event and no record's representation."""
    store = make_store(on_event=said.events.append)

    @idempotent(store, key="order_id", namespace="charge", store_errors=(ValueError,))
    async def charge(order_id: str) -> str:
        raise ValueError(MESSAGE)

    for _ in range(2):
        with pytest.raises(ValueError, match=MESSAGE):
            await charge(KEY)
    said.keep(await store.get(KEY, namespace="charge"))


@pytest.mark.parametrize("result", [{RESULT: object()}, RESULT + secrets.token_hex(600_000)], ids=["object", "large"])
async def test_a_result_that_cannot_be_stored(make_store: MakeStore, said: Said, result: object) -> None:
    """U3: the event of a dropped result names its type or size, and the error of its replay does not know more."""
    store = make_store(on_event=said.events.append)
    async with store.execute(KEY) as execution:
        execution.complete(result)
    with pytest.raises(ResultUnavailableError) as unavailable:
        async with store.execute(KEY):
            pass
    raised(said, unavailable.value, ResultUnavailableError)
    said.keep(await store.get(KEY), execution)


async def test_a_stored_result_of_another_type(make_store: MakeStore, said: Said) -> None:
    """U3: a result that does not fit its annotation is not quoted in the error."""
    store = make_store(on_event=said.events.append)
    async with store.execute(KEY, namespace="charge") as execution:
        execution.complete([RESULT, {RESULT: RESULT}])

    @idempotent(store, key="order_id", namespace="charge")
    async def charge(order_id: str) -> dict[str, int]:
        return {}

    with pytest.raises(ResultUnavailableError) as unavailable:
        await charge(KEY)
    raised(said, unavailable.value, ResultUnavailableError)


@pytest.mark.parametrize(
    "material",
    [{KEY: {PAYLOAD}}, [KEY.encode()], {KEY: float("nan")}, {(KEY, 1): PAYLOAD}, {KEY: lambda: PAYLOAD}],
    ids=["set", "bytes", "nan", "names", "function"],
)
async def test_key_material_that_is_refused(make_store: MakeStore, said: Said, material: object) -> None:
    """U3: the error of a key or a fingerprint without a canonical form names types alone."""
    store = make_store(on_event=said.events.append)
    with pytest.raises(SerializationError) as key:
        await store.claim(material)
    raised(said, key.value, SerializationError)
    with pytest.raises(SerializationError) as fingerprint:
        await store.claim(KEY, fingerprint=material)
    raised(said, fingerprint.value, SerializationError)


async def test_an_expression_on_arguments_that_it_does_not_fit(make_store: MakeStore, said: Said) -> None:
    """U3: neither the failing expression's error nor that of a missing key quotes an argument."""
    store = make_store(on_event=said.events.append)

    @idempotent(store, key="powertools_json(body).id", missing_key="run")
    async def parsed(body: str) -> None: ...

    @idempotent(store, key="body.nothing")
    async def missing(body: dict[str, str]) -> None: ...

    with pytest.raises(SerializationError) as failed:
        await parsed(ARGUMENT)
    raised(said, failed.value, SerializationError)
    with pytest.raises(MissingKeyError) as none:
        await missing({"id": ARGUMENT})
    raised(said, none.value, MissingKeyError)
    await parsed(f'{{"other": "{ARGUMENT}"}}')


async def test_a_lease_that_is_lost(make_store: MakeStore, said: Said) -> None:
    """U3: a stale owner's completion, renewal and release, and its failing body."""
    clock = FakeClock()
    store = make_store(clock=clock, on_event=said.events.append)
    stale = await store.claim(KEY, fingerprint=PAYLOAD)
    assert isinstance(stale, Claimed)
    clock.advance(99)
    said.keep(stale, await store.claim(KEY, fingerprint=PAYLOAD))
    for action in (store.complete(stale.lease, RESULT), store.renew(stale.lease), store.release(stale.lease)):
        with pytest.raises(LeaseLostError) as lost:
            await action
        raised(said, lost.value, LeaseLostError)
    with pytest.raises(ValueError, match=MESSAGE):
        async with store.execute([KEY], heartbeat=False):
            clock.advance(99)
            await store.claim([KEY])
            raise ValueError(MESSAGE)


@pytest.mark.parametrize("fault", [Fault.THROTTLE, Fault.CUT, Fault.DENY], ids=lambda fault: fault.name)
async def test_a_store_that_does_not_answer(proxied: Proxied, said: Said, fault: Fault) -> None:
    """U3: throttled, cut off or forbidden: the error names operation and table, and no more."""
    store = proxied.make_store(on_event=said.events.append, lease=1, clock_skew=0)
    claimed = await store.claim(KEY, fingerprint=PAYLOAD)
    assert isinstance(claimed, Claimed)
    proxied.proxy.inject(fault, times=1_000)
    expected = ConfigurationError if fault is Fault.DENY else StoreError
    for action in (store.claim(KEY), store.complete(claimed.lease, RESULT), store.release(claimed.lease)):
        with pytest.raises(expected) as silent:
            await action
        raised(said, silent.value, expected)
    said.keep(store)


async def test_a_hook_that_fails(make_store: MakeStore, said: Said) -> None:
    """U3: the log of a failing hook tells the event, which has nothing to hide."""

    def fail(event: Event) -> None:
        raise RuntimeError(type(event).__name__)

    store = make_store(on_event=fail)
    async with store.execute(KEY, fingerprint=PAYLOAD) as execution:
        execution.complete(RESULT)
    with deadline(-1):
        said.keep(await store.claim([KEY]))


async def test_an_item_that_is_no_record(make_store: MakeStore, backend: Backend, said: Said) -> None:
    """U3: a foreign item under a record's key is refused without quoting its attributes."""
    store = make_store(on_event=said.events.append)
    claimed = await store.claim(KEY)
    assert isinstance(claimed, Claimed)
    await store.release(claimed.lease)
    await put_foreign(backend, claimed)
    for action in (store.claim(KEY), store.get(KEY)):
        with pytest.raises(ConfigurationError) as foreign:
            await action
        raised(said, foreign.value, ConfigurationError)


async def put_foreign(backend: Backend, claimed: Claimed) -> None:
    """Write an item of another application under a record's key."""
    location = claimed.lease.location
    item = {**location.item, "status": {"S": RESULT}, "data": {"S": RESULT}, "expiration": {"S": PAYLOAD}}
    assert await backend.execute(Put(location, item, Absent())) == Applied()
