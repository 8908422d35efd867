"""Draws a run: what one seed decides before it begins.

What has to do with locations is drawn from dice of its own, and so are the later stages of a run, effects, freed keys,
retentions of calls and deployments, and what `moves` adds.
"""

import random
from dataclasses import dataclass
from typing import final

from aioidempotency._options import time_limit
from tests.simulation import schemes
from tests.simulation.moves import instant, with_moves
from tests.simulation.plan import MANNERS, TROUBLES, Effect, Ending, Host, Plan, Script, Span, Stage, Weather
from tests.simulation.schemes import CLOCK_SKEW, Scheme
from tests.support.values import replace

SHORT = 0.5
"""Seconds that results answer in some runs."""


def make_plan(seed: int) -> Plan:
    """Draw a run."""
    dice, locations = random.Random(f"{seed}/plan"), random.Random(f"{seed}/places")
    effects = random.Random(f"{seed}/effects")
    lease = dice.choice((6.0, 10.0, 10.0, 30.0))
    scheme = schemes.draw(locations, lease)
    apart = dice.random() < 0.3 and scheme.window is None
    stages = _stages(dice, locations, lease, scheme, apart=apart)
    lasting = scheme.name in {"one location", "random buckets"}
    retention = _retention(dice, locations, effects, lease, lasting=lasting, apart=apart)
    plan = Plan(
        seed=seed,
        lease=lease,
        retention=retention,
        apart=apart,
        reaped=dice.random() < 0.3 or retention == SHORT,
        scheme=scheme,
        stages=stages,
        scripts=tuple(
            _with_effects(effects, script, scheme)
            for script in _scripts(dice, locations, lease, scheme, len(stages[0].hosts))
        ),
        weather=_haunted(locations, _weather(dice, lease)) if scheme.window is not None else _weather(dice, lease),
    )
    plan = _with_freeing(random.Random(f"{seed}/freeing"), plan)
    return with_moves(_with_retentions(random.Random(f"{seed}/retentions"), plan))


def _with_retentions(dice: random.Random, plan: Plan) -> Plan:
    """Let calls of every other move have longer retentions than their store, and some deployments shorter ones.

    Not with windows, which look back for one retention alone.
    """
    if len(plan.stages) == 1 or plan.scheme.window is not None or dice.random() < 0.5:
        return plan
    longest, shortest = (round(dice.uniform(*bounds) * plan.retention, 1) for bounds in ((1.2, 3.0), (0.5, 0.9)))
    scripts = (
        replace(each, retention=longest) if each.manner not in {"run", "forget"} and dice.random() < 0.3 else each
        for each in plan.scripts
    )
    stages = (replace(each, retention=shortest) if dice.random() < 0.5 else each for each in plan.stages)
    return replace(plan, scripts=tuple(scripts), stages=tuple(stages))


def _with_freeing(dice: random.Random, plan: Plan) -> Plan:
    """Let somebody free keys in every third run, some time after a call of theirs has begun."""
    if dice.random() >= 0.35:
        return plan
    return replace(plan, scripts=(*plan.scripts, *(_freeing(dice, plan, n) for n in range(dice.randint(1, 4)))))


def _freeing(dice: random.Random, plan: Plan, number: int) -> Script:
    call = dice.choice(plan.scripts)
    return replace(
        call,
        name=f"f{number}",
        host=dice.randrange(len(plan.hosts)),
        payload=None,
        starts=round(call.starts + dice.choice((0.0, 0.02, 0.5, plan.lease, 2 * plan.lease)) * dice.random(), 2),
        manner="forget",
        lease=plan.lease,
        heartbeat=False,
        patience=None,
        on_error="release",
        read_first=False,
        pauses=(),
        ending="value",
        cancelled_after=round(dice.random(), 3) if dice.random() < 0.1 else None,
        renewals_fail=False,
        effect=None,
        shuts_out=dice.random() < 0.6,
    )


def _retention(
    dice: random.Random, locations: random.Random, effects: random.Random, lease: float, *, lasting: bool, apart: bool
) -> float:
    """Draw how long results answer; in some runs where clocks agree, for less than tries of a completion may take."""
    if not lasting:
        return locations.choice((2, 2, 4)) * lease
    usual = dice.choice((3600.0, 3600.0, 3600.0, 2 * lease))
    return SHORT if effects.random() < 0.2 and not apart else usual


def _stages(
    dice: random.Random, locations: random.Random, lease: float, scheme: Scheme, *, apart: bool
) -> tuple[Stage, ...]:
    seats = range(dice.randint(2, 4))
    first = tuple(
        replace(_host(dice, number, lease, apart=apart), hesitates=_hesitation(locations, lease, scheme))
        for number in seats
    )
    later = (
        Stage(
            phase=phase,
            hosts=tuple(
                replace(
                    _host(locations, number, lease, apart=False), name=f"p{number}.{stage}", offset=first[number].offset
                )
                for number in seats
            ),
            replaced=tuple(instant(locations, 1.5 * lease) for _ in seats),
            killed=tuple(locations.random() < 0.3 for _ in seats),
        )
        for stage, phase in enumerate(scheme.phases[1:], 1)
    )
    nothing = Stage(phase=scheme.phases[0], hosts=first, replaced=(0.0,) * len(seats), killed=(False,) * len(seats))
    return (nothing, *later)


def _host(dice: random.Random, number: int, lease: float, *, apart: bool) -> Host:
    offset = dice.uniform(-180, 180) if apart else dice.uniform(-0.45, 0.45) * CLOCK_SKEW
    return Host(
        name=f"p{number}",
        offset=round(offset, 3),
        dies=instant(dice, 3 * lease) if dice.random() < 0.12 else None,
        stopped=list(_spans(dice, lease, longest=2.5, chance=0.15)),
        cut_off=_spans(dice, lease, longest=1.5, chance=0.1),
    )


def _hesitation(locations: random.Random, lease: float, scheme: Scheme) -> tuple[int, float] | None:
    """Draw whether a process is stopped between its clock and the network; where windows pass, that is often so."""
    if locations.random() >= (0.1 if scheme.window is None else 0.4):
        return None
    return locations.randint(1, 6), round(locations.uniform(0.2, 3.0) * lease, 2)


def _spans(dice: random.Random, lease: float, *, longest: float, chance: float) -> tuple[Span, ...]:
    if dice.random() >= chance:
        return ()
    begins = instant(dice, 3 * lease)
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


def _scripts(
    dice: random.Random, locations: random.Random, lease: float, scheme: Scheme, hosts: int
) -> tuple[Script, ...]:
    mood = _Mood(
        lease=lease,
        hosts=hosts,
        keys=("key-0", "key-1")[: dice.randint(1, 2)],
        bursts=tuple(instant(dice, (5.0 if scheme.name == "windows" else 2.5) * lease) for _ in range(3)),
        failing=dice.choice((0.05, 0.2, 0.6)),
        waiting=dice.choice((0.2, 0.5, 0.9)),
        longest=dice.choice(((0.0, 0.1, 1.0), (0.0, 0.3, lease, 3 * lease), (lease, 3 * lease))),
    )
    first = tuple(_script(dice, f"c{number}", mood) for number in range(dice.randint(5, 11)))
    later = (
        replace(_script(locations, f"s{stage}c{number}", mood), stage=stage)
        for stage in range(1, len(scheme.phases))
        for number in range(locations.randint(3, 6))
    )
    return (*first, *later)


def _with_effects(dice: random.Random, script: Script, scheme: Scheme) -> Script:
    """Let some calls commit effects with their results, and some do so without a claim."""
    effect: Effect = "refused" if dice.random() < 0.15 else "applied"
    if script.manner in {"execute", "decorated"}:
        return replace(script, effect=effect) if dice.random() < 0.4 else script
    if scheme.window is not None or dice.random() >= 0.4:
        return script
    return replace(script, manner="at once", effect=effect, heartbeat=False, ending="value", pauses=(), patience=None)


def _script(dice: random.Random, name: str, mood: _Mood) -> Script:
    manner = dice.choices(MANNERS, (70, 10, 8, 12))[0]
    plain = manner in {"run", "by hand"}
    lease = mood.lease * (1.0 if plain else dice.choice((1.0, 1.0, 1.0, 0.5, 0.25)))
    return Script(
        name=name,
        host=dice.randrange(mood.hosts),
        stage=0,
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


def _haunted(dice: random.Random, weather: Weather) -> Weather:
    """Let every third run with windows have many late copies."""
    if dice.random() >= 0.33:
        return weather
    return replace(weather, trouble=0.3, kinds=("copied", "copied", "late"), lingering=True)
