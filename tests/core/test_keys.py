"""What makes two calls the same call: pinned bytes, pinned digests, and what is refused."""

import hashlib
import json
import math
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._keys import canonical, digest, is_missing, record_key
from aioidempotency.exceptions import MissingKeyError, SerializationError
from tests.core.shapes import AttrsOrder, DataOrder, Empty, ModelOrder, StructOrder, Unknown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("material", "written", "sha256"),
    [
        (1, b"1", "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        (1.0, b"1.0", "d0ff5974b6aa52cf562bea5921840c032a860a91a3512f7fe8f768f6bbe005f6"),
        (True, b"true", "b5bea41b6c623f7c09f1bf24dcae58ebab3c0cdd90ad966bc43a45b44867e12b"),
        ("1", b'"1"', "391552c099c101b131feaf24c5795a6a15bc8ec82015424e0d2b4274a369a0bf"),
        (None, b"null", "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"),
        ({"b": 1, "a": 2}, b'{"a": 2, "b": 1}', "21501dbaf73f5223934d22283f01caff4132bc1de4a9550c1ed0dffeb397a323"),
        ({"k": "é"}, b'{"k": "\\u00e9"}', "cd98d4d64cd4794df4b701d7f3a0e740c0f4dd422428a1b774fb7823539e2ac7"),
        (
            {"a": [{"c": None, "b": (1, 2)}], "": {}},
            b'{"": {}, "a": [{"b": [1, 2], "c": null}]}',
            "699bb4b88b296a5736afe6cf16ccf0ccb7a5e86b7554e12bc9dadf44d66acbce",
        ),
        (["a", "b"], b'["a", "b"]', "3554d2b8a1e34099053865de8576d1460b807430ec8c6b85315c9607ba93d308"),
    ],
)
def test_canonical_bytes_and_digests_are_pinned(material: object, written: bytes, sha256: str) -> None:
    """C5: they are the table's format; another digest would run every key again."""
    assert canonical(material) == written
    assert digest(material) == sha256


@pytest.mark.parametrize(
    ("payload", "md5"),
    [
        ({"b": 1, "a": 2}, "5e4d14d82c320bafb2f1286fe486d1f8"),
        ({"a": 1}, "42b7b4f2921788ea14dac5566e6f06d0"),
        ({"k": "é"}, "2942ef53bb075210b2e0982c8680e66d"),
        ("abc", "ebd9f4c7b06cb0aaf5d13d80e49d8b90"),
        (0, "cfcd208495d565ef66e7dff9f98764da"),
        (False, "68934a3e9455fa72420237eb05902327"),
        (["a", "b"], "4634e4a13c478a704b0bf870577a31dd"),
        ({"a": Decimal("1.10")}, "7514bb8c33dcd06499d192a1648f2778"),
    ],
)
def test_the_canonical_form_is_that_of_powertools(payload: object, md5: str) -> None:
    """The digests that Powertools for Python 3.37.0 makes of the same payloads."""
    assert hashlib.md5(canonical(payload)).hexdigest() == md5


@given(material=JSON)
@settings(max_examples=25, deadline=None)
def test_plain_material_is_written_as_sorted_json(material: object) -> None:
    """Nothing is lost or added: what was written reads back as what was given."""
    assert canonical(material) == json.dumps(material, sort_keys=True).encode()
    assert json.loads(canonical(material)) == material


ANY_TEXT = st.text(st.characters(), max_size=8) | st.text(
    st.sampled_from('"\\/\x00\x1f\x7f\x80\u2028\uffff\U0001f600\ud83d\ude00\ud800'), max_size=4
)
"""Texts of all characters, and halves of surrogate pairs, which JSON escapes and UTF-8 does not have."""

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)


def _powertools(material: object) -> str:
    """The digest of the form that Powertools for Python writes."""
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


@given(text=ANY_TEXT)
@settings(max_examples=100)
def test_a_text_has_the_digest_of_its_json(text: str) -> None:
    """C5: the short way of the common key is no other key, by itself, in a subclass, or in a list."""
    assert digest(text) == _powertools(text) == digest(Text(text))
    assert digest([text]) == _powertools([text])
    if text:
        assert record_key(text, "", "shop.pay") == f"shop.pay#{_powertools(text)}"
        assert record_key(Text(text), "eu", "shop.pay") == f"eu#shop.pay#{_powertools(text)}"


@given(material=ANY_JSON)
@settings(max_examples=50)
def test_any_material_has_the_digest_of_its_sorted_json(material: object) -> None:
    """C5: with any text as a member's name."""
    assert digest(material) == _powertools(material)


class Colour(Enum):
    RED = "red"


def test_a_name_that_is_no_text_takes_no_short_way() -> None:
    """C5, C15: one that stands for a text has the text's key, and others are refused, whatever else is there."""
    others: list[dict[object, str]] = [{}, {"size": "s"}]
    for more in others:
        assert digest({Colour.RED: "x", **more}) == digest({"red": "x", **more})
        for name in (5, None, b"red", ("red",)):
            with pytest.raises(SerializationError, match="make its keys texts"):
                digest({name: "x", **more})


@pytest.mark.parametrize(
    "material", [None, "", {}, {"a": None}, {"a": None, "b": None}, (None,), DataOrder(None, None)]
)
def test_a_record_has_no_missing_key(material: object) -> None:
    """C8: on the short way, too."""
    with pytest.raises(MissingKeyError, match=r"shop\.pay"):
        record_key(material, "", "shop.pay")
    with pytest.raises(MissingKeyError, match="the key is"):
        record_key(material, "eu", "")


@given(mapping=st.dictionaries(st.text(max_size=3), JSON, max_size=6), data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_order_of_keys_does_not_matter(mapping: dict[str, object], data: st.DataObject) -> None:
    """C5: at any depth."""
    shuffled = dict(data.draw(st.permutations(list(mapping.items()))))
    assert canonical({"outer": [shuffled]}) == canonical({"outer": [mapping]})


@given(one=JSON, other=JSON)
@settings(max_examples=25, deadline=None)
def test_different_material_gives_different_keys(one: object, other: object) -> None:
    """Equal bytes mean equal JSON; `repr` tells `1`, `1.0` and `True` apart, where `==` does not."""
    if canonical(one) == canonical(other):
        assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    else:
        assert repr(one) != repr(other)


def test_types_are_told_apart() -> None:
    """C5: a text is no number, a number is no flag, and nothing is not an empty text."""
    materials: list[object] = [1, 1.0, True, "1", "true", None, "null", "", 0, False, [], {}, [1], {"1": 1}, "1.0"]
    assert len({canonical(material) for material in materials}) == len(materials)
    assert canonical({"a": 1}) != canonical({"a": "1"})


@pytest.mark.parametrize(
    ("material", "missing"),
    [
        (None, True),
        ("", True),
        ([], True),
        ((), True),
        ({}, True),
        ([None, None], True),
        ((None,), True),
        ({"a": None, "b": None}, True),
        (DataOrder(None, None), True),
        (AttrsOrder(None), True),
        (StructOrder(None), True),
        (ModelOrder(orderId=None), True),
        (Empty.NOTHING, True),
        (Empty.BLANK, True),
        (0, False),
        (0.0, False),
        (False, False),
        (" ", False),
        ([None, 0], False),
        ((None, ""), False),
        ([[]], False),
        ({"a": None, "b": False}, False),
        ({"a": {}}, False),
        (DataOrder("1", None), False),
        (StructOrder(0), False),
        (Decimal(0), False),
        (b"", False),
        (set(), False),
    ],
)
def test_what_counts_as_a_missing_key(material: object, missing: bool) -> None:
    """C8: None, empty, or nothing but None. `0` and `False` are keys; bytes and sets are refused later, clearly."""
    assert is_missing(material) is missing


_LOOP: list[Any] = ["canary"]
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    ("material", "message"),
    [
        (b"canary", "bytes: decode them, or take a digest of them"),
        (bytearray(b"canary"), "bytearray: decode them, or take a digest of them"),
        (memoryview(b"canary"), "memoryview: decode them, or take a digest of them"),
        ({"canary"}, "set: it has no order; sort it into a list"),
        (frozenset({"canary"}), "frozenset: it has no order; sort it into a list"),
        (Unknown(), "Unknown: select the fields that make the key, with key="),
        (ValueError("canary"), "ValueError: select the fields that make the key, with key="),
        (Unknown, "type: select the fields that make the key, with key="),
        (date, "type: select the fields that make the key, with key="),
        (DataOrder, "type: select the fields that make the key, with key="),
        (AttrsOrder, "type: select the fields that make the key, with key="),
        (ModelOrder, "ModelMetaclass: select the fields that make the key, with key="),
        (StructOrder, "StructMeta: select the fields that make the key, with key="),
        (math.nan, "NaN or an infinity: neither equals itself in JSON; leave it out"),
        (math.inf, "NaN or an infinity: neither equals itself in JSON; leave it out"),
        (-math.inf, "NaN or an infinity: neither equals itself in JSON; leave it out"),
        ({1: "canary"}, "a mapping with int keys: make its keys texts"),
        ({None: "canary"}, "a mapping with NoneType keys: make its keys texts"),
        ({("canary",): 1}, "a mapping with tuple keys: make its keys texts"),
        (_LOOP, "itself, or too many levels: select the part that is the key"),
    ],
)
@pytest.mark.parametrize("hold", [None, lambda value: {"a": [DataOrder("canary", value)]}, AttrsOrder, StructOrder])
def test_material_without_a_canonical_form_is_refused(
    material: object, message: str, hold: Callable[[object], object] | None
) -> None:
    """C15, U3: at any depth, by a message that names the type and shows no value."""
    with pytest.raises(SerializationError) as caught:
        canonical(material if hold is None else hold(material))
    assert str(caught.value) == f"the key material cannot hold {message}"


def test_a_refusal_names_what_held_the_value() -> None:
    """The same rules serve the fingerprint."""
    with pytest.raises(SerializationError, match=r"^the key material cannot hold "):
        digest(b"")
    for refused in (b"", math.nan, {1: 1}, _LOOP, {"a": {"b": b""}}, [b""]):
        with pytest.raises(SerializationError, match=r"^the fingerprint cannot hold "):
            digest(refused, subject="the fingerprint")
