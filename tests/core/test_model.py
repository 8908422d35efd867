"""Values say what they mean, cannot be changed, and hide what must not be logged."""

import copy
import dataclasses
import pickle
import pprint
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from rich.pretty import pretty_repr

from aioidempotency import Execution
from aioidempotency._core.model import (
    AttributeNames,
    Lease,
    Location,
    Record,
    SerializedResult,
    Status,
    Table,
    check_names,
)
from aioidempotency.exceptions import ConfigurationError
from tests.core.playing import NOW, PLACE, RENAMED, RENAMED_PLACE, SIMPLE, held

RECORD = Record(key="shop#1234", status=Status.INPROGRESS, expiration=NOW)


def test_statuses_are_spelled_as_powertools_spells_them() -> None:
    """A record that Powertools reads has exactly these texts."""
    assert [status.value for status in Status] == ["INPROGRESS", "COMPLETED"]


def test_attributes_are_called_by_default_what_powertools_calls_them() -> None:
    """The default names are part of the table's format."""
    assert SIMPLE.names == {
        "key": "id",
        "status": "status",
        "expiration": "expiration",
        "in_progress_expiration": "in_progress_expiration",
        "data": "data",
        "validation": "validation",
        "owner": "owner",
        "fencing_token": "fencing_token",
        "encoding": "encoding",
        "claimed_by": "claimed_by",
        "freed_by": "freed_by",
        "result_class": "result_class",
    }


def test_every_attribute_can_be_renamed() -> None:
    """Each role has its own name, and the sort key is listed where there is one."""
    assert RENAMED.names == {
        "key": "part",
        "sort": "sort",
        "status": "s",
        "expiration": "e",
        "in_progress_expiration": "ipe",
        "data": "d",
        "validation": "v",
        "owner": "o",
        "fencing_token": "f",
        "encoding": "c",
        "claimed_by": "cb",
        "freed_by": "fb",
        "result_class": "rc",
    }


def test_two_attributes_of_one_name_are_refused() -> None:
    """The message names what was given twice, and nothing else."""
    with pytest.raises(ConfigurationError, match=r"^two attributes have one name: data, owner; give each its own$"):
        check_names(["owner", "data", "status", "data", "owner"])


def test_attribute_names_refuse_a_name_given_twice() -> None:
    """Renaming one attribute to another's name would make one of them overwrite the other."""
    with pytest.raises(ConfigurationError, match="one name: status"):
        AttributeNames(owner="status")


@pytest.mark.parametrize("names", [("data", None), ("id", "status"), ("same", "same")])
def test_a_table_refuses_a_key_that_is_named_like_another_attribute(names: tuple[str, str | None]) -> None:
    """The key's attributes count, too."""
    with pytest.raises(ConfigurationError, match="one name"):
        Table("records", *names, AttributeNames())


@pytest.mark.parametrize("name", ["", None, 5])
def test_names_that_are_no_text_are_refused(name: str) -> None:
    """An attribute needs a name."""
    with pytest.raises(ConfigurationError, match="a text that is not empty"):
        AttributeNames(data=name)


def test_the_key_of_a_simple_table_is_its_partition_value() -> None:
    """There is one key attribute, and it holds the key."""
    assert PLACE.key == "shop#1234"
    assert PLACE.item == {"id": {"S": "shop#1234"}}


def test_the_key_of_a_composite_table_is_its_sort_value() -> None:
    """The partition value is where the record lives, and no part of its key."""
    assert RENAMED_PLACE.key == "shop#1234"
    assert RENAMED_PLACE.item == {"part": {"S": "bucket#7"}, "sort": {"S": "shop#1234"}}


def test_a_place_never_names_an_attribute_that_its_table_does_not_have() -> None:
    """Sort attribute and sort value come together, or not at all."""
    assert Location(table=SIMPLE, partition="a", sort="b").item == {"id": {"S": "a"}}
    assert Location(table=RENAMED, partition="a").item == {"part": {"S": "a"}}


def test_a_lease_ends_in_seconds() -> None:
    """Milliseconds stay inside the record's one attribute."""
    record = Record(key="k", status=Status.INPROGRESS, expiration=NOW, in_progress_expiration=1_700_000_060_500.0)
    assert record.lease_ends_at == 1_700_000_060.5


def test_a_record_without_a_lease_has_no_end_of_one() -> None:
    """Powertools writes such records where it does not know the remaining time."""
    assert RECORD.lease_ends_at is None


def test_a_lease_knows_its_key() -> None:
    """It is the key of the location where the record lives."""
    assert held().key == "shop#1234"


def test_a_record_tells_nothing_of_its_result() -> None:
    """U3: what a record holds does not get into a log by its `repr`."""
    record = Record(key="k", status=Status.COMPLETED, expiration=NOW, data="canary", result="canary")
    assert "canary" not in repr(record)
    assert "canary" not in repr(SerializedResult("canary"))


def test_a_record_and_a_lease_tell_nobody_who_claimed() -> None:
    """U3: host names are for whoever looks for them, and get into no log."""
    record = Record(key="k", status=Status.INPROGRESS, expiration=NOW, claimed_by="canary", freed_by="canary")
    assert "canary" not in repr(record)
    assert "canary" not in repr(held(claimed_by="canary", freed_by="canary"))


def test_a_lease_tells_its_owner_and_not_its_place() -> None:
    """The location would repeat the names of all attributes."""
    assert "location" not in repr(held())
    assert "owner='me'" in repr(held())


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (SIMPLE, "name"),
        (PLACE, "sort"),
        (RECORD, "owner"),
        (held(), "owner"),
        (SerializedResult("1"), "data"),
        (AttributeNames(), "data"),
    ],
)
def test_values_cannot_be_changed(value: object, field: str) -> None:
    """Whoever holds a value can trust it."""
    with pytest.raises(AttributeError):
        setattr(value, field, "other")


@pytest.mark.parametrize("value", [RECORD, held()], ids=["record", "lease"])
@pytest.mark.parametrize("field", ["owner", "unknown"])
def test_records_and_leases_refuse_a_change_as_frozen_dataclasses_do(value: object, field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match=field):
        setattr(value, field, "other")
    with pytest.raises(dataclasses.FrozenInstanceError, match=field):
        delattr(value, field)


STORED = Record(key="k", status=Status.COMPLETED, expiration=NOW, owner="me", data="canary", result={"at": "canary"})


def test_records_and_leases_pass_for_dataclasses() -> None:
    """Whoever is told that a value is a dataclass reads the types and the defaults of its fields next."""
    required, kinds = {}, (Record, Lease)
    assert all(map(dataclasses.is_dataclass, kinds))
    for kind in kinds:
        described = dataclasses.fields(kind)
        assert {each.name: each.type for each in described} == {
            name: kind.__annotations__[name] for name in kind.__struct_fields__
        }
        required[kind] = [each.name for each in described if each.default is dataclasses.MISSING]
    assert required[Record] == ["key", "status", "expiration"]
    assert required[Lease][-1] == "retention"
    assert dataclasses.replace(STORED, owner=None) == Record(**{**dataclasses.asdict(STORED), "owner": None})


@pytest.mark.parametrize("printed", [pprint.pformat, pretty_repr])
@pytest.mark.parametrize("value", [STORED, held(claimed_by="canary"), Execution("k", record=STORED, result="canary")])
def test_pretty_printers_show_no_more_than_repr(value: object, printed: Callable[[object], str]) -> None:
    """U3: pprint asks for a dataclass's parameters, and rich would show all fields of a Struct, in tracebacks, too."""
    assert "k" in printed(value)
    assert "canary" not in printed([value])


@pytest.mark.parametrize("value", [STORED, held()])
def test_records_and_leases_can_be_copied_and_pickled(value: object) -> None:
    """A lease may be taken to another process to be completed there."""
    for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert made == value
        assert type(made) is type(value)


def test_a_model_may_have_a_record() -> None:
    """FastAPI and pydantic read and write a record as any dataclass: in an answer, and in a stored result."""

    class Page(pydantic.BaseModel):
        record: Record

    page = Page(record=STORED)
    assert page.record is STORED
    assert Page.model_validate_json(page.model_dump_json()) == page
    with pytest.raises(pydantic.ValidationError, match="expiration"):
        Page.model_validate({"record": {"key": "k", "status": "COMPLETED"}})
    schemas: Any = [Page.model_json_schema(mode=mode) for mode in ("validation", "serialization")]
    for schema in schemas:
        assert schema["$defs"]["Record"]["properties"]["owner"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
