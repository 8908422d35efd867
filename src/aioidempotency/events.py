"""What happened to a record, as values: for the log, for `on_event=`, for metrics and traces.

An event names its record by `key`, which is `namespace#digest`; payloads, results and raw keys are
in none of them. The hook is called in line, so it must be quick; what it raises is logged and goes
no further.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar, final

from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay

LOGGER = logging.getLogger("aioidempotency")


@final
@dataclass(frozen=True, slots=True)
class CallClaimed:
    """A call owns its key now and is going to run."""

    level: ClassVar[int] = logging.DEBUG
    key: str
    fencing_token: int


@final
@dataclass(frozen=True, slots=True)
class CallReplayed:
    """A call was answered with the stored result."""

    level: ClassVar[int] = logging.DEBUG
    key: str


@final
@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call was refused: its key is running elsewhere."""

    level: ClassVar[int] = logging.DEBUG
    key: str
    retry_after: float


@final
@dataclass(frozen=True, slots=True)
class CallMismatched:
    """A call was refused: its key was used with another payload."""

    level: ClassVar[int] = logging.WARNING
    key: str


@final
@dataclass(frozen=True, slots=True)
class RecordCompleted:
    """A result is stored."""

    level: ClassVar[int] = logging.DEBUG
    key: str


@final
@dataclass(frozen=True, slots=True)
class RecordReleased:
    """A key was given back, because the body failed or was cancelled."""

    level: ClassVar[int] = logging.DEBUG
    key: str


@final
@dataclass(frozen=True, slots=True)
class RecordForgotten:
    """`forget` has freed a key. `fenced`: its owner was running, and is refused from now on."""

    level: ClassVar[int] = logging.INFO
    key: str
    fenced: bool


@final
@dataclass(frozen=True, slots=True)
class ReleaseFailed:
    """A key could not be given back; it is free again when its lease is over. `cause` says why."""

    level: ClassVar[int] = logging.WARNING
    key: str
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class LeaseLost:
    """A call found that it no longer holds its record."""

    level: ClassVar[int] = logging.WARNING
    key: str


@final
@dataclass(frozen=True, slots=True)
class CompletionFailed:
    """A result could not be stored before the lease ended: the key may run again. `cause` says why."""

    level: ClassVar[int] = logging.ERROR
    key: str
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class ResultDropped:
    """A result cannot be stored: the record became a tombstone, replays raise."""

    level: ClassVar[int] = logging.ERROR
    key: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class FailedOpen:
    """A call runs unprotected, because the store did not answer and `fail_open` asks for it. `cause` says why."""

    level: ClassVar[int] = logging.ERROR
    key: str
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class KeyMissing:
    """A call without a key runs unprotected, as `missing_key="run"` asks for."""

    level: ClassVar[int] = logging.WARNING
    namespace: str


@final
@dataclass(frozen=True, slots=True)
class GroupCommitUnavailable:
    """Operations are sent one by one, because a batch was refused. `cause` says why; each cause is told once."""

    level: ClassVar[int] = logging.WARNING
    table_name: str
    cause: BaseException | None = field(default=None, compare=False)


Event = (
    CallClaimed
    | CallReplayed
    | CallRefused
    | CallMismatched
    | RecordCompleted
    | RecordReleased
    | RecordForgotten
    | ReleaseFailed
    | LeaseLost
    | CompletionFailed
    | ResultDropped
    | FailedOpen
    | KeyMissing
    | GroupCommitUnavailable
)
Hook = Callable[[Event], object]


def decided(decision: Decision) -> Event:
    """Say what a claim came to."""
    match decision:
        case Claimed(lease):
            return CallClaimed(lease.key, lease.fencing_token)
        case Replay(record):
            return CallReplayed(record.key)
        case InProgress(record, retry_after):
            return CallRefused(record.key, retry_after)
        case Mismatch(record):
            return CallMismatched(record.key)


def report(event: Event, hook: Hook | None) -> None:
    """Log an event and hand it to the hook. Neither can raise: a call would end between its claim and its body."""
    try:
        if LOGGER.isEnabledFor(event.level):
            LOGGER.log(event.level, "%s", event)
    except Exception as error:  # noqa: BLE001 - a filter or a handler of the user's
        _report_unraisable(error, "a filter or handler of the logger aioidempotency failed")
    if hook is None:
        return
    try:
        hook(event)
    except Exception as error:  # noqa: BLE001 - the hook is the user's
        try:
            LOGGER.exception("the on_event hook failed on %s", event)
        except Exception:  # noqa: BLE001 - the log fails as well
            _report_unraisable(error, "the on_event hook failed")


def _report_unraisable(error: Exception, message: str) -> None:
    """Report an error as Python reports those that cannot be raised where they happen."""
    facts = SimpleNamespace(
        exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=message, object=None
    )
    sys.unraisablehook(facts)
