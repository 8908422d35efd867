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
from tests.model import invariants
from tests.model.invariants import BrokenError
from tests.model.moves import Configuration, Move, Moves, State
from tests.model.outcomes import remark
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
        invariants.check_leases(self._terms, state.contenders, state.cell, state.time)
        if (state.cell, state.time) in self._unlocked:
            return
        self._unlocked.add((state.cell, state.time))
        latest = max(self._terms.clocks) + self._configuration.lease + self._configuration.clock_skew
        fresh = self._configuration.attempt("fresh", state.time + latest + 0.5)
        invariants.check_not_locked(fresh, self._moves.shelf, state.cell)

    def _checked(self, state: State, move: Move) -> State:
        """Check what a move did; remember what was promised by it."""
        request, following = move.request, move.state
        if request is None:
            if state.cell is not None and following.cell is None:
                invariants.check_deletion(self._terms, state.cell, state.time)
            return following
        if move.applied:
            invariants.check_write(self._terms, request.call, state.cell, following.cell, state.time)
        if move.outcome is not None:
            invariants.check_told(self._terms, request.call, move.answers, move.outcome, following.cell)
        self._explored.outcomes[remark(move, state.cell, state.time)] += 1
        if not isinstance(move.outcome, Completed):
            return following
        promise = invariants.promised(self._terms, state.promised, following.cell, state.time)
        return following._replace(promised=promise)

    def _violation(self, state: State, last: Move | None, broken: BrokenError) -> ViolationError:
        moves = [] if last is None else [(state, last)]
        while (came := self._came[state]) is not None:
            state, number = came
            moves.append((state, next(islice(self._moves.of(state), number, None))))
        return ViolationError("\n".join([str(broken), "the shortest way there:", *told(reversed(moves))]))
