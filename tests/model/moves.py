"""What can happen in a state.

Any one of these, and each leads to another state:

- a contender begins a call: it claims, renews, completes or releases, at its clock's time. Either it
  reaches the table before anything else happens, or it is slow and time goes on first. Both together
  are all there is: until it reaches the table, a call depends on nothing but the time it began;
- what it has asked is executed and answered. An answer that comes late is no case of its own: until
  the contender acts on it, nothing can tell when it came;
- it is executed, the answer gets lost, and the client sends the same again, as the SDK does;
- it is sent twice, and the copy arrives at any later time;
- the contender gives up: its caller is told `StoreError`, and the request may still arrive, or not;
- the contender crashes, and may be started anew as another owner; its request may still arrive. That
  it may stop for good at any time needs no case: nothing says that it ever goes on;
- a request that was left on its way arrives;
- time goes on by a second. All terms are whole seconds, so all that is judged by time falls on one;
- the table deletes a record that has expired, then or later.

Faults are limited by a budget, time by a horizon. The scripts of the contenders end, so the states do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, final

from aioidempotency._core.model import Item
from aioidempotency._core.protocol import Claim
from tests.model.contenders import Answer, Contender, Kind, Outcome, Request, Script, Troupe, reads
from tests.model.invariants import Limit, Promise, Terms
from tests.model.table import PLACE, Cell, Change, Shelf

START = 1000.0
"""The time at which everything begins."""


class Faults(NamedTuple):
    """How many of each fault may still happen: crashes, lost answers, copies of requests, giving up."""

    crash: int = 0
    lost: int = 0
    copy: int = 0
    give_up: int = 0

    def less(self, fault: Literal["crash", "lost", "copy", "give_up"]) -> "Faults":
        """Take one away."""
        return self._replace(**{fault: getattr(self, fault) - 1})


NO_FAULTS = Faults()
NOBODY = -1


@final
@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is explored. Contenders with equal scripts are interchangeable: they begin in order.

    Attributes:
        horizon: The seconds that are explored.
        start: The record that is there at the beginning.
        refusals_bring_items: Whether a refused write says what was there; not every store does.
        limits: What the invariants leave out.
    """

    scripts: tuple[Script, ...]
    faults: Faults = NO_FAULTS
    lease: float = 2.0
    clock_skew: float = 1.0
    retention: float = 6.0
    horizon: float = 6.0
    start: Item | None = None
    refusals_bring_items: bool = True
    limits: frozenset[Limit] = frozenset()

    @property
    def terms(self) -> Terms:
        """What the invariants depend on. The table has a clock, too: it is right."""
        return Terms(self.clock_skew, tuple({0.0, *(script.clock for script in self.scripts)}), self.limits)

    def attempt(self, owner: str, now: float) -> Claim:
        """Make a claim on these terms."""
        return Claim(
            route=PLACE, owner=owner, now=now, lease=self.lease, retention=self.retention, clock_skew=self.clock_skew
        )


class State(NamedTuple):
    """All that the future depends on, and what the invariants remember.

    `slow` is the last contender that has begun a call which reaches the table when time has gone on.
    """

    time: float
    cell: Cell | None
    contenders: tuple[Contender, ...]
    on_the_way: tuple[Request, ...]
    faults: Faults
    promised: Promise | None = None
    slow: int = NOBODY


class Move(NamedTuple):
    """One thing that happens, and where it leads.

    Attributes:
        begins: The call that the actor begins by it.
        request: What reached the table.
        applied: Whether it was applied.
        outcome: What the contender's call came to by its answer.
        answers: What the contender had been answered in this call, that answer included.
    """

    actor: str
    action: str
    state: State
    begins: Kind | None = None
    request: Request | None = None
    applied: bool = False
    outcome: Outcome | None = None
    answers: tuple[Answer, ...] = ()


@final
class Moves:
    """All moves of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self.shelf = Shelf()
        self._configuration = configuration
        self._clocks = configuration.terms.clocks
        self._troupe = Troupe(configuration.attempt("", START))
        self._changes: dict[tuple[Request, Cell | None], Change] = {}

    def first(self) -> State:
        """Make the state in which everything begins."""
        start, scripts = self._configuration.start, self._configuration.scripts
        contenders = tuple(self._troupe.enter(name, script) for name, script in zip("abc", scripts, strict=False))
        return State(
            START, None if start is None else self.shelf.cell(start), contenders, (), self._configuration.faults
        )

    def of(self, state: State) -> Iterator[Move]:
        """List what can happen in a state."""
        calm = state.slow == NOBODY
        for index, contender in enumerate(state.contenders):
            if contender.request is None:
                yield from self._beginnings(state, index, contender)
            elif calm:
                yield from self._goings_on(state, index, contender, contender.request)
        if calm:
            yield from map(partial(self._arrival, state), state.on_the_way)
            if state.cell is not None and state.cell.expired(state.time):
                yield Move("the table", "deletes the expired record", state._replace(cell=None))
        if state.time < START + self._configuration.horizon:
            yield Move("time", "goes on", state._replace(time=state.time + 1, slow=NOBODY))

    def _beginnings(self, state: State, index: int, contender: Contender) -> Iterator[Move]:
        """Begin each call; the slow ones begin last before time goes on, and in order."""
        before = state.contenders[index - 1] if index else None
        if before is not None and before.script == contender.script and before.untouched:
            return
        for kind in contender.choices:
            begun = self._troupe.begin(contender, kind, state.time)
            assert begun.request is not None
            if state.slow == NOBODY:
                yield from self._goings_on(state, index, begun, begun.request, kind)
            if state.slow < index:
                yield Move(contender.name, "is slow", _with(state, index, begun, state.cell)._replace(slow=index), kind)

    def _goings_on(
        self, state: State, index: int, contender: Contender, request: Request, begins: Kind | None = None
    ) -> Iterator[Move]:
        """List what can happen to a request."""
        yield self._answered(state, index, contender, request, begins)
        writes = not reads(request)
        if state.faults.lost and writes:
            yield self._unanswered(state, index, contender, request, begins)
        if state.faults.copy and writes:
            left = _left(_with(state, index, contender, state.cell), request, state.faults.less("copy"))
            yield Move(contender.name, "sends it twice", left, begins)
        if state.faults.give_up:
            left = _left(state, request, state.faults.less("give_up"))
            yield Move(
                contender.name, "gives up", _with(left, index, self._troupe.give_up(contender), state.cell), begins
            )
        if state.faults.crash:
            left = _left(state, request, state.faults.less("crash"))
            yield Move(contender.name, "crashes", _with(left, index, self._troupe.crash(contender), state.cell), begins)

    def _answered(self, state: State, index: int, contender: Contender, request: Request, begins: Kind | None) -> Move:
        applied, cell = self._execute(request, state.cell)
        answer = self._answer(request, applied, cell)
        told, outcome = self._troupe.tell(contender, answer)
        answered = _with(state, index, told, cell)
        answers = (*contender.answers, answer)
        return Move(contender.name, "is answered", answered, begins, request, applied, outcome, answers)

    def _unanswered(
        self, state: State, index: int, contender: Contender, request: Request, begins: Kind | None
    ) -> Move:
        applied, cell = self._execute(request, state.cell)
        unanswered = _with(state, index, contender, cell)._replace(faults=state.faults.less("lost"))
        return Move(contender.name, "gets no answer, and sends it again", unanswered, begins, request, applied)

    def _arrival(self, state: State, request: Request) -> Move:
        rest = list(state.on_the_way)
        rest.remove(request)
        applied, cell = self._execute(request, state.cell)
        arrived = state._replace(cell=cell, on_the_way=tuple(rest))
        return Move("the network", "delivers it late", arrived, None, request, applied)

    def _execute(self, request: Request, cell: Cell | None) -> Change:
        asked = request, cell
        if asked not in self._changes:
            self._changes[asked] = self.shelf.execute(request.operation, cell)
        return self._changes[asked]

    def _answer(self, request: Request, applied: bool, cell: Cell | None) -> Answer:
        if applied:
            return "applied", None
        if reads(request):
            return "found", cell
        return "refused", cell if self._configuration.refusals_bring_items else None


def _with(state: State, index: int, contender: Contender, cell: Cell | None) -> State:
    """Put a contender in its place, and a cell into the table."""
    contenders = (*state.contenders[:index], contender, *state.contenders[index + 1 :])
    return State(state.time, cell, contenders, state.on_the_way, state.faults, state.promised)


def _left(state: State, request: Request, faults: Faults) -> State:
    """Leave a request on its way; a read changes nothing when it arrives."""
    on_the_way = state.on_the_way if reads(request) else (*state.on_the_way, request)
    return state._replace(faults=faults, on_the_way=on_the_way)
