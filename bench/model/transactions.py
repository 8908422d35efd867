"""TransactWriteItems: all actions or none, at most once for each `ClientRequestToken`."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import xxhash

from bench.model import actions
from bench.model.actions import Action, Outcome
from bench.model.expressions import Request
from bench.model.parameters import check, check_number
from bench.model.partitions import Demand, admit
from bench.model.reads import read_units
from bench.model.refusals import BUSY, NO_REASON, MisfitError, Reason, ServiceError, cancelled, invalid, unmet_reason
from bench.model.tables import Database
from bench.model.writes import Answer

_MOST_BYTES: Final = 4 * 1024 * 1024
_TOKEN_LIFETIME: Final = 600.0
_COST: Final = 2.0
"""A transaction costs each of its units twice: to prepare, and to commit."""


def transact_write_items(request: Request, database: Database, now: float) -> Answer:
    """Answer TransactWriteItems."""
    given: Sequence[Any] = request.get("TransactItems", ())
    check_number(len(given), "transactItems")
    token = request.get("ClientRequestToken")
    digest = xxhash.xxh3_128_digest(msgspec.json.encode(given, order="deterministic"))
    wanted = _read(given, database)
    if token is not None and _was_applied(token, digest, database, now):
        _charge([_repeated(action) for action in wanted], now)
        return {}
    for outcome in _admitted(wanted, now):
        outcome.apply()
    if token is not None:
        database.applied[token] = digest, now
    return {}


def _read(given: Sequence[Any], database: Database) -> Sequence[Action]:
    wanted: list[Action] = []
    reasons: list[Reason] = []
    for each in given:
        if not isinstance(each, dict) or len(each) != 1 or not each.keys() <= actions.PARAMETERS.keys():
            raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
        ((kind, request),) = each.items()
        check(request, actions.PARAMETERS[kind])
        try:
            wanted.append(actions.read(kind, request, database))
            reasons.append(NO_REASON)
        except MisfitError as misfit:
            reasons.append(misfit.reason)
    _cancel_for(reasons)
    if len({(action.table.name, action.point) for action in wanted}) != len(wanted):
        raise invalid("Transaction request cannot include multiple operations on one item")
    return wanted


def _was_applied(token: str, digest: bytes, database: Database, now: float) -> bool:
    """Tell whether this request was applied within the last ten minutes; what is older is forgotten."""
    applied = database.applied
    while applied and now - next(iter(applied.values()))[1] > _TOKEN_LIFETIME:
        del applied[next(iter(applied))]
    if token not in applied:
        return False
    if applied[token][0] != digest:
        raise ServiceError(
            "IdempotentParameterMismatchException",
            "DynamoDB rejected the request because you retried a request with a different payload "
            "but with an idempotent token that was already used.",
        )
    return True


def _repeated(action: Action) -> Demand:
    """Tell what a repeated action costs: it is read instead of written."""
    units = read_units(action.table.get(action.point), _COST)
    return Demand(table=action.table.partitions, point=action.point, reads=units)


def _admitted(wanted: Sequence[Action], now: float) -> Sequence[Outcome]:
    """Judge all actions, and charge for them whether or not they are applied."""
    outcomes, reasons = _judged(wanted)
    _cancel_for(reasons)
    if sum(outcome.after.size for outcome in outcomes if outcome.after is not None) > _MOST_BYTES:
        raise invalid("Aggregate size of items in the transaction cannot exceed 4 MB")
    _charge([outcome.demand(_COST) for outcome in outcomes], now)
    _cancel_for([NO_REASON if outcome.holds else unmet_reason(outcome.shown) for outcome in outcomes])
    return outcomes


def _judged(wanted: Sequence[Action]) -> tuple[Sequence[Outcome], Sequence[Reason]]:
    outcomes: list[Outcome] = []
    reasons: list[Reason] = []
    for action in wanted:
        try:
            outcomes.append(actions.judge(action))
            reasons.append(NO_REASON)
        except MisfitError as misfit:
            reasons.append(misfit.reason)
    return outcomes, reasons


def _charge(demands: Sequence[Demand], now: float) -> None:
    busy = admit(demands, now)
    _cancel_for([BUSY if index in busy else NO_REASON for index in range(len(demands))])


def _cancel_for(reasons: Sequence[Reason]) -> None:
    if any(reason is not NO_REASON for reason in reasons):
        raise cancelled(reasons)
