"""Results that once replayed as something else."""

import collections
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import attrs
import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, computed_field

from aioidempotency import ConfigurationError, JsonCodec, SerializationError

CODEC = JsonCodec()
AN_ID = UUID(int=7)


class Secret(BaseModel):
    token: SecretStr


class Excluded(BaseModel):
    a: int
    b: int = Field(2, exclude=True)


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field
    def twice(self) -> int:
        return 2 * self.a


class Raw(BaseModel):
    payload: Json[list[int]]


@attrs.define
class Private:
    a: int
    _b: int = 3


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("result", "result_type"),
    [
        ({"a": [1]}, object),
        ({"a": 1}, dict[str, object]),
        ([1, None], list[object]),
        ([AN_ID], Iterable[UUID]),
        ([1], Sequence),
        ([1], Iterable),
        (collections.Counter("aab"), collections.Counter[str]),
        (OrderedDict(a=1), OrderedDict[str, int]),
        (defaultdict(int, a=1), defaultdict[str, int]),
        (deque([1, 2]), deque[int]),
        (Name("n"), Name),
        (Computed(a=1), Computed),
        (Raw(payload="[1, 2]"), Raw),  # type: ignore[arg-type] # pydantic reads JSON here
        (Excluded(a=1, b=2), Excluded),
    ],
)
def test_unusual_annotations_replay_as_they_say(result: object, result_type: Any) -> None:
    """C4: an annotation that is accepted is kept."""
    replayed = CODEC.decode(CODEC.encode(result), result_type)
    assert replayed == result
    if isinstance(result_type, type):
        assert isinstance(replayed, result_type)


@pytest.mark.parametrize("result", [Secret(token=SecretStr("s")), Excluded(a=1, b=5), [Secret(token=SecretStr("s"))]])
def test_a_model_that_would_not_come_back_equal_is_not_stored(result: object) -> None:
    """C4: a masked secret or a default in place of an excluded field is no replay."""
    with pytest.raises(SerializationError):
        CODEC.encode(result)


@pytest.mark.parametrize("result_type", [Private, list[Private], BaseModel])
def test_types_that_would_lose_something_are_refused_beforehand(result_type: Any) -> None:
    """C4: found when decorating, not at the first replay."""
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        CODEC.decoder(result_type)


@pytest.mark.parametrize("text", ["123", "true", "plain", '"quoted"', "null x"])
def test_a_raw_string_that_looks_like_json_is_text_where_text_is_expected(text: str) -> None:
    """Powertools for Java stores a String as it is."""
    assert CODEC.decode(text, str) == text.strip('"')
