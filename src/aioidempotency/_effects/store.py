"""Sends transactions, ids, items and events.

A store has one `Effects`, shared by all calls. The rules are in `commits`, `ids` and `outbox`.
"""

import inspect
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, final

import anyio

from aioidempotency import _attributes as attributes
from aioidempotency import _results
from aioidempotency._attributes import LARGEST_ITEM
from aioidempotency._concurrency import concurrently
from aioidempotency._core import model
from aioidempotency._core.decisions import InProgress, Mismatch, Replay
from aioidempotency._core.model import Lease, Location, Record, SerializedResult, Table
from aioidempotency._core.protocol import Claim, Completed, Contended, Lost, grant
from aioidempotency._effects import commits, ids
from aioidempotency._effects import writes as effects
from aioidempotency._effects.commits import Commit, EffectsFailed
from aioidempotency._effects.outbox import SHARDS, Outbox
from aioidempotency._effects.pending import ENDED, CallIdentity, PendingWrites
from aioidempotency._effects.relay import OnPoison, Relay
from aioidempotency._effects.transaction import OutboxEvent, Writes, fill
from aioidempotency._options import Duration, Settings, check_table_name, seconds
from aioidempotency._records import Records, contended
from aioidempotency._result_types import ResultType
from aioidempotency.backends import DescribesKeys
from aioidempotency.backends.dynamodb.checks import check_table_name as check_dynamodb_name
from aioidempotency.backends.dynamodb.checks import is_dynamodb
from aioidempotency.codecs import JsonCodec
from aioidempotency.events import decided
from aioidempotency.exceptions import (
    ConfigurationError,
    InProgressError,
    MismatchError,
    SerializationError,
    StoreError,
    TransactionError,
)

RANDOM_BITS = 74
"""The random bits of a UUID of version 7."""

LOOK_UP_LIMIT = 2.0
"""Seconds to wait for the tables' keys. Without them, DynamoDB itself finds two writes of one item."""


@final
class Effects:
    """The effects of one store's calls.

    Attributes:
        box: The outbox. None without a table for events.
    """

    def __init__(self, records: Records, settings: Settings, outbox_table: str | None) -> None:
        self.box = _outbox_of(settings, outbox_table)
        self._records = records
        self._settings = settings
        self._key_names: dict[str, frozenset[str]] = {}
        self._undescribed: set[str] = set()

    def pending_for(self, lease: Lease) -> PendingWrites:
        """Start collecting the writes of a call with this lease."""
        # As of the claim: the caller's writes must not touch the record's location at that instant or any other one.
        own = lease.route.locations(lease.expires_at - lease.duration)
        locations = tuple(dict.fromkeys((lease.location, *own)))
        call = CallIdentity(
            key=lease.route.key, owner=lease.owner, sequence=lease.fencing_token, record_locations=locations
        )
        return PendingWrites(call, self._settings.codec, self.box)

    async def collected(self, pending: PendingWrites, *, record_bytes: int) -> effects.Writes:
        """Check all collected writes as a whole. Look up the key of a table if the key decides."""
        asked = [name for name in pending.ambiguous_tables(self._key_names) if name not in self._undescribed]
        # Bounded, because the lease runs on, and a missing answer only costs a less precise error.
        with anyio.move_on_after(LOOK_UP_LIMIT):
            await concurrently(self._look_up, asked, limit=8)
        return pending.collected(self._key_names, record_bytes=record_bytes)

    async def _look_up(self, table_name: str) -> None:
        """Look up a table's key. After a refusal, never again: DynamoDB itself then checks the writes."""
        backend = self._records.backend
        if not isinstance(backend, DescribesKeys):
            return
        # The look-up only improves an error's message, so a failure must not stop the commit.
        with suppress(StoreError):
            try:
                self._key_names[effects.without_arn(table_name)] = await backend.key_of(table_name)
            except ConfigurationError:
                self._undescribed.add(table_name)

    def commit_of(self, lease: Lease, result: SerializedResult, writes: effects.Writes) -> Commit:
        """Make the transaction of a result and the caller's writes, as of now."""
        records = self._records
        return Commit(lease=lease, result=result, effects=writes, now=records.now(), clock_skew=records.clock_skew)

    async def commit(self, wanted: Commit) -> Record:
        """Apply the caller's writes and store a result, or do neither.

        Raises:
            TransactionError: The writes were refused, and nothing was applied.
            LeaseLostError: The record belongs to another owner, or is gone; nothing was applied.
            StoreError: The outcome is unknown, or the record is contended.
        """
        records, lease = self._records, wanted.lease
        match await records.run(commits.commit(wanted)):
            case Completed(record):
                records.completed(lease.route, record)
                return record
            case Lost() if records.now() > commits.expiration_of(wanted):
                reason = "the answer came after the record had expired, so the outcome of the transaction is unknown"
                raise StoreError("the transaction", lease.location.table.name, reason)
            case Lost() as lost:
                raise records.lost(lease, lost)
            case EffectsFailed(reasons):
                raise TransactionError(reasons)
            case Contended():
                raise contended("the transaction", lease.location)

    async def commit_once(self, attempt: Claim, result: object, writes: Writes, *, result_type: ResultType) -> object:
        """Apply writes and store their result once for a key. See `AsyncIdempotencyStore.commit_once`."""
        if attempt.route.answer_within < inf:
            raise ConfigurationError(
                "commit_once does not work with TimeBuckets: a late request could miss the newest window, and the "
                "writes cannot be taken back as a claim is; use execution.transaction, or another partitioning="
            )
        records, settings, key = self._records, self._settings, attempt.route.key
        pending = self._filled(attempt, writes)
        lease = grant(attempt, attempt.locations[0], 0)
        # Encoded before any request: an unstorable result is an error here, never a tombstone, because nothing has
        # run.
        encoded = _results.serialize(result, lease, settings, result_type, records.report)
        outcome: Completed | Replay | InProgress | Mismatch | EffectsFailed | Contended | None = records.cached(
            key, lambda: attempt
        )
        if outcome is None:
            wanted = await self.collected(pending, record_bytes=len(encoded.data.encode()))
            outcome = await records.run(commits.commit_once(attempt, encoded, wanted), sparing=attempt)
        match outcome:
            case Completed(record):
                records.completed(attempt.route, record)
                return result
            case Replay(record):
                records.report(decided(outcome))
                if records.cache is not None:
                    records.cache.put(key, record)
                return _results.decode(record, result_type)
            case InProgress(record, retry_after):
                records.report(decided(outcome))
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                records.report(decided(outcome))
                raise MismatchError(record)
            case EffectsFailed(reasons):
                raise TransactionError(reasons)
            case Contended():
                raise contended("the transaction", attempt.locations[0])

    async def get_or_create_id(
        self,
        key: object,
        factory: Callable[[], str | Awaitable[str]] | None,
        *,
        expires_after: Duration | None,
        namespace: str,
    ) -> str:
        """Return one id for a key. See `AsyncIdempotencyStore.get_or_create_id`."""
        joined, _, digest = self._settings.key(key, namespace).rpartition("#")
        location = ids.location_of(self._settings.table, joined, digest)
        if factory is not None and not callable(factory):
            raise ConfigurationError(f"factory= takes a function that returns a text: not {factory!r}")
        now = self._settings.clock()
        made = ids.uuid7(model.milliseconds(now), secrets.randbits(RANDOM_BITS)) if factory is None else factory()
        made = await made if inspect.isawaitable(made) else made
        if not isinstance(made, str) or not made:
            raise SerializationError("an id", type(made).__name__, "let factory= return a text that is not empty")
        lifetime = None if expires_after is None else seconds(expires_after, "expires_after")
        procedure = ids.get_or_create(location, str.__str__(made), now=now, expires_after=lifetime)
        return await self._records.run_unverified(procedure)

    async def put_if_absent(
        self, table_name: str, item: Mapping[str, object], key: str | Sequence[str]
    ) -> dict[str, object]:
        """Store an item unless one with the same key exists. See `AsyncIdempotencyStore.put_if_absent`."""
        check_table_name(table_name)
        if is_dynamodb(self._records.backend):
            check_dynamodb_name(table_name)
        if not isinstance(item, Mapping):
            raise ConfigurationError(f"item= takes a mapping of attributes: not {type(item).__name__}")
        if not isinstance(key, str | Sequence) or not all(isinstance(name, str) for name in key):
            raise ConfigurationError(f"key= takes the name of the table's key attribute, or both names: not {key!r}")
        written = attributes.item(item, "the item")
        if attributes.size(written) > LARGEST_ITEM:
            raise SerializationError("the item", "over 400 KB", "DynamoDB takes no more; store a reference instead")
        location = _callers_item(table_name, written, (key,) if isinstance(key, str) else tuple(key))
        found = await self._records.run_unverified(ids.put_if_absent(location, written))
        # The answer has the form of the question: typed values for a typed item, plain values else.
        typed = all(attributes.is_typed(value) for value in item.values())
        return dict(found) if typed else attributes.read_item(found)

    def relay(
        self,
        *,
        shards: Collection[int] | None,
        poll: Duration | None,
        event_type: object,
        on_poison: OnPoison | None,
    ) -> AsyncGenerator[OutboxEvent, None]:
        """Publish emitted events. See `AsyncIdempotencyStore.outbox`."""
        if self.box is None:
            raise effects.no_outbox()
        pause = None if poll is None else seconds(poll, "poll")
        chosen = range(SHARDS) if shards is None else shards
        if not isinstance(chosen, Collection) or any(
            not isinstance(shard, int) or not 0 <= shard < SHARDS for shard in chosen
        ):
            raise ConfigurationError(f"shards= takes numbers from 0 to {SHARDS - 1}: not {shards!r}")
        if on_poison is not None and not callable(on_poison):
            raise ConfigurationError("on_poison= takes a function of an event, an error and a number of failures")
        codec = self._settings.codec
        if isinstance(codec, JsonCodec):
            codec.decoder(event_type)
        relay = Relay(
            self._records,
            self.box,
            codec,
            shards=sorted(set(chosen)),
            poll=pause,
            event_type=event_type,
            on_poison=on_poison,
        )
        return relay.events()

    def _filled(self, attempt: Claim, writes: Writes) -> PendingWrites:
        """Collect writes given as a whole."""
        own = attempt.locations
        call = CallIdentity(
            key=attempt.route.key,
            owner=attempt.owner,
            sequence=model.milliseconds(attempt.now),
            record_locations=own,
            record_actions=len(own),
        )
        pending = PendingWrites(call, self._settings.codec, self.box)
        fill(pending, writes)
        pending.close(ENDED)
        return pending


def _outbox_of(settings: Settings, table_name: str | None) -> Outbox | None:
    """Find the outbox: in the named table, or beside the records if their table has a sort key."""
    table = settings.table
    if table_name is not None:
        check_table_name(table_name, "outbox_table")
        if table_name == table.name and table.sort_attribute is None:
            raise ConfigurationError("outbox_table= is the table of the records, which has no sort key; name another")
        if table_name != table.name:
            table = Table(table_name, "pk", "sk", table.attributes)
    return None if table.sort_attribute is None else Outbox(table, settings.namespace)


def _callers_item(table_name: str, item: Mapping[str, Any], key: tuple[str, ...]) -> Location:
    """Find the location of an item in the caller's table."""
    named = {name: item[name] for name in key if name in item and item[name].keys() <= {"S", "N", "B"}}
    if not 1 <= len(key) <= 2 or len(named) < len(key):  # noqa: PLR2004 - partition key and sort key
        missing = ", ".join(repr(name) for name in key if name not in named)
        raise ConfigurationError(
            f"key= names the table's one or two key attributes, and the item must have each as text, number or bytes: "
            f"{f'it has no such {missing}' if missing else f'not {key!r}'}"
        )
    table = Table(table_name, key[0], key[1] if len(key) > 1 else None, ids.UNUSED_NAMES)
    partition, *sort = (attributes.key_text(value) for value in named.values())
    return Location(table=table, partition=partition, sort=sort[0] if sort else None, typed=named)
