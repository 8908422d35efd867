"""Key material that once made two requests one, or one request two."""

import base64
import gzip
from collections.abc import Callable

import pytest
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr

from aioidempotency import SerializationError
from aioidempotency._keys import canonical, is_missing
from aioidempotency._selection import selector


class Plain:
    """No dataclass, no model: an object like any other."""

    def __init__(self, tenant: object) -> None:
        self.tenant = tenant


class Tagged(BaseModel):
    tags: set[str]


class Secret(BaseModel):
    token: SecretStr


class Partly(BaseModel):
    model_config = ConfigDict(extra="allow")
    shown: int = 1
    hidden: int = Field(2, exclude=True)
    url: HttpUrl | None = None


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    plain: Plain
    raw: bytes = b""


def test_jmespath_looks_into_ordinary_objects() -> None:
    """C7: two tenants' services do not share a key, although neither is a dataclass."""
    select = selector("[self.tenant.name, number]")
    keys = [select({"self": Plain({"name": name}), "number": 1}) for name in ("anna", "bert")]
    assert keys == [["anna", 1], ["bert", 1]]


@pytest.mark.parametrize("expression", ["[self.tennant, number]", "self.*", "[self.tenant.nothing.x]"])
def test_jmespath_does_not_take_what_an_object_lacks_for_null(expression: str) -> None:
    """C15: a misspelt attribute would give all tenants one key."""
    arguments = {"self": Plain(Plain(1)), "number": 1}
    with pytest.raises(SerializationError, match="the path of an expression cannot hold Plain"):
        selector(expression)(arguments)


def test_selecting_an_ordinary_object_as_a_whole_is_refused_by_its_name() -> None:
    """C15: the object itself is no key."""
    found = selector("self")({"self": Plain(1)})
    with pytest.raises(SerializationError, match="Plain"):
        canonical(found)
    with pytest.raises(SerializationError, match="Plain"):
        canonical(selector("[self]")({"self": Plain(1)}))


@pytest.mark.parametrize("model", [Tagged(tags={"a"}), Secret(token=SecretStr("s3cret")), Odd(plain=Plain(1))])
def test_what_a_model_cannot_dump_faithfully_is_refused(model: BaseModel) -> None:
    """C15: a set has no order, and a secret is masked: both made wrong keys."""
    assert not is_missing(model)
    with pytest.raises(SerializationError) as refused:
        canonical(model)
    assert "s3cret" not in str(refused.value)


def test_bytes_in_a_model_are_refused_like_bytes_elsewhere() -> None:
    """C15: pydantic would decode them."""
    with pytest.raises(SerializationError, match="bytes"):
        canonical(Odd.model_construct(plain=None, raw=b"\xff"))


def test_excluded_and_extra_fields_of_a_model_count() -> None:
    """C5: two requests that differ in them are two."""
    assert canonical(Partly(hidden=2)) != canonical(Partly(hidden=3))
    assert canonical(Partly.model_validate({"more": 1})) != canonical(Partly.model_validate({"more": 2}))


def test_types_that_pydantic_alone_knows_are_dumped_by_it() -> None:
    """C5: a URL is its text."""
    assert canonical(Partly(hidden=2, url=HttpUrl("http://example.com/a"))) == (
        b'{"hidden": 2, "shown": 1, "url": "http://example.com/a"}'
    )


def test_two_names_that_become_one_are_refused() -> None:
    """C5: an enumeration's name and its text would overwrite each other."""
    from enum import Enum

    class Color(Enum):
        RED = "red"

    with pytest.raises(SerializationError, match="one name twice"):
        canonical({Color.RED: 1, "red": 2})


def test_damaged_gzip_is_refused() -> None:
    """C15: zlib's own error does not escape."""
    packed = bytearray(gzip.compress(b"hello world" * 20))
    packed[10] ^= 0xFF
    event = {"body": base64.b64encode(bytes(packed)).decode()}
    with pytest.raises(SerializationError, match="JMESPath"):
        selector("powertools_base64_gzip(body)")(event)


def test_a_class_is_no_key() -> None:
    """C15: a class has the methods of its objects, and is none of them."""
    types: list[Callable[..., object]] = [Partly, Plain]
    for each in types:
        with pytest.raises(SerializationError, match=r"type|ModelMetaclass"):
            canonical(each)
