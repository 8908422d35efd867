"""The way to a state, in lines that can be read."""

from collections.abc import Iterable, Iterator

from aioidempotency._core.operations import Transact
from tests.model.calls import Request
from tests.model.moves import Move, State
from tests.model.setting import START
from tests.model.table import Cell, Cells


def told(way: Iterable[tuple[State, Move]]) -> Iterator[str]:
    """Tell each move: when, who, what, what it came to, and what is in the table then."""
    for state, move in way:
        asked = "" if move.request is None else f": {_named(move.request)} is {_fate(move)}"
        begins = "" if move.begins is None else f" begins to {move.begins}, and"
        outcome = "" if move.outcome is None else f"; told {type(move.outcome).__name__}"
        line = f"{state.time - START:+7.1f} s  {move.actor}{begins} {move.action}{asked}{outcome}"
        yield f"{line:<90} | {_shown(move.state.cells)}"


def _named(request: Request) -> str:
    operation = request.operation
    parts = operation.writes if isinstance(operation, Transact) else (operation,)
    return f"{', '.join(map(_spelled, parts))} by {request.call.attempt.owner}"


def _spelled(operation: object) -> str:
    condition = getattr(operation, "condition", None)
    when = "" if condition is None else f" when {type(condition).__name__}"
    return f"{type(operation).__name__}{when}"


def _fate(move: Move) -> str:
    if move.request is not None and move.request.reads:
        return "executed"
    return "applied" if move.applied else "refused"


def _shown(cells: Cells) -> str:
    """Show what is in each location, the first one first; one location is shown as it is."""
    if set(cells) == {None}:
        return "no record"
    found = [(index, cell) for index, cell in enumerate(cells) if cell is not None]
    return "; ".join((f"{index}: " if len(cells) > 1 else "") + _told(cell) for index, cell in found)


def _told(cell: Cell) -> str:
    status = f"running until {cell.ends - START:+.1f}" if cell.running else f"finished with {cell.data}"
    return f"{cell.owner} {status}, token {cell.token}, expires {cell.expiration - START:+.0f}"
