"""Many duplicates that wait for one call: of another process, and of this one; and nobody waits without a bound."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, InProgressError, MemoryBackend, MismatchError, Wait, idempotent
from aioidempotency._core.operations import Get, Put
from aioidempotency.events import LOGGER, CallClaimed, Event
from tests.support.scripted import Down, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


def processes(lease: float = 60) -> tuple[AsyncIdempotencyStore, AsyncIdempotencyStore, ScriptedBackend]:
    """Make the stores of two processes on one table, and what the second one sends."""
    table = MemoryBackend()
    backend = ScriptedBackend(table)
    owner = AsyncIdempotencyStore("orders", backend=table, clock=epoch_seconds, lease=lease)
    return owner, AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds, lease=lease), backend


async def owning(store: AsyncIdempotencyStore, seconds: float, *, fails: bool = False, **options: Any) -> None:
    """Hold the key for a time."""
    async with store.execute("k", **options) as execution:
        await pass_time(seconds)
        if fails:
            raise ValueError("its own")
        execution.complete("theirs")


def waiting(
    store: AsyncIdempotencyStore, count: int, patience: float, bodies: list[int], **options: Any
) -> list[asyncio.Task[object]]:
    """Begin calls that wait."""

    async def call(number: int) -> object:
        async with store.execute("k", on_in_progress=Wait(patience), **options) as execution:
            if not execution.replayed:
                bodies.append(number)
                execution.complete("ours")
        return execution.result

    return [asyncio.ensure_future(call(number)) for number in range(count)]


@in_virtual_time
async def test_a_thousand_duplicates_of_another_processs_call_share_one_poll() -> None:
    """O22: a handful of reads, one refused write, and all get the result."""
    owner, store, backend = processes()
    bodies: list[int] = []
    holding = asyncio.ensure_future(owning(owner, 8))
    await pass_time(1)
    calls = waiting(store, 1000, 30, bodies)
    assert set(await asyncio.gather(*calls)) == {"theirs"}
    await holding
    assert bodies == []
    assert backend.count(Put) == 1
    assert backend.count(Get) < 20
    assert not store._parts.running[asyncio.get_running_loop()].polled


@in_virtual_time
async def test_when_the_owner_fails_one_of_a_thousand_runs_and_the_others_get_its_result() -> None:
    """O12, O22: the key is claimed once."""
    owner, store, backend = processes()
    bodies: list[int] = []
    holding = asyncio.ensure_future(owning(owner, 8, fails=True))
    await pass_time(1)
    calls = waiting(store, 1000, 30, bodies)
    assert set(await asyncio.gather(*calls)) == {"ours"}
    await asyncio.gather(holding, return_exceptions=True)
    assert len(bodies) == 1
    assert backend.count(Put) == 2


@pytest.mark.parametrize("ends", ["gives up", "is cancelled"])
def test_another_one_goes_on_reading_when_the_reader_leaves(ends: str) -> None:
    """O22: the one that reads is any of them, and may have less patience than others."""

    @in_virtual_time
    async def scene() -> None:
        owner, store, _ = processes()
        bodies: list[int] = []
        holding = asyncio.ensure_future(owning(owner, 20))
        await pass_time(1)
        (reader,) = waiting(store, 1, 3 if ends == "gives up" else 30, bodies)
        await pass_time(0.1)
        others = waiting(store, 10, 30, bodies)
        await pass_time(2)
        if ends == "is cancelled":
            reader.cancel()
        (outcome,) = await asyncio.gather(reader, return_exceptions=True)
        assert isinstance(outcome, InProgressError if ends == "gives up" else asyncio.CancelledError)
        assert set(await asyncio.gather(*others)) == {"theirs"}
        await holding

    scene()


@in_virtual_time
async def test_each_waits_as_long_as_it_has_patience() -> None:
    """O12: whoever reads for it."""
    owner, store, _ = processes()
    holding = asyncio.ensure_future(owning(owner, 20))
    await pass_time(1)
    began = asyncio.get_running_loop().time()
    ended: dict[float, float] = {}

    async def call(patience: float) -> None:
        with pytest.raises(InProgressError):
            async with store.execute("k", on_in_progress=Wait(patience)):
                pass
        ended[patience] = asyncio.get_running_loop().time() - began

    patiences = (7.0, 2.0, 5.0, 3.0)
    await asyncio.gather(*map(call, patiences))
    assert all(patience <= ended[patience] < patience + 0.5 for patience in patiences)
    await holding


@in_virtual_time
async def test_each_is_judged_by_its_own_payload() -> None:
    """O15: they share what is read, and no verdict."""
    owner, store, _ = processes()
    bodies: list[int] = []
    holding = asyncio.ensure_future(owning(owner, 5, fingerprint="a"))
    await pass_time(1)
    other = waiting(store, 3, 30, bodies, fingerprint="b")
    same = waiting(store, 3, 30, bodies, fingerprint="a")
    outcomes = await asyncio.gather(*other, *same, return_exceptions=True)
    assert [type(each) for each in outcomes] == [MismatchError] * 3 + [str] * 3
    await holding


@in_virtual_time
async def test_a_duplicate_without_patience_is_refused_beside_one_that_reads_in_vain() -> None:
    """O12, O22: what the reader saw last is older than the refusal, and must not free the key again and again."""
    owner, store, backend = processes(lease=10)
    holding = asyncio.ensure_future(owning(owner, 60))
    await pass_time(1)
    (reader,) = waiting(store, 1, 120, [])
    await pass_time(1)
    backend.rule = lambda operation: Down() if isinstance(operation, Get) else None
    await pass_time(30)
    with pytest.raises(InProgressError):
        async with store.execute("k"):
            pass
    backend.rule = lambda operation: None
    assert await reader == "theirs"
    await holding


@in_virtual_time
async def test_an_outage_while_waiting_is_waited_out() -> None:
    """O12: the last answer still counts."""
    owner, store, backend = processes()
    holding = asyncio.ensure_future(owning(owner, 8))
    await pass_time(1)
    backend.rule = lambda operation: Down() if isinstance(operation, Get) and 2 < epoch_seconds() % 10 < 5 else None
    assert set(await asyncio.gather(*waiting(store, 50, 30, []))) == {"theirs"}
    await holding


@in_virtual_time
async def test_when_the_lease_of_a_call_in_this_process_is_over_one_duplicate_takes_its_place() -> None:
    """O7, O22: its followers do not all claim."""
    table = MemoryBackend()
    backend = ScriptedBackend(table)
    store = AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds, lease=10)
    bodies: list[int] = []
    holding = asyncio.ensure_future(owning(store, 60, heartbeat=False))
    await pass_time(1)
    calls = waiting(store, 500, 50, bodies)
    assert set(await asyncio.gather(*calls)) == {"ours"}
    assert len(bodies) == 1
    assert backend.count(Put) < 10
    await asyncio.gather(holding, return_exceptions=True)


async def test_one_error_is_not_shared_by_a_thousand_callers() -> None:
    """Each has a traceback of its own; a shared one would grow with each of them."""
    store = AsyncIdempotencyStore("orders", backend=ScriptedBackend(MemoryBackend(), lambda _: Down()))

    async def call() -> int:
        try:
            async with store.execute("k", on_in_progress=Wait(1)):
                raise AssertionError
        except Exception as error:  # noqa: BLE001 - whatever it is
            frames, trace = 0, error.__traceback__
            while trace is not None:
                frames, trace = frames + 1, trace.tb_next
            return frames

    assert max(await asyncio.gather(*(call() for _ in range(1000)))) < 20


class BadFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("the filter's own")


Make = Callable[[], AsyncIdempotencyStore]


def _hook(event: Event) -> None:
    if isinstance(event, CallClaimed):
        raise RuntimeError("the hook's own")


@pytest.mark.parametrize("trouble", ["hook", "filter", "both"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_hook_or_a_filter_that_raises_leaves_no_key_behind(
    trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """O21: the call goes on as if it had not, and its duplicates get the result."""
    store = AsyncIdempotencyStore.in_memory(on_event=_hook if trouble != "filter" else None)
    reported: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)
    if trouble != "hook":
        bad = BadFilter()
        LOGGER.addFilter(bad)
        caplog.set_level(logging.DEBUG, LOGGER.name)

    @idempotent(store, on_in_progress=Wait(5))
    async def call(order: int = 1) -> str:
        return "done"

    try:
        assert await asyncio.wait_for(asyncio.gather(*(call() for _ in range(20))), 5) == ["done"] * 20
    finally:
        if trouble != "hook":
            LOGGER.removeFilter(bad)
    assert bool(reported) == (trouble != "hook")
    assert not store._parts.running[asyncio.get_running_loop()].in_flight


async def test_an_interrupt_in_a_hook_frees_the_key() -> None:
    """O21: what no handler may hold back ends the call between its claim and its body; nobody waits for it."""

    class Stop(BaseException):
        """As `KeyboardInterrupt` is."""

    raised: list[Awaitable[object]] = []

    def hook(event: Event) -> None:
        if isinstance(event, CallClaimed) and not raised:
            raised.append(asyncio.sleep(0))
            raise Stop

    store = AsyncIdempotencyStore.in_memory(on_event=hook)
    with pytest.raises(Stop):
        async with store.execute("k"):
            raise AssertionError
    await raised[0]
    async with store.execute("k", on_in_progress=Wait(0.5)) as execution:
        execution.complete("done")
    assert execution.result == "done"
