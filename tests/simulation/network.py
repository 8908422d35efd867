"""The way from the processes to the table, and what goes wrong on it.

Requests that are under way belong to no process: they arrive even when their sender is stopped or
dead. What the sender does with an answer is its own, and is held while it is stopped.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import final

from aioidempotency import StoreError
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import Applied, Operation, Put, Refused, Reply, Update
from tests.simulation.calls import CALL, Call, Request
from tests.simulation.plan import Host, Trouble, Weather
from tests.simulation.table import WatchedTable, row

Answer = asyncio.Future[Reply | None]
"""None stands for the client's own error: it was refused, cut off, or has waited long enough."""


@final
@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request: seconds to the table and back, and when a copy follows it."""

    trouble: Trouble
    there: float
    back: float
    copy_after: float


Arrival = tuple[Operation, Call, Fate, Request, Answer | None]


class Network:
    """Carries requests. `calm` ends all trouble, for the checks at the end of a run."""

    def __init__(
        self,
        table: WatchedTable,
        weather: Weather,
        dice: random.Random,
        *,
        count: Callable[[str], None],
        trace: Callable[[str], None],
    ) -> None:
        self.calm = False
        self.under_way = 0
        self.count = count
        self.trace = trace
        self._table = table
        self._weather = weather
        self._dice = dice
        self._nowhere = Context()
        self._lurking: dict[str, list[tuple[asyncio.TimerHandle, Arrival]]] = defaultdict(list)
        self._serving: set[asyncio.Task[None]] = set()

    def send(self, operation: Operation, call: Call, link: "Link", answer: Answer) -> None:
        """Put one request on its way."""
        fate = Fate("fine", 0.01, 0.01, 0.0) if self.calm else self._fate(operation, call, link)
        if fate.trouble != "fine":
            self.count(fate.trouble)
        self.trace(f"{call.name} sends {spell(operation)}{'' if fate.trouble == 'fine' else f' ({fate.trouble})'}")
        request = self._noted(call, troubled=fate.trouble != "fine")
        match fate.trouble:
            case "throttled":
                self._later(fate.there + fate.back, _answer, answer, None)
            case "dropped":
                pass
            case _:
                self._carry(operation, call, fate, request, None if fate.trouble in {"late", "reply lost"} else answer)
        if fate.trouble == "copied":
            copy = self._noted(call, troubled=True)
            self._carry(operation, call, Fate("late", fate.there + fate.copy_after, 0.0, 0.0), copy, None)

    def disturb(self, key: str) -> None:
        """Let what has lurked arrive, since the record has just gone."""
        for timer, arrival in self._lurking.pop(key, ()):
            if timer.when() > asyncio.get_running_loop().time():
                timer.cancel()
                self._later(self._transit(), self._arrive, *arrival)

    def _fate(self, operation: Operation, call: Call, link: "Link") -> Fate:
        weather, dice = self._weather, self._dice
        trouble: Trouble = "fine"
        if link.cut_off:
            trouble = "dropped"
            self.count("cut off")
        elif call.script.renewals_fail and is_renewal(operation):
            trouble = dice.choice(("throttled", "dropped"))
            self.count("renewal fails")
        elif dice.random() < weather.trouble:
            trouble = dice.choice(weather.kinds)
        there = dice.choice((1.0, 3 * call.script.lease)) * dice.random() if trouble == "late" else 0.0
        after = dice.choice((0.0, 0.05, 1.0, 3 * call.script.lease)) * dice.random()
        return Fate(trouble, round(there, 3) + self._transit(), self._transit(), round(after, 3))

    def _transit(self) -> float:
        if self._dice.random() < self._weather.slow:
            self.count("slow")
            return round(self._dice.uniform(self._weather.slow / 5, 0.5) * self._weather.limit, 3)
        return self._dice.choice((0.0, 0.005, 0.01, 0.02))

    def _noted(self, call: Call, *, troubled: bool) -> Request:
        request = Request(asyncio.get_running_loop().time(), troubled)
        call.requests.append(request)
        return request

    def _carry(self, operation: Operation, call: Call, fate: Fate, request: Request, answer: Answer | None) -> None:
        """Have a request arrive; half of those that are late lurk until the record is gone."""
        self.under_way += 1
        arrival = (operation, call, fate, request, answer)
        timer = self._later(fate.there, self._arrive, *arrival)
        if fate.trouble == "late" and self._dice.random() < 0.5:
            self.count("lurks")
            self._lurking[call.key].append((timer, arrival))

    def _arrive(self, *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._serve(*arguments), context=self._nowhere)  # type: ignore[arg-type] # of `_carry`
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(
        self, operation: Operation, call: Call, fate: Fate, request: Request, answer: Answer | None
    ) -> None:
        reply = await self._table.execute(operation, call.name)
        self.under_way -= 1
        request.arrived = asyncio.get_running_loop().time()
        if answer is None:
            self.count(f"late {spell(operation).split(' until')[0]}: {type(reply).__name__}")
            return
        if (
            isinstance(reply, Refused)
            and reply.item
            and not self.calm
            and self._dice.random() < self._weather.forgetful
        ):
            self.count("refusal without item")
            reply = Refused(None)
        self._later(fate.back, _answer, answer, None if fate.trouble == "cut after applying" else reply)

    def _later(self, delay: float, callback: Callable[..., None], *arguments: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback, *arguments, context=self._nowhere)


class Link:
    """One process's backend: it sends a request again as an SDK does, within the store's time limit."""

    def __init__(self, network: Network, host: Host, weather: Weather) -> None:
        self.severed = False
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
        self._network.send(operation, call, self, answer)
        timer = loop.call_later(patience, _answer, answer, None)
        try:
            reply = await answer
        finally:
            timer.cancel()
        call.impatient = call.impatient or reply is None
        return reply


def learn(call: Call, operation: Operation, reply: Reply) -> None:
    """Note until when the answer says that the call holds its lease."""
    if isinstance(operation, Put):
        item = operation.item if isinstance(reply, Applied) else getattr(reply, "item", None)
        if item is not None and row(item).owner == call.owner and row(item).running:
            call.acknowledged = row(item).lease_end
    elif is_renewal(operation) and isinstance(reply, Applied):
        assert isinstance(operation, Update)
        call.acknowledged = int(str(operation.changes["in_progress_expiration"]["N"])) / 1000


def is_renewal(operation: Operation) -> bool:
    """Tell whether an operation renews a lease."""
    return isinstance(operation, Update) and "status" not in operation.changes


def spell(operation: Operation) -> str:
    """Write an operation for the trace."""
    name = type(operation).__name__.lower()
    if isinstance(operation, Update):
        name = "renewal" if is_renewal(operation) else "completion"
    condition = getattr(operation, "condition", None)
    held = f" until {condition.until}" if isinstance(condition, HeldBy) and condition.until else ""
    return name if condition is None else f"{name} if {type(condition).__name__}{held}"


def _answer(answer: Answer, reply: Reply | None) -> None:
    if not answer.done():
        answer.set_result(reply)
