"""Who may run, and for how long.

1. A body begins only after the table held a running record with its call's owner, and is told of no
   longer lease than the table granted.
2. Where the clocks agree, a body with a heartbeat has ended when another call's claim is applied.
3. Where they are minutes apart, it ends before nine tenths of its lease have passed since that claim: no
   renewal is granted after it.
4. A process that was stopped is the exception: a body may go on after it resumes until the next renewal is
   due; or for a second, if its machine slept, because no timer of its loop went on meanwhile. A body without a heartbeat may run on. Both are counted, and fenced off by the rules of the table.
   Nor does one notice sooner that its key was taken from it, and so ends before nine tenths of its lease have passed
   since then.
5. A body loses its lease only for a reason: its record went to another, or was removed, or no answer said
   for nine tenths of the lease that it is still held; or it cannot be renewed, because claims will not
   look at its location for longer.
6. No body begins while a result of its key is stored that lives, in whatever location; nor on a claim that
   nobody may rely on.
"""

from collections.abc import Iterator

from tests.simulation import process_rules
from tests.simulation.calls import Call
from tests.simulation.history import Held, History
from tests.simulation.plan import Plan
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.table import Row
from tests.simulation.table_rules import TICK, lives

SAFE_PART = 0.9


def until(plan: Plan, held: Held) -> float:
    """Epoch seconds until which claims look at the location of a record."""
    return plan.scheme.searched_until(held.location[1], plan.reach)


def out_of_sight(plan: Plan, helds: list[Held], clock: float) -> bool:
    """Whether claims do not look at the last of some records any more."""
    return any(clock >= until(plan, each) - TICK for each in helds[-1:])


def at_begin(plan: Plan, history: History, call: Call, told_end: float | None, now: float) -> Iterator[str]:
    """Judge a body that begins."""
    owned = history.owned(call)
    relied_on = [each for each in owned if not each.stray]
    if not owned:
        yield f"{call.name} runs without ever having owned its record"
    elif not relied_on:
        yield f"{call.name} runs on a late copy of its claim, beside another record"
    elif finished := next(_finished_before(plan, history, call, relied_on[-1]), None):
        yield f"{call.name} runs, and the result of {finished.author} was stored and lived when it claimed"
    elif told_end is not None and told_end < call.clock(now):
        yield f"{call.name} begins its body on a lease that is over"
    elif told_end is not None and told_end > (granted := max(each.row.lease_end for each in owned)) + TICK:
        yield f"{call.name} was told of a lease that ends {told_end - granted:.3f} s after the table's"


def at_end(plan: Plan, history: History, call: Call, ended: float) -> Iterator[str]:
    """Judge a body that has ended. What starts with "counted: " is allowed, and counted."""
    for other, back in history.away(call):
        if ended > other + TICK:
            yield _ran_on(plan, history, call, other, min(ended, back))


def _ran_on(plan: Plan, history: History, call: Call, other: float, until: float) -> str:
    """Judge a body that ran while another owned its record."""
    overrun = f"{until - other:.3f} s after another call's claim"
    if not call.script.heartbeat:
        return "counted: ran on without a heartbeat"
    if _just_resumed(call, until) or until <= process_rules.unwound(history, call) + TICK:
        return "counted: ran on when resumed"
    if call.shut_out_at is not None and until <= call.shut_out_at + SAFE_PART * call.script.lease + TICK:
        return "counted: ran on, shut out"
    if not plan.apart:
        return f"the body of {call.name} went on until {overrun}"
    if until > other + SAFE_PART * call.script.lease + TICK:
        return f"the body of {call.name} did not notice, and went on until {overrun}"
    return "counted: ran on, clocks apart"


def at_loss(plan: Plan, history: History, call: Call, now: float) -> Iterator[str]:
    """Judge a call that is told that its lease is lost."""
    if not call.script.heartbeat or not history.owned(call):
        reasons = bool(call.owner) and not history.still_held(call)
    else:
        given_up = call.acknowledged - (1 - SAFE_PART) * call.script.lease - call.interval / 10
        reasons = not history.still_held(call) or call.latest(now) >= given_up - TICK
    if not reasons and not _cannot_go_on(plan, history, call, now):
        yield f"{call.name} was told that its lease is lost, and it is not"


def _finished_before(plan: Plan, history: History, call: Call, claimed: Held) -> Iterator[Row]:
    """Find results of others that were stored and lived, in any location, when the call's claim was applied."""
    for each in history.held(call):
        there = each.since <= claimed.since < each.until and not each.stray
        if there and not each.row.running and each.row.owner != call.owner and lives(plan, each.row, claimed.since):
            yield each.row


def _cannot_go_on(plan: Plan, history: History, call: Call, now: float) -> bool:
    """Whether its location will not be looked at for longer than its lease lasts, or is not any more."""
    owned = history.owned(call)
    cut = any(each.row.lease_end + CLOCK_SKEW >= until(plan, each) - TICK for each in owned)
    return cut or lapsed(plan, history, call, now) or out_of_sight(plan, owned, call.clock(now))


def lapsed(plan: Plan, history: History, call: Call, now: float) -> bool:
    """Whether its lease is over by its own clock, or was before it was renewed: where windows pass, that ends it."""
    ends = ((each.row.lease_end, min(each.until, now)) for each in history.owned(call))
    over = call.overdue or any(call.clock(until) > end - TICK for end, until in ends)
    return plan.scheme.window is not None and over


def _just_resumed(call: Call, ended: float) -> bool:
    began = call.started or 0.0
    for begins, ends in call.host.stopped:
        slept = any(ends == woken for _, woken in call.host.asleep)
        noticed = max(call.interval, process_rules.NOTICED) if slept else call.interval
        if begins < ended <= ends + noticed + TICK and ends > began:
            return True
    return False
