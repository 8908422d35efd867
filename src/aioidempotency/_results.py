"""Results as they are stored.

A result that cannot be stored must not lead to a second execution: its record becomes a tombstone,
which says that the key was executed, and nothing more.
"""

from aioidempotency._core import records
from aioidempotency._core.model import Encoded, Lease, Record
from aioidempotency.codecs import Codec
from aioidempotency.exceptions import ResultUnavailableError, SerializationError

TOMBSTONE = Encoded("", "tombstone")
"""What stands for a result that could not be stored."""

LARGEST_ITEM = 400 * 1024
"""Bytes that DynamoDB takes in one item, attribute names included."""


def encode(result: object, lease: Lease, codec: Codec) -> Encoded:
    """Write a result.

    Raises:
        SerializationError: The codec cannot write it, or its item would be too large.
    """
    encoded = Encoded(codec.encode(result))
    size = records.size(records.finished(lease, encoded, expiration=lease.expiration))
    if size > LARGEST_ITEM:
        advice = f"DynamoDB takes {LARGEST_ITEM}; return a reference to it instead"
        raise SerializationError("the record", f"an item of {size} bytes", advice)
    return encoded


def decode(record: Record, result_type: object, codec: Codec) -> object:
    """Read a finished record's result.

    Raises:
        ResultUnavailableError: It was not stored, or does not fit the type.
    """
    if record.encoding == TOMBSTONE.encoding:
        raise ResultUnavailableError(record, "it could not be stored when the call was executed")
    if record.encoding is not None:
        raise ResultUnavailableError(record, f"its encoding {record.encoding!r} is not known to this version")
    if record.data is None:
        return None
    try:
        return codec.decode(record.data, result_type)
    except SerializationError as error:
        raise ResultUnavailableError(record, str(error)) from error
