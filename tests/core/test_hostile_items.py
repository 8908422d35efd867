"""O24: whatever a table holds, only the library's own errors come of it, in bounded memory."""

import base64
import tracemalloc
import zlib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import (
    AsyncIdempotencyStore,
    Codec,
    ConfigurationError,
    IdempotencyError,
    JsonCodec,
    ResultUnavailableError,
    SerializationError,
)
from aioidempotency import _results as results
from aioidempotency._core import model
from aioidempotency._core.model import AttributeValue, Item, Record, SerializedResult, Status
from aioidempotency._core.operations import ConditionFailed
from aioidempotency._core.protocol import claim
from aioidempotency._effects import ids
from aioidempotency._result_types import ResultType
from tests.core.playing import NOW, RENAMED_PLACE, attempt, done, held, play, stored

LARGEST = 2**53 - 1


@dataclass
class Receipt:
    number: int


ANYTHING = ResultType(Any, JsonCodec())


def written(result: object, codec: Codec, *, compress_over: int | None) -> SerializedResult:
    settings = AsyncIdempotencyStore.in_memory(codec=codec, compress_over=compress_over)._parts.settings
    return results.serialize(result, held(), settings, ResultType(Any, codec), lambda event: None)


def finished(data: str, encoding: str | None = None) -> Record:
    return Record(key="shop#1234", status=Status.COMPLETED, expiration=NOW, data=data, encoding=encoding)


def compressed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text, 9)).decode()


@pytest.mark.parametrize("attribute", ["f", "e", "ipe"])
@pytest.mark.parametrize(
    "number", ["9.9E125", "-1", "9007199254740992", "-9.9E125", "1E400", "NaN", "Infinity", "x", ""]
)
def test_numbers_that_nobody_writes_are_refused(attribute: str, number: str) -> None:
    """A fencing token of 9.9E125 has no successor: each take-over would be a `ValidationException`."""
    item = {**stored(), attribute: {"N": number}}
    with pytest.raises(ConfigurationError, match=f"'shop#1234' of table 'renamed' .* '{attribute}' .*delete the item"):
        play(claim(attempt()), ConditionFailed(item))


@pytest.mark.parametrize("attribute", ["f", "e", "ipe"])
@pytest.mark.parametrize("number", ["0", str(LARGEST), "1700000000.5", "1.7E9"])
def test_numbers_within_bounds_are_read(attribute: str, number: str) -> None:
    """And the largest fencing token still has a successor that differs."""
    record = model.parse({**stored(), attribute: {"N": number}}, RENAMED_PLACE)
    assert (
        float(number) in {record.expiration, record.in_progress_expiration, float(record.fencing_token)}
        or "." in number
    )
    assert int(float(str(LARGEST + 1))) > LARGEST


def test_a_compressed_result_of_200_mb_is_not_unpacked() -> None:
    """A record of 260 KB: memory stays at the bound, and the error says why there is no result."""
    record = finished(compressed(b"[" + b" " * (200 * 1024 * 1024) + b"]"), "zlib")
    tracemalloc.start()
    try:
        with pytest.raises(ResultUnavailableError, match="more than 32 MiB"):
            results.decode(record, ANYTHING)
        assert tracemalloc.get_traced_memory()[1] < 80 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_result_is_not_stored_that_would_not_be_read() -> None:
    """Else replays would fail for good: its record becomes a tombstone, as any other too large one's."""
    fits = "a" * (results.LARGEST_TEXT - 2)
    encoded = written(fits, JsonCodec(), compress_over=1)
    assert results.decode(finished(encoded.data, encoded.encoding), ANYTHING) == fits
    with pytest.raises(SerializationError, match=f"the result cannot hold a text of {results.LARGEST_TEXT + 1} bytes"):
        written(fits + "a", JsonCodec(), compress_over=1)


class Plain:
    """A codec that gives what it is given."""

    def encode(self, result: Any) -> Any:
        """As it is."""
        return result

    def decode(self, text: str, result_type: object) -> object:
        """As it is."""
        return text


@pytest.mark.parametrize("result", ["\udcff", 5, b"bytes", None])
@pytest.mark.parametrize("compress_over", [None, 0])
def test_a_codec_that_gives_no_text_stores_nothing(result: object, compress_over: int | None) -> None:
    """Half a character would be refused by the wire, with every result that goes out in the same batch."""
    with pytest.raises(SerializationError):
        written(result, Plain(), compress_over=compress_over)


@pytest.mark.parametrize("encoding", ["zlib", None, "error", "brotli", "x" * 400_000])
@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000, "\ud800", "\ud800[", "canary"])
def test_a_damaged_result_is_unavailable(data: str, encoding: str | None) -> None:
    with pytest.raises(IdempotencyError) as told:
        results.decode(finished(data, encoding), ResultType(Receipt, JsonCodec()))
    assert "canary" not in str(told.value)
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("cut", [4, 12, 100])
def test_compressed_data_that_ends_early_is_damaged(cut: int) -> None:
    whole = zlib.compress(b"[" + b"1, " * 1000 + b"1]")
    with pytest.raises(ResultUnavailableError, match="compressed data is damaged"):
        results.decode(finished(base64.b64encode(whole[:-cut]).decode(), "zlib"), ANYTHING)


def test_native_data_is_read_to_any_depth_that_dynamodb_has() -> None:
    """It has 32 levels. A backend of one's own may have more, and then the item is no record."""
    deep: AttributeValue = {"N": "1"}
    for _ in range(32):
        deep = {"L": [{"M": {"a": deep}}]}
    record = model.parse({**done(), "d": deep}, RENAMED_PLACE)
    assert record.data is not None
    assert results.decode(record, ANYTHING)
    for _ in range(5_000):
        deep = {"L": [deep]}
    with pytest.raises(ConfigurationError, match=r"its attribute 'd' is nested too deeply"):
        model.parse({**done(), "d": deep}, RENAMED_PLACE)


@pytest.mark.parametrize("expiration", [{"S": "soon"}, {"N": "9.9E125"}, {"N": "-1"}, {"N": "x"}, {}])
def test_an_id_with_a_strange_expiration_is_left_alone(expiration: AttributeValue) -> None:
    at = ids.location_of(RENAMED_PLACE.table, "shop", "1234")
    item: Item = {**at.item, "d": {"S": "id-1"}, "e": expiration}
    with pytest.raises(ConfigurationError, match="is not an id: its attribute 'e'"):
        play(ids.get_or_create(at, "id-2", now=NOW, expires_after=None), ConditionFailed(item))


TEXTS = st.text(max_size=20)
ODD_NUMBERS = st.one_of(st.floats().map(str), st.integers().map(str), st.decimals().map(str), TEXTS)
LEAVES = st.one_of(
    TEXTS.map(lambda text: {"S": text}),
    ODD_NUMBERS.map(lambda number: {"N": number}),
    st.binary(max_size=9).map(lambda data: {"B": data}),
    st.booleans().map(lambda flag: {"BOOL": flag}),
    st.just({"NULL": True}),
    st.lists(TEXTS, max_size=3).map(lambda texts: {"SS": texts}),
    st.lists(ODD_NUMBERS, max_size=3).map(lambda numbers: {"NS": numbers}),
    st.sets(st.binary(max_size=3), max_size=3).map(lambda data: {"BS": data}),
    st.just({}),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
    st.sampled_from([{"M": 5}, {"L": None}, {"L": 5}, {"M": [1]}, {"NS": 3}, {"S": 5}, {"N": None}, {"L": [5]}]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda members: {"L": members}),
        st.dictionaries(TEXTS, inner, max_size=3).map(lambda members: {"M": members}),
    ),
    max_leaves=8,
)
ITEMS = st.dictionaries(st.sampled_from(["s", "e", "ipe", "d", "v", "o", "f", "c", "other"]), VALUES)


@given(ITEMS, st.sampled_from([{}, stored(), done()]))
def test_whatever_is_under_a_key_is_a_record_or_a_configuration_error(strange: Item, item: Item) -> None:
    """And what is a record is judged, taken over and read without an error of another kind."""
    try:
        record = model.parse({**item, **strange}, RENAMED_PLACE)
    except ConfigurationError as error:
        assert "'shop#1234'" in str(error)  # noqa: PT017 - most items are records, and raise nothing
        return
    assert 0 <= record.fencing_token <= LARGEST
    try:
        results.decode(record, ANYTHING)
    except IdempotencyError:
        return


@dataclass
class Nested:
    members: list["Nested"]
    by_name: dict[str, int]


@given(
    st.one_of(
        TEXTS,
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
            lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
        ).map(lambda value: JsonCodec().encode(value) if _writable(value) else "NaN"),
        st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()),
        st.binary(max_size=40).map(compressed),
        st.integers(1, 3_000).map(lambda depth: "[" * depth + "]" * depth),
    ),
    st.one_of(st.sampled_from([None, "zlib", "error", "tombstone", ""]), TEXTS),
    st.sampled_from([Any, int, str, bytes, Receipt, Nested, dict[str, int], list[Receipt], tuple[int, str], None]),
)
def test_whatever_is_stored_as_a_result_is_read_or_unavailable(
    data: str, encoding: str | None, result_type: Any
) -> None:
    try:
        results.decode(finished(data, encoding), ResultType(result_type, JsonCodec()), (ValueError, LookupError))
    except (IdempotencyError, ValueError, LookupError) as error:
        assert isinstance(error, IdempotencyError) or encoding == "error"  # noqa: PT017 - most results are read


def _writable(value: object) -> bool:
    try:
        JsonCodec().encode(value)
    except SerializationError:
        return False
    return True
