"""What a store does once in DynamoDB, without a body that runs in between: commits, ids, items, events."""

import inspect
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any

import anyio

from aioidempotency import _results
from aioidempotency._core import attributes, effects, ids, outbox, records
from aioidempotency._core.attributes import LARGEST_ITEM
from aioidempotency._core.commits import Rejected
from aioidempotency._core.decisions import InProgress, Mismatch, Replay
from aioidempotency._core.model import Location, Route, Table
from aioidempotency._core.outbox import SHARDS, Outbox
from aioidempotency._core.protocol import Claim, Completed
from aioidempotency._draft import ENDED, Draft, Origin
from aioidempotency._driver import Driver
from aioidempotency._settings import Duration, Settings, check_table_name, seconds
from aioidempotency.events import decided
from aioidempotency.exceptions import (
    ConfigurationError,
    InProgressError,
    MismatchError,
    SerializationError,
    TransactionError,
)
from aioidempotency.transactions import OutboxEvent, Writes, fill

RANDOM_BITS = 74
"""Of a UUID of version 7."""


class Effects:
    """The part of a store whose effects are in DynamoDB alone."""

    _driver: Driver
    _settings: Settings

    async def commit_once(
        self,
        key: object,
        result: object,
        writes: Writes,
        *,
        fingerprint: object = None,
        retention: Duration | None = None,
        namespace: str = "",
        result_type: object = Any,
    ) -> object:
        """Apply writes and store their result once for each key, in one transaction, without a claim.

        It is for handlers that know what to write before anything has happened: no lease is held and no
        body runs. A duplicate writes nothing, and is answered with the stored result. When it fails or is
        cancelled, calling it again with the key tells what came of it.

        Args:
            key: Text, or anything that the decorator accepts as key material.
            result: What duplicates are answered with.
            writes: Actions as the wire has them, `[{"Put": {...}}, ...]`; or a function that is given a
                `Transaction` to write into.
            fingerprint: What must be equal between two calls with this key.
            retention: Instead of the store's.
            namespace: Stands between the store's namespace and the digest.
            result_type: What a stored result is read back as.

        Returns:
            The result given, or the stored one.

        Raises:
            TransactionError: The writes were refused, by DynamoDB or before they were sent; nothing is stored.
            ConfigurationError: The places of keys depend on time, as with `TimeBuckets`.
            InProgressError: The key is held by a claim that runs.
            MismatchError: The key was used with another fingerprint.
            ResultUnavailableError: The key was executed, and its result cannot be had.
            SerializationError: The result or a value cannot be stored.
            StoreError: The store did not answer; call again.
        """
        driver = self._driver
        kept = None if retention is None else self._settings.kept(retention)
        attempt = self._settings.attempt(key, namespace=namespace, fingerprint=fingerprint, retention=kept)
        _check_lasting(attempt.route)
        draft, encoded = self._filled(attempt, writes), driver.encoded_for(attempt, result)
        outcome = driver.cached(attempt) or await driver.commit_once(attempt, encoded, draft)
        if isinstance(outcome, Replay | InProgress | Mismatch):
            driver.report(decided(outcome))
        match outcome:
            case Completed():
                return result
            case Replay(record):
                driver.cache.put(attempt.route.key, record)
                return _results.decode(record, driver.codec, result_type)
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)
            case Rejected(reasons):
                raise TransactionError(reasons)

    async def get_or_create_id(
        self,
        key: object,
        factory: Callable[[], str | Awaitable[str]] | None = None,
        *,
        expires_after: Duration | None = None,
        namespace: str = "",
    ) -> str:
        """Answer with one id for a key, for ever: the one that the first call made.

        It costs one conditional write, refused or not. Ids have no lease; their place does not depend on
        the layout, so no `Reshard` moves them.

        Args:
            key: Text, or anything that the decorator accepts as key material: a client's own id, say.
            factory: Makes an id, a text; it is called each time, and its id is dropped where there is one.
                A UUID of version 7 where none is given.
            expires_after: Seconds after which the key has no id any more, and the next call makes one.
            namespace: Stands between the store's namespace and the digest.

        Raises:
            MissingKeyError: The key is None or empty.
            SerializationError: The factory made no text.
            StoreError: The store did not answer; call again.
        """
        place = self._settings.place_of_id(key, namespace)
        now = self._settings.clock()
        made = self._uuid7(now) if factory is None else factory()
        made = await made if inspect.isawaitable(made) else made
        if not isinstance(made, str) or not made:
            raise SerializationError("an id", type(made).__name__, "let factory= return a text that is not empty")
        kept = None if expires_after is None else seconds(expires_after, "expires_after")
        return await self._driver.drive_apart(ids.get_or_create(place, str.__str__(made), now=now, expires_after=kept))

    async def put_if_absent(
        self, table_name: str, item: Mapping[str, object], key: str | Sequence[str] = ("pk",)
    ) -> dict[str, object]:
        """Store an item in a table of yours unless one with its key is there, by one conditional put.

        Args:
            table_name: The table's name or ARN.
            item: Plain Python values, or typed ones as the wire has them.
            key: The names of the table's one or two key attributes.

        Returns:
            The item that is there now, this one or the earlier one, as plain Python values; typed where all
            values of `item` were.

        Raises:
            ConfigurationError: The item lacks a key attribute, or the table is not there.
            SerializationError: DynamoDB cannot hold a value, or the item is over 400 KB.
            StoreError: The store did not answer; call again.
        """
        check_table_name(table_name)
        written = attributes.item(item, "the item")
        if attributes.size(written) > LARGEST_ITEM:
            raise SerializationError(
                "the item", "over 400 KB", "that is the most that DynamoDB takes; store a reference"
            )
        place = _foreign(table_name, written, (key,) if isinstance(key, str) else tuple(key))
        found = await self._driver.drive_apart(ids.put_if_absent(place, written))
        typed = all(attributes.is_typed(value) for value in item.values())
        return dict(found) if typed else attributes.read_item(found)

    def outbox(
        self, *, shards: Collection[int] | None = None, poll: Duration | None = 1.0, event_type: object = Any
    ) -> AsyncGenerator[OutboxEvent, None]:
        """Hand out the events that transactions emitted, and delete each when the next one is asked for.

        At least once: what the loop was doing when it ended is handed out again. Events of one key come in
        the order of their sequence numbers: each after all those of its key whose transaction had been
        answered before its own was sent. Several relays may run; their duplicates are then more, their
        order is the same for the first delivery of each event.

        Args:
            shards: Which of the 16 shards of the outbox to look at, to share the work; all by default.
            poll: Seconds between looks at an empty outbox; None ends when it is empty.
            event_type: What an event is read back as.

        Raises:
            ConfigurationError: The store has no table for events.
            SerializationError: While iterating: an event does not fit the type; it stays.
            StoreError: While iterating: the store did not answer; iterate anew.
        """
        if self._driver.outbox is None:
            raise effects.no_outbox()
        pause = None if poll is None else seconds(poll, "poll")
        chosen = range(SHARDS) if shards is None else sorted(set(shards))
        if any(not isinstance(shard, int) or not 0 <= shard < SHARDS for shard in chosen):
            raise ConfigurationError(f"shards= takes numbers from 0 to {SHARDS - 1}: not {shards!r}")
        return self._relay(self._driver.outbox, chosen, pause, event_type)

    async def _relay(
        self, box: Outbox, shards: Collection[int], pause: float | None, event_type: object
    ) -> AsyncGenerator[OutboxEvent, None]:
        while True:
            idle = True
            for shard in shards:
                for item in await self._driver.drive_apart(outbox.pending(box, shard)):
                    idle = False
                    emitted = outbox.parse(item, box.table)
                    for index, text in enumerate(emitted.events):
                        name = f"{emitted.owner}-{index}"
                        event = self._decoded(name, text, event_type)
                        yield OutboxEvent(id=name, key=emitted.key, sequence=emitted.sequence, index=index, event=event)
                    await self._driver.drive_apart(outbox.remove(box, shard, item))
            if idle and pause is None:
                return
            if idle and pause is not None:
                await anyio.sleep(pause)

    def _decoded(self, name: str, text: str, event_type: object) -> object:
        try:
            return self._driver.codec.decode(text, event_type)
        except SerializationError as error:
            advice = "read it without event_type=, or as another type; it stays until then"
            raise SerializationError(f"the event {name}", error.kind, advice) from error

    def _filled(self, attempt: Claim, writes: Writes) -> Draft:
        own = attempt.places
        origin = Origin(
            key=attempt.route.key,
            owner=attempt.owner,
            sequence=records.milliseconds(attempt.now),
            own=own,
            parts=len(own),
        )
        draft = Draft(origin, self._driver.codec, self._driver.outbox)
        fill(draft, writes)
        draft.close(ENDED)
        return draft

    @staticmethod
    def _uuid7(now: float) -> str:
        return ids.uuid7(records.milliseconds(now), secrets.randbits(RANDOM_BITS))


def _check_lasting(route: Route) -> None:
    if route.answer_within < inf:
        raise ConfigurationError(
            "commit_once cannot be had with TimeBuckets: a late request could miss the newest window, and its writes "
            "cannot be taken back as a claim is; use execution.transaction, or another partitioning="
        )


def _foreign(table_name: str, item: Mapping[str, Any], key: tuple[str, ...]) -> Location:
    """Find an item in a table of the caller's."""
    named = {name: item[name] for name in key if name in item and item[name].keys() <= {"S", "N", "B"}}
    if not 1 <= len(key) <= 2 or len(named) < len(key):  # noqa: PLR2004 - partition key and sort key
        missing = ", ".join(repr(name) for name in key if name not in named)
        raise ConfigurationError(
            f"key= names the table's one or two key attributes, and the item must have each as text, number or bytes: "
            f"{f'it has no such {missing}' if missing else f'not {key!r}'}"
        )
    table = Table(table_name, key[0], key[1] if len(key) > 1 else None, ids.FOREIGN)
    partition, *sort = (attributes.spelled(value) for value in named.values())
    return Location(table=table, partition=partition, sort=sort[0] if sort else None, typed=named)
