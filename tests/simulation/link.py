"""One process's end of the network, as an SDK is: it sends a request again, within a time limit."""

import asyncio
from collections.abc import Callable

from aioidempotency import StoreError
from aioidempotency._core.operations import Applied, Operation, Put, Reply, Transact, Update
from tests.simulation.calls import CALL, Call
from tests.simulation.network import Answer, Network, is_renewal, items, settle
from tests.simulation.plan import Host, Weather
from tests.simulation.table import is_of_layout, row


class Link:
    """One process's backend: it sends a request again as an SDK does, within the store's time limit."""

    def __init__(self, network: Network, host: Host, weather: Weather, stop: Callable[[float], None]) -> None:
        self.severed = False
        self._stop = stop
        self._sent = 0
        self._network = network
        self._host = host
        self._weather = weather

    @property
    def cut_off(self) -> bool:
        """Whether nothing that it sends now arrives."""
        now = asyncio.get_running_loop().time()
        return any(begins <= now < ends for begins, ends in self._host.cut_off)

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation, or raise `StoreError`."""
        call = CALL.get()
        assert call is not None
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + self._weather.limit
        for _ in range(0 if self.severed else self._weather.tries):
            reply = await self._try(operation, call, min(self._weather.patience, gives_up - loop.time()))
            if reply is not None:
                learn(call, operation, reply)
                return reply
            if loop.time() >= gives_up:
                break
        call.failures.append(loop.time())
        self._network.trace(f"{call.name} is told that the store did not answer")
        raise StoreError(type(operation).__name__, operation.location.table.name, "it did not answer")

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


def learn(call: Call, operation: Operation, reply: Reply) -> None:
    """Note until when the answer says that the call holds its lease."""
    if is_of_layout(operation):
        return
    if call.acknowledged:
        call.overdue |= call.clock(asyncio.get_running_loop().time()) > call.acknowledged
    first = operation.writes[0] if isinstance(operation, Transact) else operation
    if isinstance(first, Put):
        for item in (first.item,) if isinstance(reply, Applied) else items(reply):
            if item is not None and row(item).owner == call.owner and row(item).running:
                call.acknowledged = row(item).lease_end
    elif is_renewal(operation) and isinstance(reply, Applied):
        assert isinstance(operation, Update)
        call.acknowledged = int(str(operation.changes["in_progress_expiration"]["N"])) / 1000
