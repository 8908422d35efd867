"""The layout item: which strategies may open a table, who moves it on, and what has to be waited for."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import AttributeNames
from aioidempotency._core.operations import Applied, ConditionFailed, Found, Get, Put, Reply
from aioidempotency.exceptions import ConfigurationError
from aioidempotency.partitioning import (
    CompositeKey,
    CustomPartition,
    HashBuckets,
    Partitioning,
    RandomBuckets,
    Reshard,
    SimpleKey,
    Static,
    Terms,
    TimeBuckets,
)
from aioidempotency.partitioning import table_layout as layout
from aioidempotency.partitioning.table_layout import Differs, Fits, TableLayout, Verdict, WantedLayout
from tests.core.playing import NOW, Shelf, play
from tests.support.values import replace

RETENTION = 3600.0
TABLE = CompositeKey("part", "sort").table("records", AttributeNames(data="d", fencing_token="f"))
PLACE = layout.location_of(TABLE, "shop")
OLD, NEW = Static("here"), HashBuckets(4)
PREPARE, CUTOVER = Reshard(OLD, NEW, "prepare"), Reshard(OLD, NEW, "cutover")
PHASES: tuple[Partitioning, ...] = (OLD, PREPARE, CUTOVER, NEW)
SAID = {"strategy": "Static", "value": "here"}


def laid(strategy: Partitioning, retention: float = RETENTION, *, promises: bool = True) -> WantedLayout:
    return WantedLayout(location=PLACE, description=strategy.description(), retention=retention, promises=promises)


def item(
    said: dict[str, Any],
    since: float = NOW,
    before: object = None,
    *,
    changes: int = 1,
    promised: float | None = RETENTION,
    promised_before: float | None = None,
    **more: object,
) -> dict[str, Any]:
    promises = {"promised": promised, "promised_before": promised_before}
    known = {name: value for name, value in promises.items() if value is not None}
    text = json.dumps({"layout": said, "since": since, "before": before, **more, **known})
    return {**PLACE.item, "d": {"S": text}, "f": {"N": str(changes)}}


class Opened:
    """One table, on which stores open one after the other."""

    def __init__(self, first: Partitioning) -> None:
        self.shelf = Shelf()
        self.now = NOW
        assert isinstance(self.opens(first), Fits)

    def opens(self, strategy: Partitioning, retention: float = RETENTION) -> Verdict:
        """Open a store."""
        return self.shelf.run(layout.verify(laid(strategy, retention), now=self.now))

    def set(self, strategy: Partitioning, retention: float = RETENTION, *, promises: bool = False) -> Verdict:
        """Have the command say it."""
        return self.shelf.run(layout.move(laid(strategy, retention, promises=promises), now=self.now))

    @property
    def says(self) -> TableLayout:
        """What the table says."""
        read = self.shelf.run(layout.read(PLACE))
        assert read is not None
        return read


def test_the_item_has_a_key_that_no_record_has() -> None:
    """One for each namespace, because the keys of two namespaces never meet."""
    assert PLACE.item == {"part": {"S": "aioidempotency#layout"}, "sort": {"S": "aioidempotency#layout#shop"}}
    assert layout.location_of(TABLE, "").item["sort"] == {"S": "aioidempotency#layout"}
    simple = SimpleKey("id").table("records", AttributeNames())
    assert layout.location_of(simple, "shop").item == {"id": {"S": "aioidempotency#layout#shop"}}


def test_the_first_store_writes_its_layout() -> None:
    """Where none is there: one read, one conditional put. It has no expiration, so TTL leaves it."""
    played = play(layout.verify(laid(OLD), now=NOW), Found(None), Applied())
    assert played.operations == (Get(PLACE), Put(PLACE, item(SAID), Absent()))
    assert played.outcome == Fits(TableLayout(description=SAID, since=NOW, promised=RETENTION))


def test_a_store_with_the_tables_layout_opens_with_one_read() -> None:
    """P5: whatever else the table says."""
    played = play(layout.verify(laid(OLD), now=NOW), Found(item(SAID, since=5.0, changes=3)))
    assert played.operations == (Get(PLACE),)
    assert played.outcome == Fits(TableLayout(description=SAID, since=5.0, changes=3, promised=RETENTION))


@pytest.mark.parametrize("strategy", [HashBuckets(8), HashBuckets(4, prefix="p"), TimeBuckets(600)])
def test_a_store_with_another_layout_is_refused(strategy: Partitioning) -> None:
    """P5: it would look where the records are not. Nothing is written."""
    played = play(layout.verify(laid(strategy), now=NOW), Found(item(SAID)))
    assert played.outcome == Differs(TableLayout(description=SAID, since=NOW, promised=RETENTION))


def test_stores_with_static_values_of_their_own_share_a_table() -> None:
    """P9: the second store adds its value to the item, and from then on opens with one read, as the first one does."""
    added = item(SAID, changes=2, beside=["there"])
    played = play(layout.verify(laid(Static("there")), now=NOW + 5), Found(item(SAID)), Applied())
    assert played.operations == (Get(PLACE), Put(PLACE, added, Unchanged(item(SAID))))
    for value in ("here", "there"):
        played = play(layout.verify(laid(Static(value)), now=NOW + 9), Found(added))
        assert played.operations == (Get(PLACE),)
        kept = TableLayout(description=SAID, since=NOW, changes=2, beside=("there",), promised=RETENTION)
        assert played.outcome == Fits(kept)


def test_two_stores_that_add_their_values_at_once_both_stay() -> None:
    """P9: the second one looks again, and adds its own to what the first one has added."""
    first = item(SAID, changes=2, beside=["there"])
    wanted = laid(Static("anywhere"))
    played = play(layout.verify(wanted, now=NOW), Found(item(SAID)), ConditionFailed(first), Found(first), Applied())
    assert isinstance(played.outcome, Fits)
    assert played.outcome.layout.beside == ("there", "anywhere")


@pytest.mark.parametrize("others", [(), ("there",)])
def test_static_values_and_buckets_do_not_share_a_namespace(others: tuple[str, ...]) -> None:
    """P5, P9: whichever opens first, neither finds the records of the other."""
    table = Opened(OLD)
    for value in others:
        table.opens(Static(value))
    assert isinstance(table.opens(NEW), Differs)
    bucketed = Opened(NEW)
    for value in ("here", *others):
        assert isinstance(bucketed.opens(Static(value)), Differs)
    for phase in (PREPARE, CUTOVER):
        assert isinstance(Opened(phase).opens(Static("there")), Differs)


def test_a_table_that_static_values_share_does_not_move() -> None:
    """P9: records of the other values would be where `new` does not look; the operator may know that there are none."""
    table = Opened(OLD)
    table.opens(Static("there"))
    for asked in (PREPARE, Reshard(Static("there"), NEW, "prepare")):
        verdict = table.opens(asked)
        assert isinstance(verdict, Differs)
        assert "other values of Static share the namespace ('there')" in layout.advice(verdict)
        assert table.set(asked) == verdict
    assert table.set(Static("there")) == Fits(table.says)
    forced = table.shelf.run(layout.move(laid(OLD), now=NOW, forced=True))
    assert isinstance(forced, Fits)
    assert table.says.beside == ()
    assert isinstance(table.opens(PREPARE), Fits)


def test_who_writes_second_looks_again() -> None:
    """Two stores open a new table at once: the other's layout counts."""
    other = item(HashBuckets(8).description() | {})
    played = play(layout.verify(laid(OLD), now=NOW), Found(None), ConditionFailed(other), Found(other))
    assert isinstance(played.outcome, Differs)


def test_a_layout_that_always_changes_is_not_relied_upon() -> None:
    """The bound."""
    replies: list[Reply] = [Found(None), ConditionFailed(None)] * layout.ATTEMPTS
    assert isinstance(play(layout.verify(laid(OLD), now=NOW), *replies).outcome, Differs)


@pytest.mark.parametrize("said", range(4))
@pytest.mark.parametrize("wanted", range(4))
def test_neighbouring_phases_open_and_others_do_not(said: int, wanted: int) -> None:
    """P4: a store may be a phase ahead or behind; `new` also has to wait, which is another test."""
    table = Opened(PHASES[said])
    table.now += RETENTION
    assert isinstance(table.opens(PHASES[wanted]), Fits) == (abs(said - wanted) <= 1)


def test_who_is_ahead_moves_the_table_on() -> None:
    """From then on, who is two phases behind is refused; who is one behind changes nothing."""
    table = Opened(OLD)
    table.opens(PREPARE)
    assert isinstance(table.opens(OLD), Fits)
    table.now += 1
    assert table.opens(CUTOVER) == Fits(table.says)
    assert table.says == TableLayout(
        description=CUTOVER.description(),
        since=NOW + 1,
        before=PREPARE.description(),
        changes=3,
        promised=RETENTION,
        promised_before=RETENTION,
    )
    assert isinstance(table.opens(PREPARE), Fits)
    assert table.says.description == CUTOVER.description()
    assert table.opens(OLD) == Differs(table.says)


def test_moving_on_insists_on_what_was_read() -> None:
    """Another store may have moved it on meanwhile."""
    found = item(OLD.description() | {}, changes=4)
    played = play(layout.verify(laid(PREPARE), now=NOW), Found(found), Applied())
    assert played.operations == (
        Get(PLACE),
        Put(PLACE, item(PREPARE.description() | {}, before=OLD.description(), changes=5), Unchanged(found)),
    )


def test_leaving_the_cutover_waits_for_a_retention() -> None:
    """P4: finished records lie in the old locations until then, and `new` does not look there."""
    table = Opened(OLD)
    table.opens(PREPARE)
    table.now += 100
    table.opens(CUTOVER)
    table.now += RETENTION - 1
    assert table.opens(NEW) == Differs(table.says, until=NOW + 100 + RETENTION)
    table.now += 1
    assert isinstance(table.opens(NEW), Fits)
    assert table.says.description == NEW.description()


def test_going_back_before_the_cutover_waits_for_nothing() -> None:
    """No record was put anywhere else."""
    table = Opened(OLD)
    table.opens(PREPARE)
    assert isinstance(table.opens(OLD), Fits)
    assert isinstance(table.set(OLD), Fits)
    assert table.says.description == OLD.description()


def test_going_back_after_the_cutover_waits_for_a_retention() -> None:
    """Finished records lie in the new locations, and `old` does not look there."""
    table = Opened(OLD)
    table.opens(PREPARE)
    table.opens(CUTOVER)
    assert isinstance(table.set(PREPARE), Fits)
    table.now += RETENTION - 1
    assert table.opens(OLD) == Differs(table.says, until=NOW + RETENTION)
    assert table.set(OLD) == Differs(table.says, until=NOW + RETENTION)
    table.now += 1
    assert isinstance(table.set(OLD), Fits)


def test_going_back_from_new_to_the_cutover_and_forth_waits_for_nothing() -> None:
    """The old locations were empty already."""
    table = Opened(CUTOVER)
    table.now += RETENTION
    table.opens(NEW)
    assert isinstance(table.set(CUTOVER), Fits)
    assert isinstance(table.opens(NEW), Fits)


def test_saying_the_same_again_begins_the_wait_anew() -> None:
    """For the operator who knows that the last node of the phase before has ended just now."""
    table = Opened(PREPARE)
    table.opens(CUTOVER)
    table.now += 500
    assert isinstance(table.set(CUTOVER), Fits)
    assert (table.says.since, table.says.before) == (NOW + 500, PREPARE.description())
    table.now += RETENTION - 1
    assert isinstance(table.opens(NEW), Differs)


@pytest.mark.parametrize("promising", [OLD, PREPARE])
def test_new_waits_for_the_longest_promise_of_any_store(promising: Partitioning) -> None:
    """P8: and not for the retention of the store that opens the table, whether longer or shorter."""
    table = Opened(OLD)
    for phase in (OLD, PREPARE, CUTOVER):
        table.opens(phase, 86_400 if phase == promising else RETENTION)
    for retention in (60, RETENTION, 10 * 86_400):
        table.now = NOW + 86_399
        assert table.opens(NEW, retention) == Differs(table.says, until=NOW + 86_400)
        assert table.says.promised == RETENTION, "a refused store promises nothing"
        table.now += 1
        assert isinstance(layout.judge(table.says, laid(NEW, retention), now=table.now), Fits)


def test_a_longer_promise_for_records_that_new_finds_lengthens_no_wait() -> None:
    """P8: a cutover node puts them into the new locations; for the next move, the promise counts."""
    table = Opened(OLD)
    table.opens(PREPARE)
    table.opens(CUTOVER)
    table.now += RETENTION
    table.opens(CUTOVER, 86_400)
    assert isinstance(table.opens(NEW, 60), Fits)
    assert (table.says.promised, table.says.promised_before) == (86_400, None)
    newest = HashBuckets(16)
    for phase in ("prepare", "cutover"):
        table.opens(Reshard(NEW, newest, phase), 60)
    assert table.opens(newest, 60) == Differs(table.says, until=table.now + 86_400)


def test_a_prepare_node_that_is_behind_promises_for_the_old_locations() -> None:
    """P8: its first longer call may come after the cutover has begun."""
    table = Opened(OLD)
    table.opens(PREPARE)
    table.opens(CUTOVER)
    table.opens(PREPARE, 86_400)
    assert (table.says.promised, table.says.promised_before) == (RETENTION, 86_400)
    assert table.says.promised_until == NOW + 86_400
    table.now += RETENTION
    assert table.opens(NEW) == Differs(table.says, until=NOW + 86_400)


def test_a_step_by_force_keeps_every_promise() -> None:
    """P8: nobody knows where the records are then."""
    table = Opened(OLD)
    table.opens(OLD, 86_400)
    table.shelf.run(layout.move(laid(CUTOVER, 60), now=NOW, forced=True))
    assert (table.says.promised, table.says.promised_before) == (86_400, 86_400)


def test_going_back_waits_for_the_longest_promise_too() -> None:
    """P8: for records in the new locations."""
    table = Opened(OLD)
    table.opens(PREPARE)
    table.opens(CUTOVER, 86_400)
    table.set(PREPARE)
    table.now += 86_399
    assert table.opens(OLD, 60) == Differs(table.says, until=NOW + 86_400)
    table.now += 1
    assert isinstance(table.opens(OLD, 60), Fits)


def test_a_longer_promise_is_one_conditional_write_that_moves_nothing() -> None:
    """P8: also by a store one phase behind; a shorter one, or one of the same length, writes nothing."""
    cutover = {**CUTOVER.description()}
    found = item(cutover, since=5.0, before=PREPARE.description(), changes=7, promised_before=RETENTION)
    for strategy, longest in ((PREPARE, (RETENTION, RETENTION + 1)), (CUTOVER, (RETENTION + 1, RETENTION))):
        played = play(layout.verify(laid(strategy, RETENTION + 1), now=NOW), Found(found), Applied())
        promises = dict(zip(("promised", "promised_before"), longest, strict=True))
        longer = item(cutover, since=5.0, before=PREPARE.description(), changes=8, **promises)
        assert played.operations == (Get(PLACE), Put(PLACE, longer, Unchanged(found)))
        for retention in (1, RETENTION):
            played = play(layout.verify(laid(strategy, retention), now=NOW), Found(found))
            assert played.operations == (Get(PLACE),)


def test_two_promises_at_once_leave_the_longer_one() -> None:
    """P8: the store whose write was refused looks again, and has nothing to add."""
    found, longer = item(SAID), item(SAID, changes=2, promised=3 * RETENTION)
    wanted = laid(OLD, 2 * RETENTION)
    played = play(layout.verify(wanted, now=NOW), Found(found), ConditionFailed(longer), Found(longer))
    assert [type(each) for each in played.operations] == [Get, Put, Get]
    assert played.outcome == Fits(TableLayout(description=SAID, since=NOW, changes=2, promised=3 * RETENTION))


def test_no_promise_is_lowered_or_lost_by_a_change_of_the_item() -> None:
    """P8: a step, a step back, another `Static` value, and even force."""
    table = Opened(OLD)
    table.opens(OLD, 86_400)
    changes: tuple[Callable[[], Verdict], ...] = (
        lambda: table.opens(PREPARE, 60),
        lambda: table.set(OLD, 60, promises=True),
        lambda: table.opens(Static("there"), 60),
        lambda: table.shelf.run(layout.move(laid(HashBuckets(9), 60), now=NOW, forced=True)),
    )
    for change in changes:
        assert isinstance(change(), Fits)
        assert table.says.promised == 86_400


def test_an_item_without_a_promise_waits_for_who_opens() -> None:
    """As before items had promises; the first store that opens the table adds its own."""
    found = TableLayout(description=CUTOVER.description(), since=NOW, before=PREPARE.description())
    for retention in (60, 86_400):
        assert layout.judge(found, laid(NEW, retention), now=NOW) == Differs(found, until=NOW + retention)
    assert found.promised_until is None
    old = item(SAID, promised=None)
    played = play(layout.verify(laid(OLD), now=NOW), Found(old), Applied())
    assert played.operations == (Get(PLACE), Put(PLACE, item(SAID, changes=2), Unchanged(old)))


def test_a_table_whose_first_store_is_in_a_move_waits_for_its_retention() -> None:
    """P8: whoever used the table before has told nothing, so both strategies get that promise."""
    table = Opened(CUTOVER)
    assert (table.says.promised, table.says.promised_before) == (RETENTION, RETENTION)
    assert table.opens(NEW, 60) == Differs(table.says, until=NOW + RETENTION)


def test_the_command_promises_only_what_it_is_given() -> None:
    """P8: for stores that do not verify their layout, and so write nothing."""
    table = Opened(OLD)
    table.set(OLD, 86_400)
    assert table.says.promised == RETENTION
    table.set(OLD, 86_400, promises=True)
    assert (table.says.promised, table.says.promised_before) == (86_400, None)
    for phase in (PREPARE, CUTOVER):
        table.opens(phase)
    table.set(CUTOVER, 90_000, promises=True)
    assert (table.says.promised, table.says.promised_before) == (90_000, 90_000), "for nodes of both phases"
    fresh = play(layout.move(laid(OLD, promises=False), now=NOW), Found(None), Applied())
    assert fresh.outcome == Fits(TableLayout(description=SAID, since=NOW))


def test_the_command_moves_a_phase_at_a_time() -> None:
    """And refuses any other strategy, too."""
    table = Opened(OLD)
    for far in (CUTOVER, NEW, HashBuckets(8)):
        assert isinstance(table.set(far), Differs)
    assert isinstance(table.set(PREPARE), Fits)


def test_phases_of_two_moves_do_not_mix() -> None:
    """P4: each move has its own locations."""
    table = Opened(PREPARE)
    assert isinstance(table.opens(Reshard(OLD, HashBuckets(8), "prepare")), Differs)
    assert isinstance(table.opens(Reshard(NEW, OLD, "cutover")), Differs)


@pytest.mark.parametrize(
    "broken",
    [
        {"d": {"S": '{"layout": {"strategy": "Static", "value": "here"}, "since": 1, "before": null, "beside": 5}'}},
        {"d": {"S": '{"layout": {"strategy": "Static", "value": "here"}, "since": NaN, "before": null}'}},
        {"d": {"S": '{"layout": {"strategy": "Static", "value": "here"}, "since": 1, "before": null, "promised": ""}'}},
        {
            "d": {
                "S": '{"layout": {"strategy": "Static", "value": "here"}, "since": 1, "before": null, "promised": NaN}'
            }
        },
        {},
        {"d": {"S": "no JSON"}},
        {"d": {"S": "[]"}},
        {"f": {"N": "x"}},
        {"f": {"S": ""}},
    ],
)
def test_an_item_that_says_nothing_is_an_error(broken: dict[str, Any]) -> None:
    """It is not overwritten."""
    found = {**PLACE.item, **broken} if not broken else {**item(SAID), **broken}
    with pytest.raises(ConfigurationError, match="does not name a strategy"):
        play(layout.verify(laid(OLD), now=NOW), Found(found))


STRATEGIES: dict[str, Partitioning] = {
    "Static(value='here')": OLD,
    "HashBuckets(n=4, prefix='idempotency')": NEW,
    "RandomBuckets(n=8, choices=2, prefix='p')": RandomBuckets(8, prefix="p"),
    "TimeBuckets(window=600.0, buckets=32, prefix='idempotency', retention=7200.0)": TimeBuckets(600, retention=7200),
    f"CustomPartition(function='{__name__}.laid', elsewhere=None)": CustomPartition(laid),  # type: ignore[arg-type]
    "Reshard(old=Static(value='here'), new=HashBuckets(n=4, prefix='idempotency'), phase='cutover')": CUTOVER,
}


@pytest.mark.parametrize("spelled", STRATEGIES)
def test_a_layout_is_spelled_as_the_call_that_makes_it(spelled: str) -> None:
    """What the error and `layout show` print; it survives the table's JSON."""
    described = STRATEGIES[spelled].description()
    assert layout.as_code(described) == spelled
    assert json.loads(json.dumps(described)) == described


def test_windows_that_look_back_otherwise_are_another_layout() -> None:
    """A store that looks back less far misses records of one that looks back further."""
    one, other = (TimeBuckets(600).bound(Terms(retention=each)).description() for each in (3600, 7200))
    assert one != other


def test_advice_names_the_way() -> None:
    """P5: `Reshard`, or the instant from which the store may open."""
    found = TableLayout(description=SAID, since=NOW)
    assert "Reshard(old, new, phase)" in layout.advice(Differs(found))
    assert "until the epoch second 1700003600" in layout.advice(Differs(found, until=NOW + RETENTION))


def test_a_verdict_keeps_the_tables_word() -> None:
    """What is shown is what was found."""
    found = TableLayout(description=SAID, since=NOW)
    assert layout.judge(found, laid(OLD), now=NOW) == Fits(found)
    assert layout.judge(replace(found, since=0.0), laid(NEW), now=NOW) == Differs(replace(found, since=0.0))
