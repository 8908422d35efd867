"""Every interleaving of a few contenders for one key, each state visited once, the nearest first.

The procedures of `protocol` are pure, so what can happen between them can be listed: `moves` does.
What must be true in every state that can be reached is listed in `invariants`. Where one of them is
not, the shortest way there is told, line by line.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import final

from aioidempotency._core.protocol import Completed
from tests.model import answers, changes, standing
from tests.model.calls import FREEING
from tests.model.invariants import BrokenError
from tests.model.moves import Move, Moves, State
from tests.model.outcomes import remark
from tests.model.setting import Configuration
from tests.model.story import told


class ViolationError(AssertionError):
    """An invariant does not hold; the message tells the shortest way there."""


@final
@dataclass
class Explored:
    """What an exploration saw, and how often it reached each outcome."""

    states: int = 0
    transitions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def explore(configuration: Configuration) -> Explored:
    """Visit every state of a configuration.

    Raises:
        ViolationError: An invariant does not hold in one of them.
    """
    return _Explorer(configuration).explore()


@final
class _Explorer:
    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._terms = configuration.terms
        self._moves = Moves(configuration)
        self._explored = Explored()
        self._came: dict[State, tuple[State, int] | None] = {}
        self._unlocked: set[object] = set()

    def explore(self) -> Explored:
        newest = [self._moves.first()]
        self._came[newest[0]] = None
        while newest:
            newest = [found for state in newest for found in self._visit(state)]
        self._explored.states = len(self._came)
        return self._explored

    def _visit(self, state: State) -> Iterator[State]:
        """Check a state and all that can happen in it; yield the states that were not seen before."""
        try:
            self._check_state(state)
        except BrokenError as broken:
            raise self._violation(state, None, broken) from None
        for number, move in enumerate(self._moves.of(state)):
            try:
                following = self._checked(state, move)
            except BrokenError as broken:
                raise self._violation(state, move, broken) from None
            self._explored.transitions += 1
            if following not in self._came:
                self._came[following] = state, number
                yield following

    def _check_state(self, state: State) -> None:
        shelf = self._moves.shelf
        standing.check_one_counts(self._terms, state.contenders, state.cells, state.time)
        standing.check_leases(self._terms, shelf, state)
        if (state.cells, state.time) in self._unlocked:
            return
        self._unlocked.add((state.cells, state.time))
        for route in self._configuration.routes:
            fresh = self._configuration.attempt("fresh", state.time + self._configuration.over, route)
            standing.check_not_locked(fresh, shelf, state.cells)

    def _checked(self, state: State, move: Move) -> State:
        """Check what a move did; remember what was promised by it."""
        request, following = move.request, move.state
        if request is None:
            if following.cells is not state.cells:
                changes.check_deletion(self._terms, state.cells, following.cells, state.time)
                shut_out = changes.shut_out_by(move, state.cells, state.shut_out)
                following = following._replace(shut_out=shut_out)
            return following
        shelf = self._moves.shelf
        if move.applied:
            changes.check_write(self._terms, shelf, move, state)
            following = following._replace(shut_out=changes.shut_out_by(move, state.cells, state.shut_out))
            if request.call.kind in FREEING:
                following = following._replace(promised=None)
        self._explored.outcomes[remark(move, shelf, state.cells, state.time)] += 1
        if move.outcome is None:
            return following
        answers.check_told(self._terms, shelf, move, move.outcome, state.time)
        answers.check_found(self._terms, state.promised, move, move.outcome, state.time)
        if not isinstance(move.outcome, Completed):
            return following
        promise = answers.promised(self._terms, state.promised, request.call, following.cells, state.time)
        return following._replace(promised=promise)

    def _violation(self, state: State, last: Move | None, broken: BrokenError) -> ViolationError:
        moves = [] if last is None else [(state, last)]
        while (came := self._came[state]) is not None:
            state, number = came
            moves.append((state, next(islice(self._moves.of(state), number, None))))
        return ViolationError("\n".join([str(broken), "the shortest way there:", *told(reversed(moves))]))
