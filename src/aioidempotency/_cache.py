"""Finished records that this process has seen, so that their duplicates ask nobody."""

from typing import final

from aioidempotency._core.model import Record


@final
class Cache:
    """The finished records of the last `size` keys that were used.

    A finished record never changes while it lives, so it may be kept; whether it still lives is for
    whoever takes it out to judge. Results are kept as text, and decoded for each caller anew.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: dict[str, Record] = {}

    def get(self, key: str) -> Record | None:
        """Take the record of a key out, and note that it was used."""
        record = self._records.pop(key, None)
        if record is not None:
            self._records[key] = record
        return record

    def put(self, key: str, record: Record) -> None:
        """Keep a finished record; the one that was not used for the longest time makes room."""
        if not self._size:
            return
        self._records.pop(key, None)
        self._records[key] = record
        if len(self._records) > self._size:
            del self._records[next(iter(self._records))]

    def forget(self, key: str) -> None:
        """Drop a record that does not live any more."""
        self._records.pop(key, None)

    def __len__(self) -> int:
        return len(self._records)
