"""Events of records: for the log, for `on_event=`, for metrics and traces.

```python
from collections import Counter

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.events import Event

counts: Counter[str] = Counter()

def count(event: Event) -> None:
    counts[type(event).__name__] += 1

store = AsyncIdempotencyStore.in_memory(on_event=count)
await store.claim("order-1")
print(counts)  # Counter({'CallClaimed': 1})
```

An event names its record by `key`, `namespace#digest`. No event contains a payload, a result or a raw key.
The store calls the hook in line, so a slow hook delays the call. An error of the hook is logged and goes no further.
The logger is `aioidempotency`, and each event class has its `level`.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, cast, final

from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay

LOGGER = logging.getLogger("aioidempotency")


@final
@dataclass(frozen=True, slots=True)
class CallClaimed:
    """A call has claimed its key, and is about to run."""

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
    """A call was refused, because another call is running the key. That lease ends in `retry_after` seconds."""

    level: ClassVar[int] = logging.DEBUG
    key: str
    retry_after: float


@final
@dataclass(frozen=True, slots=True)
class CallMismatched:
    """A call was refused, because the key was used with another payload."""

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
    """A key was given back after an error or a cancellation of the body."""

    level: ClassVar[int] = logging.DEBUG
    key: str


@final
@dataclass(frozen=True, slots=True)
class RecordForgotten:
    """`forget` has freed a key. With `fenced`, the key's owner was running, and is refused from now on."""

    level: ClassVar[int] = logging.INFO
    key: str
    fenced: bool


@final
@dataclass(frozen=True, slots=True)
class ReleaseFailed:
    """A key could not be given back for the reason `cause`. The key is free again after the lease."""

    level: ClassVar[int] = logging.WARNING
    key: str
    # Exceptions compare by identity, so a cause would make equal events differ.
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class LeaseLost:
    """A call no longer owns its record."""

    level: ClassVar[int] = logging.WARNING
    key: str


@final
@dataclass(frozen=True, slots=True)
class CompletionFailed:
    """A result could not be stored before the end of the lease, for the reason `cause`. The key may run again."""

    level: ClassVar[int] = logging.ERROR
    key: str
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class ResultDropped:
    """A result cannot be stored, for the given `reason`. The record became a tombstone, and replays raise."""

    level: ClassVar[int] = logging.ERROR
    key: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class FailedOpen:
    """A call runs unprotected, as `fail_open` demands: the store did not answer, for the reason `cause`."""

    level: ClassVar[int] = logging.ERROR
    key: str
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class StoreDisabled:
    """A store was made with the environment variable `variable` set: all its calls run unprotected."""

    level: ClassVar[int] = logging.ERROR
    table_name: str
    variable: str


@final
@dataclass(frozen=True, slots=True)
class KeyMissing:
    """A call without a key runs unprotected, as `missing_key="run"` demands. Each function reports one such call."""

    level: ClassVar[int] = logging.WARNING
    namespace: str


@final
@dataclass(frozen=True, slots=True)
class GroupCommitUnavailable:
    """Operations are sent one by one, because a batch was refused. `cause` says why. Each cause is told once."""

    level: ClassVar[int] = logging.WARNING
    table_name: str
    cause: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class TtlUnavailable:
    """`create_table` has made a table on an engine without TTL. Expired records stay until somebody deletes them."""

    level: ClassVar[int] = logging.WARNING
    table_name: str


@final
@dataclass(frozen=True, slots=True)
class EventHeldBack:
    """An event of the outbox could not be published, and holds up the later events of its key."""

    level: ClassVar[int] = logging.WARNING
    event_id: str
    failures: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class EventPutAside:
    """An event of the outbox is not published: `on_poison` took it."""

    level: ClassVar[int] = logging.ERROR
    event_id: str
    failures: int


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
    | StoreDisabled
    | KeyMissing
    | GroupCommitUnavailable
    | TtlUnavailable
    | EventHeldBack
    | EventPutAside
)
Hook = Callable[[Event], object]


def decided(decision: Decision) -> Event:
    """Make the event of a claim's outcome."""
    match decision:
        # Without a default case: the type checker refuses a new decision that has no event.
        case Claimed(lease):
            return CallClaimed(lease.key, lease.fencing_token)
        case Replay(record):
            return CallReplayed(record.key)
        case InProgress(record, retry_after):
            return CallRefused(record.key, retry_after)
        case Mismatch(record):
            return CallMismatched(record.key)


def report(event: Event, hook: Hook | None) -> None:
    """Log an event and call the hook."""
    # An error of a user's filter, handler or hook stays here. If passed on, the error would end a call between claim
    # and body, and the key would stay locked until the end of the lease.
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
        # A handler of the log may fail like the hook itself. Python's own report of lost errors needs no log.
        except Exception:  # noqa: BLE001 - the log fails as well
            _report_unraisable(error, "the on_event hook failed")


def _report_unraisable(error: Exception, message: str) -> None:
    """Report an error in Python's way for errors that cannot be raised in place."""
    facts = SimpleNamespace(
        exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=message, object=None
    )
    sys.unraisablehook(cast("Any", facts))  # its class cannot be made by hand
