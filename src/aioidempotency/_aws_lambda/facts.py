"""Facts of Lambda's events and contexts: the records of a batch, their order, and the answer for the failed ones.

Everything here is decided before the first record runs, without I/O. Events and records are plain dicts, or objects of
Powertools: its event classes are mappings, and its parser's models have attributes of the same names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict, final

from msgspec import Struct

from aioidempotency.exceptions import ConfigurationError

QUEUE: Final = "aws:sqs"
KINESIS: Final = "aws:kinesis"
DYNAMODB: Final = "aws:dynamodb"

_STREAMS: Final = {KINESIS: ("kinesis", "sequenceNumber"), DYNAMODB: ("dynamodb", "SequenceNumber")}
"""The path to a record's sequence number, by source."""


class BatchItemFailure(TypedDict):
    """One record that failed, as Lambda reads the answer."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """The answer to a batch: the records that come again."""

    batchItemFailures: list[BatchItemFailure]


@final
class Batch(Struct, frozen=True, kw_only=True):
    """The records of one event.

    Attributes:
        records: The records, as the handler gets them.
        identifiers: The name of each record in the answer.
        sequences: The positions of records that run one after the other. After a failure, the rest of a sequence does not run.
            Lanes run side by side.
        checkpoint: Whether Lambda reads the answer as a checkpoint: the first failure, and everything after it, comes
            again.
    """

    records: Sequence[object]
    identifiers: Sequence[str]
    sequences: Sequence[Sequence[int]]
    checkpoint: bool

    def __repr__(self) -> str:  # the records are the user's data
        return f"<Batch of {len(self.records)} records in {len(self.sequences)} sequences>"

    def response(self, delivered: Sequence[bool]) -> BatchResponse:
        """Name the records that come again. `delivered` tells which records are done."""
        failed = [name for name, done in zip(self.identifiers, delivered, strict=True) if not done]
        if self.checkpoint:
            failed = failed[:1]
        # One message may be in a batch twice, and Lambda should read its name once.
        return {"batchItemFailures": [{"itemIdentifier": name} for name in dict.fromkeys(failed)]}


ReadBatch = Callable[[object, str], Batch]
"""Reads an event for the handler of this name."""


def read_queue(event: object, handler: str) -> Batch:
    """Read an event of SQS. In a FIFO queue, the messages of one group run one after the other.

    Raises:
        ConfigurationError: The event is none of SQS.
    """
    records = _records(event, handler, "sqs_batch", "SQS", {QUEUE})
    identifiers = [_identifier(record, ("messageId",), handler) for record in records]
    groups: dict[object, list[int]] = {}
    for position, record in enumerate(records):
        # The queue's name tells, and not the group: messages of a fair queue have groups, too, and no order.
        fifo = str(_member(record, "eventSourceARN")).endswith(".fifo")
        group = _member(_member(record, "attributes"), "MessageGroupId") if fifo else position
        groups.setdefault((fifo, group), []).append(position)
    return Batch(records=records, identifiers=identifiers, sequences=list(groups.values()), checkpoint=False)


def read_stream(event: object, handler: str) -> Batch:
    """Read an event of Kinesis, or of a DynamoDB stream. All records run one after the other.

    Raises:
        ConfigurationError: The event is none of a stream.
    """
    records = _records(event, handler, "stream_batch", "Kinesis or DynamoDB Streams", set(_STREAMS))
    identifiers = []
    for record in records:
        source = KINESIS if _member(record, "kinesis") is not None else DYNAMODB
        identifiers.append(_identifier(record, _STREAMS[source], handler))
    sequences = [range(len(records))] if records else []
    return Batch(records=records, identifiers=identifiers, sequences=sequences, checkpoint=True)


def remaining_seconds(context: object) -> float | None:
    """Read the seconds until Lambda ends the invocation. None if the context does not tell."""
    ask = getattr(context, "get_remaining_time_in_millis", None)
    left = ask() if callable(ask) else None
    # A mock answers with another mock.
    return left / 1000 if isinstance(left, int | float) else None


def request_id(context: object) -> str | None:
    """Read the id of the invocation. None if the context does not tell."""
    found = getattr(context, "aws_request_id", None)
    return found if isinstance(found, str) and found else None


def _records(event: object, handler: str, decorator: str, wanted: str, sources: set[str]) -> list[object]:
    raw = _member(event, "Records")
    if not isinstance(raw, list | tuple):
        raise ConfigurationError(
            f"{handler} got an event without a list of records: {decorator} takes the events of {wanted}; for an event "
            "that is one piece of work, decorate with @idempotent(store, key='event. ...')"
        )
    for record in raw:
        source = _member(record, "eventSource")
        if source is not None and source not in sources:
            other = "stream_batch" if source in _STREAMS else "sqs_batch" if source == QUEUE else None
            advice = f"decorate with {other}" if other else "decorate with @idempotent(store, key='event. ...')"
            raise ConfigurationError(
                f"{handler} got an event of {_shown(source)}: {decorator} takes the events of {wanted}; {advice}"
            )
    # An event class of Powertools makes objects of its own for the handler.
    made = getattr(event, "records", None) if not isinstance(event, dict) else None
    return list(made) if isinstance(made, Iterable) else list(raw)


def _identifier(record: object, path: Sequence[str], handler: str) -> str:
    found: object = record
    for name in path:
        found = _member(found, name)
    # An empty or unknown name in the answer would make Lambda take the whole batch for failed.
    if not isinstance(found, str) or not found:
        raise ConfigurationError(
            f"{handler} got a record without `{'.'.join(path)}`, by which a failed record is reported; "
            "pass Lambda's event on as it is"
        )
    return found


def _member(value: Any, name: str) -> Any:
    """Read an item of a mapping, or an attribute of another object. None without one."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _shown(source: object) -> str:
    """Show a source if it looks like one: in any other text there may be data."""
    plain = isinstance(source, str) and len(source) <= 32 and source.replace(":", "").replace(".", "").isalnum()  # noqa: PLR2004
    return repr(source) if plain else "another source"
