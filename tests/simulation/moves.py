"""Draws what befalls machines, rights and blocks in some runs, each from dice of its own.

What seeds draw besides does not depend on these dice.
"""

import random
from collections.abc import Callable

from tests.simulation.plan import Host, Plan, Script, Span, Stage
from tests.support.values import replace

FURTHEST = 120.0
"""Seconds by which somebody sets a clock at most."""

PLAIN = {"execute", "decorated"}

Change = Callable[[int, Host], Host]


def with_moves(plan: Plan) -> Plan:
    """Add clocks that leap or machines that sleep, rights that are missing, and pairs of blocks."""
    seed = plan.seed
    plan = _with_leaps(random.Random(f"{seed}/leaps"), plan)
    plan = _with_sleep(random.Random(f"{seed}/sleep"), plan)
    plan = _with_denials(random.Random(f"{seed}/rights"), plan)
    return _with_pairs(random.Random(f"{seed}/pairs"), plan)


def _with_leaps(dice: random.Random, plan: Plan) -> Plan:
    """Let somebody set clocks, where they are minutes apart anyway: a clock belongs to a machine, not to a process."""
    if not plan.apart or dice.random() >= 0.6:
        return plan
    leaps = [_leaps(dice, plan.lease) if dice.random() < 0.6 else () for _ in plan.hosts]
    stages = tuple(_each(stage, lambda seat, host: replace(host, leaps=leaps[seat])) for stage in plan.stages)
    around = (each for seat, those in enumerate(leaps) if those for each in _around(dice, plan, seat, those[0][0]))
    return replace(plan, stages=stages, scripts=(*plan.scripts, *around))


def _around(dice: random.Random, plan: Plan, seat: int, time: float) -> tuple[Script, ...]:
    """Make calls of one key in the process whose clock is set: one whose body runs then, and some duplicates later."""
    plain = [script for script in plan.scripts if script.manner in {*PLAIN, "by hand", "at once"} and not script.stage]
    longest = next((each for each in plain if each.manner in PLAIN), None)
    if longest is None:
        return ()
    key = longest.key if dice.random() < 0.3 else f"leap-{seat}"
    pauses = tuple(round(dice.uniform(0.1, 0.5) * plan.lease, 2) for _ in range(4))
    starts = max(0.0, round(time - dice.random() * plan.lease, 2))
    first = replace(
        longest, name=f"l{seat}", host=seat, key=key, starts=starts, pauses=pauses, ending="value", cancelled_after=None
    )
    later = (
        replace(
            dice.choice(plain),
            name=f"l{seat}.{number}",
            host=seat,
            key=key,
            payload=first.payload,
            starts=round(time + dice.random() * plan.lease, 2),
        )
        for number in range(dice.randint(1, 3))
    )
    return (first, *later)


def _leaps(dice: random.Random, lease: float) -> tuple[tuple[float, float], ...]:
    drawn = ((instant(dice, 3 * lease), round(dice.uniform(-FURTHEST, FURTHEST), 3)) for _ in range(dice.randint(1, 2)))
    return tuple(sorted(drawn))


def _with_sleep(dice: random.Random, plan: Plan) -> Plan:
    """Let machines sleep in every fifth run where no clock leaps."""
    if dice.random() >= 0.2 or any(host.leaps for host in plan.hosts):
        return plan

    def sleepy(_: int, host: Host) -> Host:
        return replace(host, asleep=_spans(dice, plan.lease, 3.0)) if dice.random() < 0.6 else host

    return replace(plan, stages=(_each(plan.stages[0], sleepy), *plan.stages[1:]))


def _with_denials(dice: random.Random, plan: Plan) -> Plan:
    """Take a right from processes in every seventh run: for a while, or for good."""
    if dice.random() >= 0.15:
        return plan
    whole = dice.random() < 0.4

    def denied(_: int, host: Host) -> Host:
        if dice.random() >= 0.7:
            return host
        return replace(host, denied=((0.0, 1000.0),) if whole else _spans(dice, plan.lease, 1.5))

    return replace(plan, stages=(_each(plan.stages[0], denied), *plan.stages[1:]))


def _with_pairs(dice: random.Random, plan: Plan) -> Plan:
    """Let some calls of every fourth run hold two blocks."""
    plain = [script for script in plan.scripts if script.manner in PLAIN]
    if dice.random() >= 0.25 or not plain:
        return plan
    return replace(plan, scripts=(*plan.scripts, *(_pair(dice, plan, plain, n) for n in range(dice.randint(1, 3)))))


def _pair(dice: random.Random, plan: Plan, plain: list[Script], number: int) -> Script:
    """Make a pair of two calls, which have other keys."""
    one, two = dice.choice(plain), dice.choice(plain)
    keys = ["key-0", "key-1"] if dice.random() < 0.5 else [f"pair-{number}", f"pair-{number}'"]
    dice.shuffle(keys)
    name = f"b{number}"
    second = replace(two, name=f"{name}'", key=keys[1], manner="pair", effect=None, cancelled_after=None)
    return replace(
        one,
        name=name,
        host=dice.randrange(len(plan.hosts)),
        key=keys[0],
        manner="pair",
        effect=None,
        starts=round(one.starts + dice.choice((0.0, 0.01, 0.5)), 2),
        second=replace(second, host=0, stage=one.stage, renewals_fail=one.renewals_fail or second.renewals_fail),
    )


def _spans(dice: random.Random, lease: float, longest: float) -> tuple[Span, ...]:
    begins = instant(dice, 3 * lease)
    return ((begins, round(begins + dice.uniform(0.05, longest) * lease, 2)),)


def _each(stage: Stage, change: Change) -> Stage:
    return replace(stage, hosts=tuple(change(seat, host) for seat, host in enumerate(stage.hosts)))


def instant(dice: random.Random, latest: float) -> float:
    """Draw an instant."""
    return round(dice.uniform(0, latest), 2)
