"""The office that hands deliveries out to workers, kills workers, and does not rest before all is answered."""

import asyncio
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from signal import SIGKILL
from typing import Self, final

from tests.processes.crew import Answer, Worker
from tests.processes.deliveries import Delivery, Setup

COPIES = 3
"""How often each key is delivered, whatever comes of the first time."""

WORKERS = 4
LANES = 4
"""How many deliveries one worker handles side by side."""

LONGEST_WORK = 0.015
"""Seconds that a body works, before its effect and once more after it."""

SOME = 40
"""How many answers pass before delayed requests go on."""

APART = 60
"""How many other deliveries come between two of one key, on average: often both are under way."""

LATER = 0.2
"""Seconds before a refused delivery is handed out again, at the most."""


@final
@dataclass(frozen=True, slots=True)
class Kill:
    """Which worker is killed, and after how many answers."""

    after: int
    seat: int


@final
class Seat:
    """A worker's location: when the worker is killed, another one takes it."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._one_at_a_time = asyncio.Lock()
        self._worker: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Let the first worker take the location."""
        self._worker.set_result(await Worker.start(self._setup))

    async def handle(self, delivery: Delivery) -> Answer | None:
        """Have a delivery handled by whoever sits here; None if that worker did not live to answer."""
        worker = await asyncio.shield(self._worker)
        return await worker.deliver(delivery)

    async def replace(self) -> int:
        """Kill the worker, start the next one, and return the id of the killed process."""
        async with self._one_at_a_time:
            worker = self._worker.result()
            self._worker = asyncio.get_running_loop().create_future()
            assert await worker.end(SIGKILL) == -SIGKILL
            await self.open()
        return worker.pid

    async def close(self) -> None:
        """End whoever sits here."""
        if self._worker.done() and not self._worker.cancelled():
            await self._worker.result().end(SIGKILL)


@final
class Office:
    """Hands out every key's deliveries until each is answered with a result.

    Attributes:
        results: For each key, the run that each of its answered deliveries named.
        outcomes: How many answers there were of each kind; "nothing" is a worker's death.
        replays: How many results were not of the run that asked.
        killed: The ids of the killed processes.
    """

    def __init__(self, seats: Sequence[Seat], keys: Sequence[str], *, dice: random.Random) -> None:
        self.results: defaultdict[str, list[str]] = defaultdict(list)
        self.outcomes: Counter[str] = Counter()
        self.replays = 0
        self.killed: list[int] = []
        self._seats = seats
        self._left = COPIES * len(keys)
        self._dice = dice
        self._waiting: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._progress = asyncio.Condition()
        for number, key in enumerate(_arrivals(keys, dice)):
            self._waiting.put_nowait((number, key))

    @classmethod
    @asynccontextmanager
    async def opened(cls, setup: Setup, keys: Sequence[str], *, dice: random.Random) -> AsyncIterator[Self]:
        """An office with its workers, who are gone when the block ends."""
        async with AsyncExitStack() as resources:
            seats = [Seat(setup) for _ in range(WORKERS)]
            for seat in seats:
                resources.push_async_callback(seat.close)
            async with asyncio.TaskGroup() as opening:
                for seat in seats:
                    opening.create_task(seat.open())
            yield cls(seats, keys, dice=dice)

    @property
    def answered(self) -> int:
        """How many answers of any kind there were."""
        return self.outcomes.total()

    async def work(self, kills: Sequence[Kill], *, after_some: Callable[[], None]) -> None:
        """Hand out, kill, hand out again, until each delivery has its result.

        `after_some` is called again and again, whenever there were some more answers.
        """
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(self._kill(kills))
            endless = [tasks.create_task(self._lane(seat)) for seat in self._seats for _ in range(LANES)]
            endless.append(tasks.create_task(self._each(SOME, after_some)))
            await killing
            await self._until(lambda: self._left == 0)
            for task in endless:
                task.cancel()

    async def _kill(self, kills: Sequence[Kill]) -> None:
        async with asyncio.TaskGroup() as replacing:
            for kill in kills:
                await self._reached(kill.after)
                replacing.create_task(self._replace(self._seats[kill.seat]))

    async def _replace(self, seat: Seat) -> None:
        self.killed.append(await seat.replace())

    async def _each(self, answers: int, action: Callable[[], None]) -> None:
        while True:
            await self._reached(self.answered + answers)
            action()

    async def _lane(self, seat: Seat) -> None:
        while True:
            number, key = await self._waiting.get()
            work = self._dice.uniform(0.001, LONGEST_WORK)
            delivery = Delivery(number=number, key=key, run=uuid.uuid4().hex, work=work)
            self._take_in(delivery, await seat.handle(delivery))
            async with self._progress:
                self._progress.notify_all()

    def _take_in(self, delivery: Delivery, answer: Answer | None) -> None:
        """Note an answer; a delivery without a result is handed out again."""
        outcome = "nothing" if answer is None else answer["outcome"]
        self.outcomes[outcome] += 1
        if answer is not None and outcome == "result":
            self.results[delivery.key].append(answer["run"])
            self.replays += answer["run"] != delivery.run
            self._left -= 1
        else:
            pause = 0.0 if answer is None else min(LATER, answer.get("retry_after", 0.0))
            message = (delivery.number, delivery.key)
            asyncio.get_running_loop().call_later(pause, self._waiting.put_nowait, message)

    async def _reached(self, answers: int) -> None:
        await self._until(lambda: self.answered >= answers)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(holds)


def _arrivals(keys: Sequence[str], dice: random.Random) -> list[str]:
    """Deliver each key several times, in an order in which duplicates often meet."""
    copies = [
        (COPIES * location + dice.expovariate(1 / APART), key)
        for location, key in enumerate(keys)
        for _ in range(COPIES)
    ]
    return [key for _, key in sorted(copies)]
