"""What must be true of the effects that calls commit together with their results.

1. An effect is applied in the moment in which its call's finished record is written, and in no other: no record of
   that kind without its effect, no effect without the record.
2. The effects of one call are applied once at the most, whatever is copied, late or sent again. A late copy of its
   claim may bring a record back that was deleted long ago, and a late copy of its transaction finish it once more:
   where requests come later than records live, and tokens are not known, that is counted.
3. A caller that is answered with its own result has had its effect; one that is told that its lease is lost, that
   its effects are refused, or of its body's own error, has had none, and never will.
   A commit without a claim that was refused has nothing to give back: a copy of it that comes late may be applied,
   and is then what the next call finds. Where clocks are minutes apart, a finished record may be taken for expired, or deleted by TTL, while its call
   still asks what came of it. So may one that is forgotten. All are counted.
4. One that is told that the store did not answer, or was cancelled when its body had ended, may have had it.
"""

from collections.abc import Iterator

from aioidempotency import InProgressError, LeaseLostError, MismatchError, TransactionError
from tests.simulation.calls import BodyFailedError, Call, DeclinedError
from tests.simulation.history import History
from tests.simulation.plan import Plan
from tests.simulation.table import Write


def at_application(history: History, call: Call, write: Write | None) -> Iterator[str]:
    """Judge effects that are applied, with the change of the record that came with them."""
    after = None if write is None else write.after
    if call.effects_applied > 1:
        removed = any(not held.row.running and held.until < float("inf") for held in history.held(call))
        yield "counted: applied again, when its record was gone" if removed else f"{call.name} had its effect twice"
    if after is None or after.running or after.owner != call.owner:
        yield f"{call.name} had its effect, and its result was not stored with it"
    if call.script.effect != "applied":
        yield f"{call.name} had an effect that it did not ask for"
    if isinstance(call.outcome, LeaseLostError | TransactionError | BodyFailedError):
        told = f"had its effect after it was told {type(call.outcome).__name__}"
        yield f"counted: {told}" if call.script.manner == "at once" else f"{call.name} {told}"


def at_write(write: Write, call: Call) -> Iterator[str]:
    """Judge a record that is finished without effects."""
    after = write.after
    finished = after is not None and not after.running and all(row.running for row in write.replaced)
    if finished and call.script.effect == "applied" and not write.with_effects and call.body_how == "value":
        yield f"{call.name} has its result stored without its effect"


def at_end(plan: Plan, history: History, call: Call, outcome: object) -> Iterator[str]:
    """Judge what a call is told."""
    if call.script.effect is None:
        return
    told_none = isinstance(
        outcome,
        LeaseLostError | TransactionError | BodyFailedError | DeclinedError | InProgressError | MismatchError,
    )
    if told_none and call.effects_applied and call.body_how != "declines":
        told = f"was told {type(outcome).__name__}, and had its effect"
        allowed = (
            plan.apart
            or call.key in history.freed
            or (call.script.manner == "at once" and not isinstance(outcome, LeaseLostError))
        )
        yield f"counted: {told}" if allowed else f"{call.name} {told}"
    own = isinstance(outcome, dict) and outcome.get("by") == call.name
    if own and call.script.effect == "applied" and not call.effects_applied:
        yield f"{call.name} was answered with its result, and has not had its effect"
