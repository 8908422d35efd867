"""Keys for other systems, derived from a call's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import Execution, MissingKeyError, SerializationError

KEY = "charges#d8f2c7e8"


def test_a_derived_key_is_pinned() -> None:
    """X5: hex SHA-256 over the JSON array of key and step, so that attempts of other versions get the same."""
    derived = Execution(KEY).derive_key("charge")
    assert derived == "da4bbed80b024a85df9bc8c6b7512b71573a620c8f2df0b4fa7ed3b0f5e7cdb0"
    other = Execution(KEY).derive_key("mail é")
    assert other == "df8813593f7e7d890612121b1f2cd56e46cea3c13af232e504e9975a04be8ed4"


@given(st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=2, max_size=2, unique=True))
def test_two_calls_or_steps_never_share_a_key(pairs: list[tuple[str, str]]) -> None:
    """X5: wherever the boundary between them is."""
    (one, step), (other, next_step) = pairs
    assert Execution(one).derive_key(step) != Execution(other).derive_key(next_step)


def test_a_step_has_a_name() -> None:
    with pytest.raises(MissingKeyError, match="the name of the step"):
        Execution(KEY).derive_key("")
    with pytest.raises(SerializationError, match="the step cannot hold int: name it by a text"):
        Execution(KEY).derive_key(5)  # type: ignore[arg-type] # as a user without a type checker might
