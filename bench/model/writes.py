"""PutItem, UpdateItem and DeleteItem: one action each, with what the request wants to be told."""

from typing import Final

from bench.model import actions
from bench.model.expressions import Request
from bench.model.partitions import admit
from bench.model.refusals import invalid, throttled, unmet
from bench.model.tables import Database

Answer = dict[str, object]
_RETURNED: Final = {"Put": ("NONE", "ALL_OLD"), "Delete": ("NONE", "ALL_OLD"), "Update": ("NONE", "ALL_OLD", "ALL_NEW")}


def put_item(request: Request, database: Database, now: float) -> Answer:
    """Answer PutItem."""
    return _write("Put", request, database, now)


def update_item(request: Request, database: Database, now: float) -> Answer:
    """Answer UpdateItem; its expression may only SET."""
    return _write("Update", request, database, now)


def delete_item(request: Request, database: Database, now: float) -> Answer:
    """Answer DeleteItem."""
    return _write("Delete", request, database, now)


def _write(kind: str, request: Request, database: Database, now: float) -> Answer:
    wanted = request.get("ReturnValues", "NONE")
    if wanted not in _RETURNED[kind]:
        raise invalid(f"ReturnValues can only be {' or '.join(_RETURNED[kind])} in this model")
    outcome = actions.judge(actions.read(kind, request, database))
    if admit((outcome.demand(),), now):
        raise throttled(outcome.action.table.arn, "Write")
    if not outcome.holds:
        raise unmet(outcome.shown)
    outcome.apply()
    returned = {"ALL_OLD": outcome.before, "ALL_NEW": outcome.after}.get(wanted)
    return {} if returned is None else {"Attributes": returned.item}
