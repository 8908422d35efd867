"""What a caller may be told.

1. Its own body's result, once that is stored; or when the store did not answer the completion.
2. A stored result that lived while the call was under way, of its own payload.
3. That the key is running, or used with another payload, if it was so while the call was under way; one
   that waits hears it no sooner than it was ready to wait.
4. That the store did not answer, if it did not, or too late: for windows that pass, for its lease, or for the record
   that tells of its effects; or that others have changed its record again and again; that its lease is lost, if it is (`body_rules`).
5. Its own body's error. That it was cancelled, if it was.
"""

from collections.abc import Iterator

from aioidempotency import (
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MismatchError,
    ResultUnavailableError,
    StoreError,
    TransactionError,
)
from tests.simulation.body_rules import at_loss, lapsed
from tests.simulation.calls import BodyFailedError, Call, DeclinedError
from tests.simulation.history import History
from tests.simulation.plan import Plan
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.table import Row
from tests.simulation.table_rules import TICK, differ

MOST_CHANGES = 4
"""How often a record is looked at again, where others change it meanwhile."""


def _of_one_process(plan: Plan, history: History, call: Call) -> Iterator[Call]:
    """Find the calls that share a lack of answers: duplicates in this process, and all who open its store."""
    return (each for each in history.beside(call) if each.key == call.key or plan.scheme.verified)


def at_end(  # noqa: C901 - one case for each outcome
    plan: Plan, history: History, call: Call, outcome: object, now: float
) -> Iterator[str]:
    """Judge what a call came to: its result, or its error."""
    match outcome:
        case StoreError(contended=True):
            yield from _contended(plan, history, call)
            fine = True
        case StoreError():
            slow = plan.too_slow or plan.claims_may_lapse or _has_expired(history, call, now)
            contended = history.changes(call) >= MOST_CHANGES
            fine = slow or contended or any(each.failures for each in _of_one_process(plan, history, call))
        case LeaseLostError():
            yield from at_loss(plan, history, call, now)
            fine = True
        case InProgressError():
            yield from _refused(plan, history, call, now)
            fine = True
        case MismatchError():
            fine = any(differ(row.payload, call.payload) for row in _seen(plan, history, call))
        case BodyFailedError() | TransactionError():
            fine = _failed(call, outcome)
        case BaseException() if call.cancelled_at is not None and not isinstance(outcome, Exception):
            fine = True
        case ResultUnavailableError() | DeclinedError() | dict():
            yield from _answered(plan, history, call, outcome)
            fine = True
        case IdempotencyError() if type(outcome) is IdempotencyError:
            yield from _answered(plan, history, call, outcome)
            fine = True
        case _:
            fine = call.script.ending == "unstorable" and call.body_how == "value"
            yield from _own(plan, history, call) if fine else ()
    if not fine:
        yield f"{call.name} was answered {outcome!r} for no reason"


def _has_expired(history: History, call: Call, now: float) -> bool:
    """Whether a record that could tell of a call's effects has expired by its own clock."""
    ours = (held.row for held in history.held(call) if held.row.owner == call.owner)
    return call.script.effect is not None and any(call.latest(now) > row.expiration for row in ours)


def _failed(call: Call, outcome: BodyFailedError | TransactionError) -> bool:
    """Judge an error of the body's, or of what it writes."""
    if isinstance(outcome, TransactionError):
        return call.body_how == "refused"
    return call.body_how == "fails" and outcome.args == (call.name,)


def _answered(plan: Plan, history: History, call: Call, outcome: object) -> Iterator[str]:
    """Judge a result, or an error that stands for one."""
    author = _author(outcome)
    if call.body_how in {"value", "declines"} and (call.script.manner != "at once" or author == call.name):
        yield from _own(plan, history, call)
        if author != call.name:
            yield f"{call.name} ran its body, and was answered with the result of {author}"
        return
    any_author = isinstance(outcome, IdempotencyError)
    stored = [row for row in _seen(plan, history, call) if not row.running and (any_author or row.author == author)]
    if not stored:
        yield f"{call.name} was answered with the result of {author}, which was not stored then"
    elif all(differ(row.payload, call.payload) for row in stored):
        yield f"{call.name} was answered with the result of another payload"


def _own(plan: Plan, history: History, call: Call) -> Iterator[str]:
    """Judge a call that was answered with its own body's result: it is stored, or could not be.

    An error that is its result passes on as itself, also when its lease is lost.
    """
    unanswered = any(call.body_ended is not None and failed >= call.body_ended for failed in call.failures)
    held = history.still_held(call) and not lapsed(plan, history, call, call.ended or 0.0)
    lost = call.body_how == "declines" and not held
    unanswered |= call.given_up is not None  # judged by `process_rules`
    if not history.stored_by(call) and not unanswered and not lost and not plan.too_slow:
        yield f"{call.name} was answered, and its result was not stored"


def _refused(plan: Plan, history: History, call: Call, now: float) -> Iterator[str]:
    """Judge a call that is told that its key is running."""
    patience = call.script.patience or 0.0
    if now - (call.started or 0.0) < patience - TICK:
        yield f"{call.name} was refused before its patience had ended"
    if not any(row.running and row.owner != call.owner for row in _seen(plan, history, call, lapsed=False)):
        yield f"{call.name} was refused, and nobody was running its key: locked past its lease"


def _contended(plan: Plan, history: History, call: Call) -> Iterator[str]:
    """Judge a call that is told that others change its key again and again."""
    if not any(row.owner != call.owner for row in _seen(plan, history, call, lapsed=False)):
        yield f"{call.name} was refused, and nobody was changing its key: locked past its lease"


def _seen(plan: Plan, history: History, call: Call, *, lapsed: bool = True) -> Iterator[Row]:
    """Tell what the call may have been answered from: the table while it was under way, and a little before.

    A record whose lease is over refuses nobody, unless it was written since: then its writer has won. A
    duplicate of a call in the same process looks at that call, as long as it has not ended.
    """
    began = call.started or 0.0
    late = 3 * plan.weather.limit + sum(ends - begins for begins, ends in call.host.stopped)
    for held in history.held(call):
        recent = held.until >= began - late
        over = call.earliest(began - late, call.ended or began) > held.row.lease_end + CLOCK_SKEW
        if (recent and (lapsed or not over or held.since >= began)) or _beside(history, call, held.row):
            yield held.row


def _beside(history: History, call: Call, row: Row) -> bool:
    """Whether a record belongs to a call in the same process that has not ended when this one begins."""
    owner = history.owner_of(row)
    beside = owner is not None and owner is not call and owner.host is call.host
    return owner is not None and beside and (owner.ended is None or owner.ended >= (call.started or 0.0))


def _author(outcome: object) -> object:
    if isinstance(outcome, DeclinedError):
        return outcome.args[0]
    return outcome.get("by") if isinstance(outcome, dict) else None
