"""Watches a run: keeps its trace and its counts, and holds everything against the rules."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import final

from aioidempotency import ConfigurationError, StoreError
from tests.simulation import (
    answer_rules,
    body_rules,
    effect_rules,
    freeing_rules,
    place_rules,
    process_rules,
    table_rules,
)
from tests.simulation.calls import EPOCH, Call, How
from tests.simulation.freeing_rules import Doors
from tests.simulation.history import History
from tests.simulation.plan import Plan
from tests.simulation.process_rules import Rights
from tests.simulation.table import Row, Write


@final
@dataclass
class Monitor:
    """What happened in one run, and which rules it broke. `watching` ends with the run itself."""

    plan: Plan
    now: Callable[[], float]
    watching: bool = True
    history: History = field(default_factory=History)
    trace: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rights: dict[str, Rights] = field(default_factory=lambda: defaultdict(Rights))
    tokens: dict[str, int] = field(default_factory=dict)
    doors: Doors = field(init=False)

    def __post_init__(self) -> None:
        self.doors = Doors(self.plan, self.history)

    def say(self, line: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now():9.3f}  {line}")

    def count(self, what: str) -> None:
        """Count what was injected, or allowed."""
        self.counts[what] += 1

    def wrote(self, write: Write) -> None:
        """Take in a change of the table."""
        befores = " and ".join(self._spell(row) for row in write.replaced) or "nothing"
        where = f" in {write.location[1]}" if write.location[2] else ""
        self.say(f"    {write.sender} changes {write.key[4:8]}{where}: {befores} -> {self._spell(write.after)}")
        seen = freeing_rules.plain(write)
        if write.sender == "ttl":
            self.doors.expires(write)
            if seen is not None:
                self.history.add(seen)
            self.count("deleted by TTL")
            return
        call = self.history.calls[write.sender]
        stray = seen is not None and place_rules.is_stray(self.plan, self.history, seen, call)
        self._judge(self.doors.broken_by(write, call, stray=stray))
        self._judge(process_rules.at_write(self.history, write, call))
        self._count_freed(write, call)
        if seen is None:
            return
        self._wrote(seen, call, stray=stray)

    def _wrote(self, write: Write, call: Call, *, stray: bool) -> None:
        """Take in a change of a record that counts."""
        was_stray = self.history.is_stray(write.key, write.location)
        self._judge(place_rules.broken_by(self.plan, self.history, write, call, stray=stray))
        self.history.add(write, stray=stray)
        self._count_claim(write)
        self._watch_token(write)
        if call.script.manner == "forget":
            self.history.freed.add(write.key)
            return
        self._judge(table_rules.broken_by(self.plan, write, call, was_stray=was_stray))
        self._judge(effect_rules.at_write(write, call))

    def applied(self, sender: str, write: Write | None) -> None:
        """Take in that effects were applied."""
        call = self.history.calls[sender]
        call.effects_applied += 1
        self.count("effects applied")
        self.say(f"    {sender} has its effect")
        self._judge(effect_rules.at_application(self.history, call, write))

    def starts(self, call: Call) -> None:
        """Take in that a call is made."""
        call.started = self.now()
        script = call.script
        self.say(f"{call.name} starts on {call.host.name}: {script.manner} {script.key} {script.payload or ''}")

    def begins(self, call: Call, told_end: float | None) -> None:
        """Take in that a body begins."""
        call.body_began = self.now()
        self.count("bodies")
        self.say(f"{call.name} begins its body")
        self._judge(body_rules.at_begin(self.plan, self.history, call, told_end, self.now()))
        self._judge(process_rules.at_begin(self.rights[call.host.name], call))

    def body_ends(self, call: Call, how: How, *, at: float | None = None) -> None:
        """Take in that a body has ended, or died with its process; that it did no more from another instant on."""
        if not self.watching or call.body_ended is not None:
            return
        ended = call.body_ended = self.now() if at is None else at
        call.body_how = how
        self.say(f"{call.name} ends its body: {how}")
        self._judge(body_rules.at_end(self.plan, self.history, call, ended))
        if how != "died":
            self._judge(process_rules.at_body_end(self.history, call, ended))

    def gives_up(self, call: Call, cause: BaseException | None) -> None:
        """Take in the event that a completion has failed."""
        if self.watching:
            call.given_up = self.now()
            self.say(f"{call.name} gives its completion up: {type(cause).__name__}")
            self._judge(process_rules.at_giving_up(self.history, self.rights[call.host.name], call, cause, self.now()))

    def prepares(self, call: Call, how: How) -> None:
        """Take in what a call without a body is going to write."""
        call.body_how = how

    def ends(self, call: Call, outcome: object) -> None:
        """Take in what a call came to."""
        if not self.watching:
            return
        call.ended, call.outcome = self.now(), outcome
        self.count(f"{'not run' if call.body_began is None else 'run'}: {type(outcome).__name__}")
        self.say(f"{call.name} is answered {outcome if isinstance(outcome, dict) else type(outcome).__name__}")
        if isinstance(outcome, bool):
            self._judge(freeing_rules.at_end(self.plan, self.history, call, freed=outcome, now=self.now()))
            return
        if isinstance(outcome, ConfigurationError):
            self._judge(process_rules.at_refusal(self.rights[call.host.name], call))
        else:
            self._judge(answer_rules.at_end(self.plan, self.history, call, outcome, self.now()))
        self._judge(effect_rules.at_end(self.plan, self.history, call, outcome))

    def breaks(self, rule: str) -> None:
        """Note a broken rule, unless the run is over and what is left of it is being buried."""
        if not self.watching:
            return
        self.say(f"!!! {rule}")
        self.broken.append(rule)

    def settle(self) -> None:
        """Hold against the rules what can only be told when all requests have arrived.

        A call that ended without a result has given its key back, unless the network kept it from it.
        """
        for call in self.history.calls.values():
            last = self.history.last_of(call)
            if call.ended is None or last is None or last.after is None or not call.undisturbed:
                continue
            if self.plan.too_slow and isinstance(call.outcome, StoreError):
                continue
            if self.plan.scheme.verified and any(each.failures for each in self.history.beside(call)):
                continue  # nobody in its process could look at the layout
            if body_rules.lapsed(self.plan, self.history, call, call.ended):
                continue  # it may not write any more, and need not: its key is free
            keeps = call.body_began is not None and (call.script.on_error == "hold" or call.script.manner == "by hand")
            if last.after.running and last.after.owner == call.owner and not keeps and self._protects(call):
                self.breaks(f"{call.name} ended, and did not give its key back")

    def _protects(self, call: Call) -> bool:
        """Whether a running record of the call's is there, where it is looked for."""
        owned = [each for each in self.history.owned(call) if each.until == float("inf")]
        return bool(owned) and not body_rules.out_of_sight(self.plan, owned, call.clock(self.now()))

    def _judge(self, verdicts: Iterable[str]) -> None:
        for verdict in verdicts if self.watching else ():
            if verdict.startswith("counted: "):
                self.count(verdict.removeprefix("counted: "))
            else:
                self.breaks(verdict)

    def _count_freed(self, write: Write, call: Call) -> None:
        """Count what was freed, and who has met what was left of it."""
        if call.script.manner == "forget":
            shut_out = any(row.running for row in write.replaced) and write.after is not None
            self.count("an owner is shut out" if shut_out else "a key is forgotten")
        elif write.after is not None and write.after.left:
            self.count("given back, and an owner is kept out")
        elif any(row.left for row in write.replaced):
            self.count("taken over what was freed")

    def _count_claim(self, write: Write) -> None:
        """Count what a claim took over, and from where."""
        if write.after is None or all(row.owner == write.after.owner for row in write.replaced):
            return
        self.count("taken over")
        if write.cleared:
            self.count("taken over from another location")

    def _watch_token(self, write: Write) -> None:
        """Count claims of a key whose token is smaller than one before a release, by a slower clock."""
        after, largest = write.after, self.tokens.get(write.key, 0)
        if after is not None and after.running and not write.replaced and after.token <= largest:
            self.count("token shrank after a release")
        if after is not None:
            self.tokens[write.key] = max(after.token, largest)

    def _spell(self, row: Row | None) -> str:
        if row is None:
            return "nothing"
        owner = self.history.owner_of(row)
        state = f"running until {row.lease_end - EPOCH:.3f}" if row.running else f"finished ({row.author})"
        return f"{owner.name if owner else '?'} {state}, token {row.token - round(EPOCH * 1000)}"
