"""What can happen in a state.

Any one of these, and each leads to another state:

- a contender begins a call: it claims, renews, completes or releases, or frees the key, at its clock's time. Either it
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
- the table deletes a record that has expired, then or later, in any of the locations.

Faults are limited by a budget, time by a horizon. The scripts of the contenders end, so the states do.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, final

from tests.model.calls import FREEING, Kind, Outcome, Request
from tests.model.contenders import Contender, Troupe
from tests.model.invariants import Promise
from tests.model.setting import START, Configuration, Faults
from tests.model.table import APPLIED, Answer, Cells, Shelf, silent

NOBODY = -1


class State(NamedTuple):
    """All that the future depends on, and what the invariants remember.

    `slow` is the last contender that has begun a call which reaches the table when time has gone on. `shut_out` are the
    owners from whom the key was taken while they ran, and their fencing tokens, as long as a record keeps them out.
    """

    time: float
    cells: Cells
    contenders: tuple[Contender, ...]
    on_the_way: tuple[Request, ...]
    faults: Faults
    promised: Promise | None = None
    slow: int = NOBODY
    shut_out: frozenset[tuple[str, int]] = frozenset()


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
        self.shelf = Shelf(configuration.locations)
        self._configuration = configuration
        self._troupe = Troupe(configuration.attempt("", START))
        self._changes: dict[tuple[Request, Cells], tuple[Answer, Cells]] = {}

    def first(self) -> State:
        """Make the state in which everything begins."""
        scripts = self._configuration.scripts
        contenders = tuple(self._troupe.enter(name, script) for name, script in zip("abc", scripts, strict=False))
        return State(START, self.shelf.holding(self._configuration.start), contenders, (), self._configuration.faults)

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
            yield from self._deletions(state)
        if state.time < START + self._configuration.horizon:
            yield Move("time", "goes on", self._later(state))

    def _later(self, state: State) -> State:
        time, within = state.time + 1, self._configuration.arrives_within
        on_the_way = tuple(each for each in state.on_the_way if each.call.age(time) <= within)
        return state._replace(time=time, slow=NOBODY, on_the_way=on_the_way)

    def _beginnings(self, state: State, index: int, contender: Contender) -> Iterator[Move]:
        """Begin each call; the slow ones begin last before time goes on, and in order."""
        before = state.contenders[index - 1] if index else None
        if before is not None and before.script == contender.script and before.untouched:
            return
        for kind in contender.choices:
            begun, outcome = self._troupe.begin(contender, kind, state.time)
            if begun.request is None:
                if state.slow == NOBODY:
                    moved = _with(state, index, begun, state.cells)
                    yield Move(contender.name, "asks nothing", moved, kind, outcome=outcome)
                continue
            if state.slow == NOBODY:
                yield from self._goings_on(state, index, begun, begun.request, kind)
            if state.slow < index:
                yield Move(
                    contender.name, "is slow", _with(state, index, begun, state.cells)._replace(slow=index), kind
                )

    def _deletions(self, state: State) -> Iterator[Move]:
        for index, cell in enumerate(state.cells):
            if cell is not None and cell.expired(state.time):
                yield Move("the table", "deletes the expired record", state._replace(cells=without(state.cells, index)))

    def _goings_on(
        self, state: State, index: int, contender: Contender, request: Request, begins: Kind | None = None
    ) -> Iterator[Move]:
        """List what can happen to a request."""
        if (
            request.call.kind not in {"claim", *FREEING}
            and request.call.age(state.time) > self._configuration.ends_within
        ):
            return
        yield self._answered(state, index, contender, request, begins)
        writes = not request.reads
        if state.faults.lost and writes:
            yield self._unanswered(state, index, contender, request, begins)
        if state.faults.copy and writes:
            left = _left(_with(state, index, contender, state.cells), request, state.faults.less("copy"))
            yield Move(contender.name, "sends it twice", left, begins)
        if state.faults.give_up:
            left = _left(state, request, state.faults.less("give_up"))
            yield Move(
                contender.name, "gives up", _with(left, index, self._troupe.give_up(contender), state.cells), begins
            )
        if state.faults.crash:
            left = _left(state, request, state.faults.less("crash"))
            yield Move(
                contender.name, "crashes", _with(left, index, self._troupe.crash(contender), state.cells), begins
            )

    def _answered(self, state: State, index: int, contender: Contender, request: Request, begins: Kind | None) -> Move:
        answer, cells = self._execute(request, state.cells)
        told, outcome = self._troupe.tell(contender, answer, state.time)
        answered = _with(state, index, told, cells)
        answers = (*contender.answers, answer)
        return Move(contender.name, "is answered", answered, begins, request, answer is APPLIED, outcome, answers)

    def _unanswered(
        self, state: State, index: int, contender: Contender, request: Request, begins: Kind | None
    ) -> Move:
        answer, cells = self._execute(request, state.cells)
        unanswered = _with(state, index, contender, cells)._replace(faults=state.faults.less("lost"))
        action = "gets no answer, and sends it again"
        return Move(contender.name, action, unanswered, begins, request, answer is APPLIED)

    def _arrival(self, state: State, request: Request) -> Move:
        rest = list(state.on_the_way)
        rest.remove(request)
        answer, cells = self._execute(request, state.cells)
        arrived = state._replace(cells=cells, on_the_way=tuple(rest))
        return Move("the network", "delivers it late", arrived, None, request, answer is APPLIED)

    def _execute(self, request: Request, cells: Cells) -> tuple[Answer, Cells]:
        asked = request, cells
        if asked not in self._changes:
            answer, after = self.shelf.execute(request.operation, cells)
            self._changes[asked] = (answer if self._configuration.refusals_bring_items else silent(answer)), after
        return self._changes[asked]


def without(cells: Cells, index: int) -> Cells:
    """Empty one location."""
    return (*cells[:index], None, *cells[index + 1 :])


def _with(state: State, index: int, contender: Contender, cells: Cells) -> State:
    """Put a contender in its location, and cells into the table."""
    contenders = (*state.contenders[:index], contender, *state.contenders[index + 1 :])
    return state._replace(cells=cells, contenders=contenders, slow=NOBODY)


def _left(state: State, request: Request, faults: Faults) -> State:
    """Leave a request on its way; a read changes nothing when it arrives."""
    on_the_way = state.on_the_way if request.reads else (*state.on_the_way, request)
    return state._replace(faults=faults, on_the_way=on_the_way)
