"""An error among `store_errors` comes back as itself, or as the library's own error that names its class."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import fastapi
import pytest
from starlette.exceptions import HTTPException

from aioidempotency import IdempotencyError, idempotent
from tests.conftest import MakeStore

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it


class DeclinedError(Exception):
    """Takes its facts by name, and hands a text to `Exception`."""

    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class PickledError(Exception):
    """Says by `__reduce__` how to make it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.facts = [code, reason]

    def __reduce__(self) -> tuple[Any, ...]:
        return (PickledError, tuple(self.facts))


class HeldError(Exception):
    """Keeps what JSON cannot hold."""

    def __init__(self, held: object) -> None:
        super().__init__("held")
        self.held = held


class CountedError(Exception):
    """Is another one each time that it is made."""

    made = 0

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        CountedError.made += 1
        self.number = CountedError.made

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("not called")


class SlottedError(Exception):
    """Keeps a fact in a slot, which its arguments do not have."""

    __slots__ = ("code",)

    def __init__(self, code: int = 0) -> None:
        super().__init__()
        self.code = code


def _rebuilt_elsewhere(*facts: object) -> Exception:
    raise AssertionError("no stored name is imported, and no function of an error's is called")


class ElsewhereError(Exception):
    """Is made by a function, which is not in the record."""

    def __init__(self, *, code: int) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt_elsewhere, (self.code,))


async def _caught(call: Any) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the test looks at what it is
        await call
    return raised.value


async def _replayed(make_store: MakeStore, error: Exception) -> tuple[Exception, str]:
    """Fail with an error, and call again: the error of the replay, and the text in the record."""
    store = make_store()

    @idempotent(store, namespace="n", key="key", store_errors=(Exception,))
    async def charge(key: str) -> str:
        raise error

    assert await _caught(charge("1")) is error
    again = await _caught(charge("1"))
    record = await store._parts.records.read(store._parts.settings.route("1", "n"))
    assert record is not None
    return again, record.data or ""


@pytest.mark.parametrize(
    "make",
    [
        lambda: HTTPException(status_code=402, detail="x"),
        lambda: HTTPException(402, "x", headers={"Retry-After": "3"}),
        lambda: HTTPException(status_code=HTTPStatus.PAYMENT_REQUIRED),
        lambda: fastapi.HTTPException(status_code=422, detail={"field": ["too long"]}),
        lambda: DeclinedError(code=51, reason="funds"),
        lambda: PickledError(51, "funds"),
        lambda: ElsewhereError(code=51),
        lambda: SlottedError(51),
        lambda: CountedError("funds"),
        lambda: ValueError("funds", 51),
        lambda: KeyError("funds"),
        lambda: OSError(2, "not there", "a/b"),
        lambda: json.JSONDecodeError("not JSON", "{", 1),
    ],
)
async def test_an_error_comes_back_as_itself(make_store: MakeStore, make: Callable[[], Exception]) -> None:
    """C22: class, arguments, text and attributes; by its arguments, by `__reduce__`, or by its attributes."""
    error = make()
    again, _ = await _replayed(make_store, error)
    assert again is not error
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert getattr(again, "code", None) == getattr(error, "code", None)


@pytest.mark.parametrize(
    "error",
    [
        HeldError(object()),
        HeldError((1, 2)),
        HeldError(float("nan")),
        ValueError(b"bytes"),
        HTTPException(status_code=402, detail=object()),  # type: ignore[arg-type] # the body may give anything
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "wrong"),
        DeclinedError(code=51, reason="x" * 200_000),
    ],
)
async def test_an_error_that_json_cannot_hold_is_named(make_store: MakeStore, error: Exception) -> None:
    """C22: a replay that is not quite the first error would mislead the caller."""
    again, data = await _replayed(make_store, error)
    assert type(again) is IdempotencyError
    assert type(error).__qualname__ in str(again)
    assert json.loads(data) == {"type": f"{type(error).__module__}.{type(error).__qualname__}", "args": None}


async def test_notes_are_not_part_of_an_error(make_store: MakeStore) -> None:
    """C22: they come after construction, and would make the record larger than its error."""
    error = DeclinedError(code=51, reason="funds")
    error.add_note("seen by the first caller")
    again, data = await _replayed(make_store, error)
    assert type(again) is DeclinedError
    assert "seen" not in data
