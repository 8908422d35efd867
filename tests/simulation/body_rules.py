"""Who may run, and for how long.

1. A body begins only after the table held a running record with its call's owner, and is told of no
   longer lease than the table granted.
2. Where the clocks agree, a body with a heartbeat has ended when another call's claim is applied.
3. Where they are minutes apart, it ends before nine tenths of its lease have passed since that claim: no
   renewal is granted after it.
4. A process that was stopped is the exception: a body may go on after it resumes until the next renewal is
   due. A body without a heartbeat may run on. Both are counted, and fenced off by the rules of the table.
5. A body loses its lease only for a reason: its record went to another, or was removed, or no answer said
   for nine tenths of the lease that it is still held.
"""

from collections.abc import Iterator

from tests.simulation.calls import Call
from tests.simulation.history import History
from tests.simulation.plan import Plan
from tests.simulation.table_rules import TICK

SAFE_PART = 0.9


def at_begin(history: History, call: Call, told_end: float | None) -> Iterator[str]:
    """Judge a body that begins."""
    owned = history.owned(call)
    if not owned:
        yield f"{call.name} runs without ever having owned its record"
    elif told_end is not None and told_end > (granted := max(each.row.lease_end for each in owned)) + TICK:
        yield f"{call.name} was told of a lease that ends {told_end - granted:.3f} s after the table's"


def at_end(plan: Plan, history: History, call: Call, ended: float) -> Iterator[str]:
    """Judge a body that has ended. What starts with "counted: " is allowed, and counted."""
    for other, back in history.away(call):
        if ended > other + TICK:
            yield _ran_on(plan, call, other, min(ended, back))


def _ran_on(plan: Plan, call: Call, other: float, until: float) -> str:
    """Judge a body that ran while another owned its record."""
    overrun = f"{until - other:.3f} s after another call's claim"
    if not call.script.heartbeat:
        return "counted: ran on without a heartbeat"
    if _just_resumed(call, until):
        return "counted: ran on when resumed"
    if not plan.apart:
        return f"the body of {call.name} went on until {overrun}"
    if until > other + SAFE_PART * call.script.lease + TICK:
        return f"the body of {call.name} did not notice, and went on until {overrun}"
    return "counted: ran on, clocks apart"


def at_loss(history: History, call: Call, now: float) -> Iterator[str]:
    """Judge a call that is told that its lease is lost."""
    if not call.script.heartbeat or not history.owned(call):
        reasons = bool(call.owner) and not history.still_held(call)
    else:
        given_up = call.acknowledged - (1 - SAFE_PART) * call.script.lease - call.interval / 10
        reasons = not history.still_held(call) or call.clock(now) >= given_up - TICK
    if not reasons:
        yield f"{call.name} was told that its lease is lost, and it is not"


def _just_resumed(call: Call, ended: float) -> bool:
    began = call.started or 0.0
    return any(begins < ended <= ends + call.interval + TICK and ends > began for begins, ends in call.host.stopped)
