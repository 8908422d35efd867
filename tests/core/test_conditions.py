"""A condition holds exactly when it should, in both of its readings."""

import pytest

from aioidempotency._core.conditions import (
    IDENTITY,
    Absent,
    Condition,
    HeldBy,
    Unchanged,
    expression,
    holds,
    requirements,
)
from aioidempotency._core.model import Item
from tests.core.playing import PLACE, RENAMED, RENAMED_PLACE, SIMPLE, done, stored

MINE = HeldBy("me")


def _holds(condition: Condition, item: Item | None) -> bool:
    return holds(condition, item, RENAMED)


def test_absent_holds_only_where_there_is_no_item() -> None:
    """A first claim is refused by whatever is there, even by an item that is no record."""
    assert _holds(Absent(), None)
    assert not _holds(Absent(), stored())
    assert not _holds(Absent(), RENAMED_PLACE.item)


def test_held_by_holds_for_the_owner_of_a_running_record() -> None:
    """The owner may renew, finish and give back."""
    assert _holds(MINE, stored(owner="me"))


@pytest.mark.parametrize("item", [stored(owner="other"), stored(owner=None), stored(owner=5), None])
def test_held_by_refuses_everyone_else(item: Item | None) -> None:
    """O4: neither another's record, nor one that Powertools wrote, nor nothing, is ours."""
    assert not _holds(MINE, item)


def test_held_by_refuses_the_owner_of_a_finished_record() -> None:
    """A release or a late completion never touches a finished record."""
    assert not _holds(MINE, done(owner="me"))


@pytest.mark.parametrize(("ends", "holds_here"), [(5000, True), (4999, False), (5001, False), (None, False)])
def test_held_by_until_refuses_a_lease_with_another_end(ends: int | None, holds_here: bool) -> None:
    """A delayed renewal does not shorten a lease that was renewed since."""
    assert _holds(HeldBy("me", 5000), stored(owner="me", in_progress_expiration=ends)) is holds_here


def test_held_by_until_is_held_by_all_the_same() -> None:
    """Owner and status count as without it; the beginning of time is an end like any other."""
    assert not _holds(HeldBy("me", 5000), stored(owner="other", in_progress_expiration=5000))
    assert not _holds(HeldBy("me", 5000), done(owner="me", in_progress_expiration=5000))
    assert not _holds(HeldBy("me", 0), stored(owner="me", in_progress_expiration=5000))


def test_held_by_refuses_a_record_without_a_status() -> None:
    """What does not say that it is running is not held."""
    assert not _holds(MINE, stored(owner="me", status=None))


def test_identity_is_owner_token_status_and_both_ends() -> None:
    """Owner and token alone would not notice a renewal or a completion."""
    assert set(IDENTITY) == {"owner", "fencing_token", "status", "expiration", "in_progress_expiration"}


@pytest.mark.parametrize("item", [stored(), done(), stored(owner=None, fencing_token=None), stored(PLACE)])
def test_unchanged_holds_for_the_item_that_was_seen(item: Item) -> None:
    """Also for one without an owner, which Powertools wrote."""
    table = SIMPLE if "id" in item else RENAMED
    assert holds(Unchanged(item), dict(item), table)


@pytest.mark.parametrize("role", ["status", "owner", "fencing_token", "expiration", "in_progress_expiration"])
def test_unchanged_notices_each_attribute_of_identity(role: str) -> None:
    """Changed, taken away, or added: the record is not the one that was seen."""
    changed = stored(**{role: "COMPLETED" if role == "status" else 17})
    missing = stored(**{role: None})
    assert not _holds(Unchanged(stored()), changed)
    assert not _holds(Unchanged(stored()), missing)
    assert not _holds(Unchanged(missing), stored())


@pytest.mark.parametrize("role", ["data", "validation", "encoding"])
def test_unchanged_looks_at_nothing_else(role: str) -> None:
    """Whoever writes these writes identity, too; comparing a large result would only cost."""
    assert _holds(Unchanged(stored()), stored(**{role: "text"}))


def test_unchanged_refuses_a_record_that_is_gone() -> None:
    """Nothing is not the record that was seen."""
    assert not _holds(Unchanged(stored()), None)


def test_numbers_are_equal_however_they_are_written() -> None:
    """DynamoDB compares numbers, not their digits."""
    seen = {**stored(), "e": {"N": "1700003590"}}
    assert _holds(Unchanged(seen), {**seen, "e": {"N": "1700003590.0"}})
    assert _holds(Unchanged(seen), {**seen, "e": {"N": "1.70000359E9"}})
    assert not _holds(Unchanged(seen), {**seen, "e": {"N": "1700003590.5"}})


def test_large_numbers_are_compared_exactly() -> None:
    """DynamoDB keeps 38 digits, more than a float does."""
    seen = {**stored(), "f": {"N": "90071992547409930"}}
    assert not _holds(Unchanged(seen), {**seen, "f": {"N": "90071992547409931"}})


def test_a_number_and_the_text_of_it_are_different() -> None:
    """As in DynamoDB, types never compare equal."""
    seen = {**stored(), "f": {"N": "5"}}
    assert not _holds(Unchanged(seen), {**seen, "f": {"S": "5"}})
    assert not _holds(Unchanged({**seen, "f": {"S": "5"}}), seen)


def test_texts_that_look_like_numbers_are_compared_as_texts() -> None:
    """An owner `1e1` is not the owner `10`."""
    assert not _holds(HeldBy("10"), stored(owner="1e1"))


def test_requirements_are_spelled_out_by_role() -> None:
    """One list serves both readings of a condition."""
    assert requirements(Absent(), RENAMED) == (("key", None),)
    assert requirements(MINE, RENAMED) == (("owner", {"S": "me"}), ("status", {"S": "INPROGRESS"}))
    assert requirements(HeldBy("me", 5), RENAMED) == (
        ("owner", {"S": "me"}),
        ("status", {"S": "INPROGRESS"}),
        ("in_progress_expiration", {"N": "5"}),
    )
    assert requirements(Unchanged(stored(owner=None)), RENAMED) == (
        ("status", {"S": "INPROGRESS"}),
        ("owner", None),
        ("fencing_token", {"N": "1699999990000"}),
        ("expiration", {"N": "1700003590"}),
        ("in_progress_expiration", {"N": "1700000050000"}),
    )


def test_expressions_name_placeholders_after_roles() -> None:
    """Every requirement counts, joined by AND."""
    assert expression((("key", False),)) == "attribute_not_exists(#key)"
    assert expression((("owner", True), ("status", True))) == "#owner = :owner AND #status = :status"
    assert expression((("status", True), ("owner", False))) == "#status = :status AND attribute_not_exists(#owner)"
