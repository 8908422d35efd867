"""The key in the header, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency._http.requests import LONGEST_KEY, InvalidKey, read_key

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'"abc"', "abc"),
        (b"abc", "abc"),
        (b' \t"abc"\t ', "abc"),
        (rb'"a\"b"', 'a"b'),
        (rb'"a\\b"', "a\\b"),
        (rb"a\b", "a\\b"),
        (b'"a b, c; d"', "a b, c; d"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b'"abc";v=1', "abc"),
        (b"abc;v=1", "abc"),
        (b'"abc"; v="x, y"; w', "abc"),
        (b'"' + b"a" * 255 + b'"', "a" * 255),
        (b'"' + rb"\"" * 255 + b'"', '"' * 255),
    ],
)
def test_a_key_is_read_with_and_without_quotes(value: bytes, key: str) -> None:
    """H1, H2: both forms are one key, escapes are decoded, and parameters are ignored."""
    assert read_key([value], strict=False) == key


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" \t",
        b'""',
        b'"',
        b'"abc',
        b'abc"',
        rb'"a\b"',
        b'"abc\\"',
        b'"a\x00b"',
        b'"a\tb"',
        b"a\x7fb",
        b'"a\x7fb"',
        b"a\xc3\xa9b",
        b'"a\xff"',
        b"a b",
        b"a,b",
        b'"a", "b"',
        b'"a";v=1, "b"',
        b'"a" b',
        b'"a"b',
        b"a;",
        b";v=1",
        b"a" * 256,
        b'"' + b"a" * 256 + b'"',
    ],
)
def test_a_header_without_a_valid_key_is_refused(value: bytes) -> None:
    """H1, H2: bad escapes, open quotes, control and non-ASCII bytes, lists, empty and long keys."""
    refused = read_key([value], strict=False)
    assert isinstance(refused, InvalidKey)
    assert refused.reason.endswith(".")


def test_two_headers_are_refused() -> None:
    """H2: also two equal ones."""
    assert isinstance(read_key([b"a", b"a"], strict=False), InvalidKey)


def test_strict_demands_the_quotes() -> None:
    """H1: the form of the draft."""
    assert read_key([b'"abc";v=1'], strict=True) == "abc"
    assert isinstance(read_key([b"abc"], strict=True), InvalidKey)


@given(st.text(PRINTABLE, min_size=1, max_size=LONGEST_KEY), st.booleans())
def test_each_printable_key_survives_its_quotes(key: str, strict: bool) -> None:
    """H1: what RFC 8941 writes is read back."""
    written = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read_key([written.encode()], strict=strict) == key


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_a_key_or_a_refusal_that_shows_none_of_them(value: bytes, strict: bool) -> None:
    """H1, U3: a hostile header costs a refusal, and the refusal is one of a few texts."""
    match read_key([value], strict=strict):
        case InvalidKey(reason):
            assert reason.startswith(("The header must hold", "The key must have"))
        case key:
            assert 0 < len(key) <= LONGEST_KEY
            assert key.isascii()
            assert key.isprintable()
