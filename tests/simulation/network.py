"""The way from the processes to the table, and what goes wrong on it.

Requests that are under way belong to no process: they arrive even when their sender is stopped or
dead. What the sender does with an answer is its own, and is held while it is stopped.
"""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import final

from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.model import Item
from aioidempotency._core.operations import (
    Check,
    ConditionFailed,
    Operation,
    Reply,
    Transact,
    TransactionFailed,
    Update,
)
from tests.simulation.calls import Call, Request
from tests.simulation.loop import now
from tests.simulation.plan import Trouble, Weather
from tests.simulation.table import WatchedTable, Write

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
        self._arrivals = itertools.count()
        self._lurking: dict[str, list[tuple[asyncio.TimerHandle, Arrival]]] = defaultdict(list)
        self._serving: set[asyncio.Task[None]] = set()

    def send(self, operation: Operation, call: Call, answer: Answer, *, cut_off: bool) -> None:
        """Put one request on its way."""
        fate = Fate("fine", 0.01, 0.01, 0.0) if self.calm else self._fate(operation, call, cut_off=cut_off)
        if fate.trouble != "fine":
            self.count(fate.trouble)
        self.trace(f"{call.name} sends {spell(operation)}{'' if fate.trouble == 'fine' else f' ({fate.trouble})'}")
        request = self._noted(call, troubled=fate.trouble != "fine")
        match fate.trouble:
            case "throttled":
                self._later(fate.there + fate.back, settle, answer, None)
            case "dropped":
                pass
            case _:
                self._carry(operation, call, fate, request, None if fate.trouble in {"late", "reply lost"} else answer)
        if fate.trouble == "copied":
            copy = self._noted(call, troubled=True)
            self._carry(operation, call, Fate("late", fate.there + fate.copy_after, 0.0, 0.0), copy, None)

    def disturb(self, write: Write) -> None:
        """Let what has lurked arrive, since the record has just gone, or is where it will not be looked for."""
        lurking = self._lurking.pop(write.key, [])
        for timer, arrival in lurking:
            if timer.when() <= now():
                continue
            if write.after is None or write.location[1] not in _partitions(arrival[0]):
                timer.cancel()
                self._later(self._transit(), self._arrive, *arrival)
            else:
                self._lurking[write.key].append((timer, arrival))

    def _fate(self, operation: Operation, call: Call, *, cut_off: bool) -> Fate:
        weather, dice = self._weather, self._dice
        trouble: Trouble = "fine"
        if cut_off:
            trouble = "dropped"
            self.count("cut off")
        elif call.script.renewals_fail and is_renewal(operation):
            trouble = dice.choice(("throttled", "dropped"))
            self.count("renewal fails")
        elif dice.random() < weather.trouble:
            trouble = dice.choice(weather.kinds)
        long = (4 * call.script.lease,)
        there = dice.choice(long if weather.lingering else (1.0, 3 * call.script.lease)) * dice.random()
        there = there if trouble == "late" else 0.0
        after = dice.choice(long if weather.lingering else (0.0, 0.05, 1.0, 3 * call.script.lease)) * dice.random()
        return Fate(trouble, round(there, 3) + self._transit(), self._transit(), round(after, 3))

    def _transit(self) -> float:
        if self._dice.random() < self._weather.slow:
            self.count("slow")
            return round(self._dice.uniform(self._weather.slow / 5, 0.5) * self._weather.limit, 3)
        return self._dice.choice((0.0, 0.005, 0.01, 0.02))

    def _noted(self, call: Call, *, troubled: bool) -> Request:
        request = Request(now(), troubled)
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
        call.arriving = request.sent
        reply = await self._table.execute(operation, call.name)
        self.under_way -= 1
        request.arrived = next(self._arrivals)
        if answer is None:
            effects = isinstance(operation, Transact) and operation.effects
            what = (
                "commit"
                if effects
                else "transact"
                if isinstance(operation, Transact)
                else spell(operation).split(" until")[0]
            )
            self.count(f"late {what}: {type(reply).__name__}")
            return
        reply = self._forgotten(reply)
        self._later(fate.back, settle, answer, None if fate.trouble == "cut after applying" else reply)

    def _forgotten(self, reply: Reply) -> Reply:
        """Leave out what a refusal found, where the weather is so."""
        brings = isinstance(reply, ConditionFailed | TransactionFailed) and any(items(reply))
        if not brings or self.calm or self._dice.random() >= self._weather.forgetful:
            return reply
        self.count(f"{'refusal' if isinstance(reply, ConditionFailed) else 'declined'} without item")
        if isinstance(reply, TransactionFailed):
            failures = tuple(None if each is None else ConditionFailed(None) for each in reply.failures)
            return TransactionFailed(failures, reply.reasons)
        return ConditionFailed(None)

    def _later(self, delay: float, callback: Callable[..., None], *arguments: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback, *arguments, context=self._nowhere)


def items(reply: Reply) -> tuple[Item | None, ...]:
    """List what a refusal found."""
    failures = reply.failures if isinstance(reply, TransactionFailed) else (reply,)
    return tuple(each.item for each in failures if isinstance(each, ConditionFailed))


def is_renewal(operation: Operation) -> bool:
    """Tell whether an operation renews a lease."""
    return isinstance(operation, Update) and "status" not in operation.changes


def spell(operation: Operation) -> str:
    """Write an operation for the trace."""
    name = type(operation).__name__.lower()
    if isinstance(operation, Update):
        name = "renewal" if is_renewal(operation) else "completion"
    if isinstance(operation, Transact):
        effects = " with effects" if operation.effects else ""
        return f"{name} of {', '.join(spell_part(each) for each in operation.writes)}{effects}"
    return spell_part(operation, name)


def spell_part(operation: Operation | Check, name: str = "") -> str:
    """Write one write for the trace, with its condition."""
    name = name or type(operation).__name__.lower()
    condition = getattr(operation, "condition", None)
    held = f" until {condition.until}" if isinstance(condition, HeldBy) and condition.until else ""
    return name if condition is None else f"{name} if {type(condition).__name__}{held}"


def _partitions(operation: Operation) -> set[str]:
    """Name what an operation looks at."""
    writes = operation.writes if isinstance(operation, Transact) else (operation,)
    return {each.location.partition for each in writes}


def settle(answer: Answer, reply: Reply | None) -> None:
    if not answer.done():
        answer.set_result(reply)
