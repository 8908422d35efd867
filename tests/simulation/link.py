"""One process's end of the network, as an SDK is: it sends a request again, within a time limit."""

import asyncio
from collections.abc import Callable

from aioidempotency import ConfigurationError, StoreError
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Found,
    FoundAll,
    Operation,
    Put,
    Reply,
    Transact,
    Update,
)
from tests.simulation.calls import CALL, EPOCH, Call, Request
from tests.simulation.loop import now
from tests.simulation.monitor import Monitor
from tests.simulation.network import Answer, Network, is_renewal, items, settle
from tests.simulation.plan import Host, Span, Weather
from tests.simulation.table import is_of_layout, row


class Link:
    """One process's backend: it sends a request again as an SDK does, within the store's time limit."""

    def __init__(
        self, network: Network, host: Host, weather: Weather, stop: Callable[[float], None], monitor: Monitor
    ) -> None:
        self.severed = False
        self._monitor = monitor
        self._rights = monitor.rights[host.name]
        self._stop = stop
        self._sent = 0
        self._network = network
        self._host = host
        self._weather = weather

    @property
    def cut_off(self) -> bool:
        """Whether nothing that it sends now arrives."""
        time = now()
        return any(begins <= time < ends for begins, ends in self._host.cut_off)

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation, or raise `StoreError`; `ConfigurationError`, where the right is missing."""
        call = self._owner(operation)
        loop = asyncio.get_running_loop()
        asked = now()
        if isinstance(operation, Update) and self._denied(asked):
            await asyncio.sleep(0.01)
            raise self._refusal(operation, call)
        gives_up = loop.time() + self._weather.limit
        for _ in range(0 if self.severed else self._weather.tries):
            reply = await self._try(operation, call, min(self._weather.patience, gives_up - loop.time()))
            if reply is not None:
                learn(call, operation, reply, asked)
                if is_completion(operation):
                    self._rights.found(applied=isinstance(reply, Applied))
                return reply
            if loop.time() >= gives_up:
                break
        call.failures.append(now())
        self._network.trace(f"{call.name} is told that the store did not answer")
        raise StoreError(type(operation).__name__, operation.location.table.name, "it did not answer")

    def _owner(self, operation: Operation) -> Call:
        """Find the call whose operation this is: a claim may send the completion again that was refused another call."""
        call = CALL.get()
        assert call is not None
        owner, first = call.owner, operation.writes[0] if isinstance(operation, Transact) else operation
        if isinstance(first, Update) and isinstance(first.condition, HeldBy):
            owner = first.condition.owner
        elif isinstance(first, Put) and not is_of_layout(first):
            owner = row(first.item).owner
        return next((each for each in self._monitor.history.calls.values() if each.owner == owner), call)

    def _denied(self, time: float) -> bool:
        return not self.severed and any(begins <= time < ends for begins, ends in self._host.denied)

    def _refusal(self, operation: Update, call: Call) -> ConfigurationError:
        self._network.count("denied")
        self._network.trace(f"{call.name} is denied its {'renewal' if is_renewal(operation) else 'completion'}")
        call.requests.append(Request(now(), troubled=True))
        call.refusals += 1
        if not is_renewal(operation):
            self._rights.refused(call)
        error = ConfigurationError("UpdateItem was refused (AccessDeniedException)")
        error.temporary = True
        return error

    async def _try(self, operation: Operation, call: Call, patience: float) -> Reply | None:
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        await self._hesitate()
        self._network.send(operation, call, answer, cut_off=self.cut_off)
        timer = loop.call_later(patience, settle, answer, None)
        try:
            reply = await answer
        finally:
            timer.cancel()
        call.impatient = call.impatient or reply is None
        return reply

    async def _hesitate(self) -> None:
        """Let the process be stopped when it is about to send."""
        self._sent += 1
        if self._host.hesitates is not None and self._sent == self._host.hesitates[0]:
            self._network.count("hesitates")
            self._stop(self._host.hesitates[1])
            await asyncio.sleep(0)


def is_completion(operation: Operation) -> bool:
    """Tell whether an operation finishes a record."""
    return (isinstance(operation, Update) and not is_renewal(operation)) or (
        isinstance(operation, Transact) and bool(operation.effects)
    )


def learn(call: Call, operation: Operation, reply: Reply, asked: float) -> None:
    """Note until when the answer says that the call holds its lease."""
    if is_of_layout(operation):
        return
    if call.acknowledged:
        call.overdue |= call.clock(now()) > call.acknowledged
    first = operation.writes[0] if isinstance(operation, Transact) else operation
    if isinstance(first, Put):
        for item in (first.item,) if isinstance(reply, Applied) else items(reply):
            if item is not None and row(item).owner == call.owner and row(item).running:
                call.acknowledged = row(item).lease_end
                call.relied_on = _relied_on(call, row(item).lease_end, asked)
    elif isinstance(operation, Update) and is_renewal(operation):
        wanted = int(str(operation.changes["in_progress_expiration"]["N"])) / 1000
        if isinstance(reply, Applied):
            call.acknowledged = wanted
            call.relied_on = _relied_on(call, wanted, asked)
        else:
            call.renewing = wanted, asked
    if isinstance(reply, ConditionFailed | Found | FoundAll):
        _look_again(call, reply, asked)


def _look_again(call: Call, reply: ConditionFailed | Found | FoundAll, asked: float) -> None:
    """Find an own record: a claim that was not answered, or a refused renewal that ends no sooner than asked for."""
    there = reply.items if isinstance(reply, FoundAll) else (reply.item,)
    for each in (row(item) for item in there if item is not None):
        if each.owner == call.owner and each.running and call.body_began is None:
            call.relied_on = _relied_on(call, each.lease_end, asked)
        elif each.owner == call.owner and each.running and call.renewing and each.lease_end >= call.renewing[0]:
            call.relied_on = _relied_on(call, *call.renewing)


def _relied_on(call: Call, lease_end: float, asked: float) -> Span:
    """Say between which instants a lease ends, for the process that asked for it at one that is not known exactly."""
    offs = call.host.offs(call.started or 0.0, asked)
    latest = asked + call.script.lease
    return min(latest, lease_end - EPOCH - max(offs)), min(latest, lease_end - EPOCH - min(offs))
