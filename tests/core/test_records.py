"""Items are written as Powertools for Python writes them, and read whoever wrote them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._core import model
from aioidempotency._core.model import AttributeValue, Item, Record, SerializedResult, Status
from aioidempotency.exceptions import ConfigurationError
from tests.core.playing import NOW, PLACE, RENAMED_PLACE, done, held, stored


def _with(role: str, value: AttributeValue) -> Item:
    return {**done(PLACE), role: value}


def test_a_running_record_is_written_like_powertools_does() -> None:
    """Seconds, milliseconds and texts, with our owner and token beside them."""
    assert model.running(held(location=PLACE, fingerprint="print")) == {
        "id": {"S": "shop#1234"},
        "status": {"S": "INPROGRESS"},
        "expiration": {"N": "1700003600"},
        "in_progress_expiration": {"N": "1700000060000"},
        "validation": {"S": "print"},
        "owner": {"S": "me"},
        "fencing_token": {"N": "1700000000000"},
    }


def test_a_finished_record_is_written_like_powertools_does() -> None:
    """It has data, its own expiration, and the end of the lease stays on it."""
    assert model.finished(held(), SerializedResult('{"a": 1}'), expiration=1_700_007_200) == {
        "part": {"S": "bucket#7"},
        "sort": {"S": "shop#1234"},
        "s": {"S": "COMPLETED"},
        "e": {"N": "1700007200"},
        "ipe": {"N": "1700000060000"},
        "d": {"S": '{"a": 1}'},
        "o": {"S": "me"},
        "f": {"N": "1700000000000"},
    }


def test_a_completion_changes_status_expiration_and_data_only() -> None:
    """Plain JSON has no encoding, so that Powertools reads it."""
    assert model.completed(SerializedResult("1"), expiration=5) == {
        "status": {"S": "COMPLETED"},
        "expiration": {"N": "5"},
        "data": {"S": "1"},
    }


def test_a_completion_names_the_encoding_of_what_is_no_plain_json() -> None:
    """A reader must know what it reads."""
    assert model.completed(SerializedResult("", "tombstone"), expiration=5) == {
        "status": {"S": "COMPLETED"},
        "expiration": {"N": "5"},
        "data": {"S": ""},
        "encoding": {"S": "tombstone"},
    }


def test_a_completion_names_the_class_of_the_result_where_the_annotation_does_not() -> None:
    """C4: beside the result, and in an item written as a whole; it is read back."""
    result = SerializedResult("1", None, "shop.Receipt")
    assert model.completed(result, expiration=5) == {
        "status": {"S": "COMPLETED"},
        "expiration": {"N": "5"},
        "data": {"S": "1"},
        "result_class": {"S": "shop.Receipt"},
    }
    item = model.finished(held(), result, expiration=5)
    assert item["rc"] == {"S": "shop.Receipt"}
    assert model.Finished(held(), result, 5).record == model.parse(item, RENAMED_PLACE)
    assert model.parse(item, RENAMED_PLACE).result_class == "shop.Receipt"


def test_a_renewal_changes_both_ends_only() -> None:
    """The lease's end in milliseconds, the record's in seconds."""
    assert model.renewed(held(expires_at=5.0, expiration=7)) == {
        "in_progress_expiration": {"N": "5000"},
        "expiration": {"N": "7"},
    }


@pytest.mark.parametrize(("instant", "written"), [(NOW, 1_700_000_000_000), (0.0014, 1), (0.0016, 2), (1.0, 1000)])
def test_milliseconds_are_rounded(instant: float, written: int) -> None:
    """A float's last digit must not cost a millisecond."""
    assert model.milliseconds(instant) == written


def test_a_record_is_read_whole() -> None:
    """Every attribute gets to its field, whatever the table calls it."""
    item = done(validation="print", encoding="zlib", claimed_by="a host", freed_by="somebody")
    assert model.parse(item, RENAMED_PLACE) == Record(
        key="shop#1234",
        status=Status.COMPLETED,
        expiration=1_700_003_590.0,
        in_progress_expiration=1_700_000_050_000.0,
        owner="other",
        fencing_token=1_699_999_990_000,
        fingerprint="print",
        encoding="zlib",
        claimed_by="a host",
        freed_by="somebody",
        data='"first"',
    )


@pytest.mark.parametrize("value", [None, 5])
def test_a_label_of_another_kind_is_ignored(value: int | None) -> None:
    """C21: no call depends on what is there for people; another application may call an attribute so."""
    record = model.parse(done(claimed_by=value, freed_by=value), RENAMED_PLACE)
    assert (record.claimed_by, record.freed_by) == (None, None)


def test_who_freed_a_key_may_be_unknown() -> None:
    """C21: that somebody did counts; a store without a label says so with an empty text."""
    assert model.parse(stored(freed_by=""), RENAMED_PLACE).freed_by == ""


def test_an_items_labels_are_the_leases() -> None:
    """C21: who claimed, and who freed the key from an earlier owner."""
    lease = held(claimed_by="a host", freed_by="somebody")
    for item in (model.running(lease), model.finished(lease, SerializedResult("1"), expiration=5)):
        assert (item["cb"], item["fb"]) == ({"S": "a host"}, {"S": "somebody"})
    record = model.Finished(lease, SerializedResult("1"), 5).record
    assert record == model.parse(model.finished(lease, SerializedResult("1"), expiration=5), RENAMED_PLACE)


def test_a_vacant_record_is_nobodys() -> None:
    """C21: it runs, by a lease that is over by every clock; it has no fingerprint, so any request takes it over."""
    item = model.vacant(PLACE, owner="other", fencing_token=8, expiration=1_700_003_600, freed_by="somebody")
    assert item == {
        "id": {"S": "shop#1234"},
        "status": {"S": "INPROGRESS"},
        "in_progress_expiration": {"N": "0"},
        "expiration": {"N": "1700003600"},
        "owner": {"S": "other"},
        "fencing_token": {"N": "8"},
        "freed_by": {"S": "somebody"},
    }
    assert model.parse(item, PLACE).vacant
    assert not model.parse(stored(PLACE), PLACE).vacant
    assert not model.parse(done(PLACE, in_progress_expiration=0), PLACE).vacant


def test_the_least_that_is_a_record_is_read() -> None:
    """Powertools writes no owner and no token, and often no lease."""
    item = stored(PLACE, in_progress_expiration=None, owner=None, fencing_token=None)
    assert model.parse(item, PLACE) == Record(key="shop#1234", status=Status.INPROGRESS, expiration=1_700_003_590.0)


@pytest.mark.parametrize("role", ["owner", "validation", "encoding"])
@pytest.mark.parametrize("value", [{"S": ""}, {"NULL": True}])
def test_an_empty_text_and_a_null_count_as_missing(role: str, value: AttributeValue) -> None:
    """Java and .NET write such attributes instead of none."""
    record = model.parse(_with(role, value), PLACE)
    assert getattr(record, "fingerprint" if role == "validation" else role) is None


@pytest.mark.parametrize(("role", "read"), [("in_progress_expiration", None), ("fencing_token", 0)])
def test_a_number_that_is_null_counts_as_missing(role: str, read: int | None) -> None:
    """A lease without an end, a token before all others."""
    assert getattr(model.parse(_with(role, {"NULL": True}), PLACE), role) == read


def test_an_expiration_may_have_a_fraction() -> None:
    """Powertools for TypeScript has written such."""
    assert model.parse(_with("expiration", {"N": "1700003590.25"}), PLACE).expiration == 1_700_003_590.25


def test_attributes_that_nobody_knows_are_ignored() -> None:
    """A later version may write more."""
    assert model.parse(_with("shoe_size", {"B": b"43"}), PLACE) == model.parse(done(PLACE), PLACE)


@pytest.mark.parametrize(
    ("native", "text"),
    [
        ({"S": '{"a": 1}'}, '{"a": 1}'),
        ({"S": "no JSON"}, "no JSON"),
        ({"S": ""}, ""),
        ({"N": "0"}, "0"),
        ({"N": "12345678901234567890.12345"}, "12345678901234567890.12345"),
        ({"BOOL": True}, "true"),
        ({"BOOL": False}, "false"),
        ({"NULL": True}, "null"),
        ({"NS": ["1", "2.50"]}, "[1, 2.50]"),
        ({"SS": ["b", "é"]}, '["b", "\\u00e9"]'),
        ({"SS": {"b"}}, '["b"]'),
        ({"L": []}, "[]"),
        ({"L": [{"N": "1"}, {"S": "x"}, {"NULL": True}]}, '[1, "x", null]'),
        ({"M": {}}, "{}"),
        (
            {"M": {'a"': {"L": [{"M": {"b": {"BOOL": True}}}]}, "c": {"N": "1.50"}}},
            '{"a\\"": [{"b": true}], "c": 1.50}',
        ),
    ],
)
def test_data_is_read_whatever_its_type(native: AttributeValue, text: str) -> None:
    """Powertools' sisters store text that is no JSON, or native attributes; numbers keep their digits."""
    assert model.parse(_with("data", native), PLACE).data == text


@pytest.mark.parametrize(
    ("role", "value", "trouble"),
    [
        ("data", {"L": 5}, "has no form that DynamoDB has"),
        ("status", {}, "has no type, or several"),
        ("owner", {"S": "a", "N": "1"}, "has no type, or several"),
    ],
)
def test_a_value_that_dynamodb_does_not_have_is_told(role: str, value: AttributeValue, trouble: str) -> None:
    """O24: a damaged item, or a backend of one's own."""
    with pytest.raises(ConfigurationError, match=trouble):
        model.parse(_with(role, value), PLACE)


def test_a_record_without_data_has_none() -> None:
    """A running record has no result yet, which is not the result `null`."""
    assert model.parse(stored(PLACE), PLACE).data is None


@pytest.mark.parametrize(
    ("item", "trouble"),
    [
        (stored(status=None), "'s' is missing"),
        (stored(status=""), "'s' is missing"),
        (stored(status="EXPIRED"), "'s' is neither INPROGRESS nor COMPLETED"),
        (stored(status=5), "'s' has the type N and should have S"),
        (stored(expiration=None), "'e' is missing"),
        (stored(expiration="soon"), "'e' has the type S and should have N"),
        (stored(in_progress_expiration="soon"), "'ipe' has the type S and should have N"),
        (stored(owner=5), "'o' has the type N and should have S"),
        (stored(fencing_token="x"), "'f' has the type S and should have N"),
        (stored(validation=5), "'v' has the type N and should have S"),
        (stored(encoding=5), "'c' has the type N and should have S"),
        ({**stored(), "o": {"S": 5}}, "'o' has the type S and should have S"),
        ({**stored(), "s": {"B": b"COMPLETED"}}, "'s' has the type B and should have S"),
    ],
)
def test_an_item_that_is_no_record_is_refused(item: Item, trouble: str) -> None:
    """The message names key, table and attribute, says that nothing was overwritten, and shows no value."""
    with pytest.raises(ConfigurationError) as caught:
        model.parse(item, RENAMED_PLACE)
    assert str(caught.value) == (
        "the item 'shop#1234' of table 'renamed' is not an idempotency record: its attribute "
        f"{trouble}. Nothing was overwritten; check the table's name and attributes=AttributeNames(...)"
    )


@given(
    token=st.integers(0, 2**45),
    ends=st.integers(0, 2**45),
    expiration=st.integers(0, 2**33),
    fingerprint=st.none() | st.text(min_size=1, max_size=5),
)
@settings(max_examples=20, deadline=None)
def test_what_is_written_is_read_again(token: int, ends: int, expiration: int, fingerprint: str | None) -> None:
    """A lease loses nothing on its way into the table and back."""
    lease = held(fencing_token=token, expires_at=ends / 1000, expiration=expiration, fingerprint=fingerprint)
    record = model.parse(model.running(lease), RENAMED_PLACE)
    assert (record.status, record.owner, record.fencing_token) == (Status.INPROGRESS, "me", token)
    assert (record.in_progress_expiration, record.expiration, record.fingerprint) == (ends, expiration, fingerprint)
    assert isinstance(record.fencing_token, int)


@pytest.mark.parametrize("fingerprint", [None, "print"])
@pytest.mark.parametrize("result", [SerializedResult("1"), SerializedResult("", "tombstone")])
def test_the_record_of_a_completion_is_the_one_that_a_reader_finds(
    result: SerializedResult, fingerprint: str | None
) -> None:
    """It is made without the detour over an item, and must not differ."""
    lease = held(fencing_token=7, fingerprint=fingerprint)
    found = model.parse(model.finished(lease, result, expiration=5), RENAMED_PLACE)
    assert model.Finished(lease, result, 5).record == found


def test_the_size_of_an_item_counts_names_and_values_in_bytes() -> None:
    """DynamoDB's limit counts UTF-8 bytes, attribute names included."""
    assert model.size({"id": {"S": "é"}, "ä": {"S": "12345"}, "n": {"N": "100"}}) == (2 + 2) + (2 + 5) + (1 + 3)
    assert model.size({}) == 0
