"""What one seed decides before its run begins: machines, clocks, calls, and the weather on the network."""

import random
from dataclasses import dataclass
from typing import Literal, final

from aioidempotency._settings import time_limit

CLOCK_SKEW = 0.2

Trouble = Literal["fine", "throttled", "dropped", "late", "reply lost", "cut after applying", "copied"]
TROUBLES: tuple[Trouble, ...] = ("throttled", "dropped", "late", "reply lost", "cut after applying", "copied")

Manner = Literal["execute", "decorated", "run", "by hand"]
MANNERS: tuple[Manner, ...] = ("execute", "decorated", "run", "by hand")

Ending = Literal["value", "unstorable", "fails", "declines"]
Span = tuple[float, float]
"""When something begins, and when it ends."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One call: who makes it, when, and what its body does."""

    name: str
    host: int
    key: str
    payload: str | None
    starts: float
    manner: Manner
    lease: float
    heartbeat: bool
    patience: float | None
    on_error: Literal["release", "hold"]
    read_first: bool
    pauses: tuple[float, ...]
    ending: Ending
    cancelled_after: float | None
    renewals_fail: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One process: how far its clock is off, and what happens to it."""

    name: str
    offset: float
    dies: float | None
    stopped: tuple[Span, ...]
    cut_off: tuple[Span, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How likely each trouble is for one request. A client gives a try up after `patience` seconds."""

    trouble: float
    kinds: tuple[Trouble, ...]
    slow: float
    forgetful: float
    tries: int
    patience: float
    limit: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Durations and instants are seconds from its start."""

    seed: int
    lease: float
    retention: float
    apart: bool
    reaped: bool
    hosts: tuple[Host, ...]
    scripts: tuple[Script, ...]
    weather: Weather

    @property
    def spread(self) -> float:
        """The largest difference between two clocks, the true one among them."""
        offsets = [0.0, *(host.offset for host in self.hosts)]
        return max(offsets) - min(offsets)


def make_plan(seed: int) -> Plan:
    """Draw a run."""
    dice = random.Random(f"{seed}/plan")
    lease = dice.choice((6.0, 10.0, 10.0, 30.0))
    apart = dice.random() < 0.3
    hosts = tuple(_host(dice, number, lease, apart=apart) for number in range(dice.randint(2, 4)))
    return Plan(
        seed=seed,
        lease=lease,
        retention=dice.choice((3600.0, 3600.0, 3600.0, 2 * lease)),
        apart=apart,
        reaped=dice.random() < 0.3,
        hosts=hosts,
        scripts=_scripts(dice, lease, len(hosts)),
        weather=_weather(dice, lease),
    )


def _host(dice: random.Random, number: int, lease: float, *, apart: bool) -> Host:
    offset = dice.uniform(-180, 180) if apart else dice.uniform(-0.45, 0.45) * CLOCK_SKEW
    return Host(
        name=f"p{number}",
        offset=round(offset, 3),
        dies=_instant(dice, 3 * lease) if dice.random() < 0.12 else None,
        stopped=_spans(dice, lease, longest=2.5, chance=0.15),
        cut_off=_spans(dice, lease, longest=1.5, chance=0.1),
    )


def _spans(dice: random.Random, lease: float, *, longest: float, chance: float) -> tuple[Span, ...]:
    if dice.random() >= chance:
        return ()
    begins = _instant(dice, 3 * lease)
    return ((begins, begins + round(dice.uniform(0.2, longest) * lease, 2)),)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Mood:
    """What the calls of one run have in common."""

    lease: float
    hosts: int
    keys: tuple[str, ...]
    bursts: tuple[float, ...]
    failing: float
    waiting: float
    longest: tuple[float, ...]


def _scripts(dice: random.Random, lease: float, hosts: int) -> tuple[Script, ...]:
    mood = _Mood(
        lease=lease,
        hosts=hosts,
        keys=("key-0", "key-1")[: dice.randint(1, 2)],
        bursts=tuple(_instant(dice, 2.5 * lease) for _ in range(3)),
        failing=dice.choice((0.05, 0.2, 0.6)),
        waiting=dice.choice((0.2, 0.5, 0.9)),
        longest=dice.choice(((0.0, 0.1, 1.0), (0.0, 0.3, lease, 3 * lease), (lease, 3 * lease))),
    )
    return tuple(_script(dice, f"c{number}", mood) for number in range(dice.randint(5, 11)))


def _script(dice: random.Random, name: str, mood: _Mood) -> Script:
    manner = dice.choices(MANNERS, (70, 10, 8, 12))[0]
    plain = manner in {"run", "by hand"}
    lease = mood.lease * (1.0 if plain else dice.choice((1.0, 1.0, 1.0, 0.5, 0.25)))
    return Script(
        name=name,
        host=dice.randrange(mood.hosts),
        key=dice.choice(mood.keys),
        payload=None if manner == "run" else dice.choices(("blue", "red", None), (84, 9, 7))[0],
        starts=round(dice.choice(mood.bursts) + dice.choice((0, 0, 0, 0.01, 0.02, 0.05, 0.3, 2.0)), 2),
        manner=manner,
        lease=lease,
        heartbeat=manner == "run" or (manner != "by hand" and dice.random() < 0.8),
        patience=round(dice.uniform(0.3, 2.5) * lease, 2) if not plain and dice.random() < mood.waiting else None,
        on_error="hold" if not plain and dice.random() < 0.12 else "release",
        read_first=not plain and dice.random() < 0.25,
        pauses=_pauses(dice, dice.choice(mood.longest)),
        ending=_ending(dice, mood, plain=plain),
        cancelled_after=round(dice.random() * dice.choice((0.05, 1.0, 2 * lease)), 3) if dice.random() < 0.15 else None,
        renewals_fail=dice.random() < 0.08,
    )


def _ending(dice: random.Random, mood: _Mood, *, plain: bool) -> Ending:
    if dice.random() < mood.failing:
        return "fails"
    return dice.choices(("value", "unstorable", "declines"), (88, 4, 0 if plain else 8))[0]


def _pauses(dice: random.Random, longest: float) -> tuple[float, ...]:
    """Draw what a body takes: nothing, or some steps."""
    steps = dice.randint(1, 8)
    return tuple(round(dice.uniform(0, longest / steps), 2) for _ in range(steps if longest else 0))


def _weather(dice: random.Random, lease: float) -> Weather:
    limit = time_limit(lease)
    slow, tries = dice.choice((0.0, 0.0, 0.0, 0.1, 0.5, 1.0)), dice.choice((1, 3))
    return Weather(
        trouble=dice.choice((0.0, 0.04, 0.1, 0.1, 0.25)),
        kinds=TROUBLES if dice.random() < 0.7 else (dice.choice(TROUBLES),),
        slow=slow,
        forgetful=dice.choice((0.0, 0.0, 0.3)),
        tries=tries,
        patience=limit * (0.3 if tries == 3 and slow < 1.0 else 1.0),
        limit=limit,
    )


def _instant(dice: random.Random, latest: float) -> float:
    return round(dice.uniform(0, latest), 2)
