"""Arguments of a wrong kind: each is refused with a `ConfigurationError` that names the argument and says what to write."""

import inspect
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    CompositeKey,
    ConfigurationError,
    CustomPartition,
    DynamoDBBackend,
    GroupCommit,
    HashBuckets,
    JsonCodec,
    MemoryBackend,
    RandomBuckets,
    Reshard,
    SimpleKey,
    Static,
    TimeBuckets,
    Wait,
    deadline,
    idempotent,
    namespace_of,
)

STORE = AsyncIdempotencyStore.in_memory()
ANY: Any = STORE
"""The store, for calls that a type checker would refuse."""


class Backwards:
    """A codec with one half."""

    def encode(self, result: object) -> str:
        return ""


async def charge(order_id: str) -> str:
    return order_id


async def async_clock() -> float:
    return 0.0


def store(**options: Any) -> Callable[[], object]:
    return lambda: AsyncIdempotencyStore("orders", **options)


def memory(**options: Any) -> Callable[[], object]:
    return lambda: AsyncIdempotencyStore.in_memory(**options)


def decorated(**options: Any) -> Callable[[], object]:
    return lambda: idempotent(STORE, **options)(charge)


WRONG: list[tuple[str, Callable[[], object]]] = [
    # The store.
    ("table_name=", lambda: AsyncIdempotencyStore(5)),  # type: ignore[arg-type]
    ("table_name= 'ab'", lambda: AsyncIdempotencyStore("ab")),
    ("table_name= 'ab'", lambda: AsyncIdempotencyStore("ab", backend=DynamoDBBackend())),
    ("table_name=", lambda: AsyncIdempotencyStore.in_memory("")),
    ("namespace", memory(namespace=None)),
    ("layout=", memory(layout=CompositeKey)),
    ("layout=", memory(layout=HashBuckets(32))),
    ("layout=", memory(layout="id")),
    ("attributes=", memory(attributes={"data": "result"})),
    ("attributes=", memory(attributes=AttributeNames)),
    ("retention=", memory(retention="3600")),
    ("lease=", memory(lease="60")),
    ("lease=", memory(lease=None)),
    ("clock_skew=", memory(clock_skew="1")),
    ("endpoint_url=", store(endpoint_url="localhost:8000")),
    ("endpoint_url=", store(endpoint_url=8000)),
    ("region_name=", store(region_name=5)),
    ("region_name=", store(region_name="")),
    ("config=", store(config={})),
    ("config=", store(config={"retries": {"mode": "standard"}})),
    ("session=", store(session="default")),
    ("session=", store(session={})),
    ("client=", store(client="dynamodb")),
    ("client=", store(client=DynamoDBBackend())),
    ("backend=", store(backend=MemoryBackend)),
    ("backend=MemoryBackend\\(\\)", store(backend=MemoryBackend)),
    ("backend=", store(backend="memory")),
    ("backend=", store(backend=STORE)),
    ("codec=JsonCodec\\(\\)", memory(codec=JsonCodec)),
    ("codec=", memory(codec="json")),
    ("codec= .*`encode` and `decode`", memory(codec=Backwards())),
    ("group_commit=", store(group_commit=True)),
    ("group_commit=", store(group_commit=GroupCommit)),
    ("local_cache=", memory(local_cache=-1)),
    ("local_cache=", memory(local_cache=True)),
    ("read_first=", memory(read_first="no")),
    ("verify_layout=", memory(verify_layout=0)),
    ("fail_open=", memory(fail_open="no")),
    ("compress_over=", memory(compress_over="1 MB")),
    ("compress_over=", memory(compress_over=-1)),
    ("outbox_table=", memory(outbox_table=5)),
    ("on_completion_failure=", memory(on_completion_failure="ignore")),
    ("label=", memory(label=5)),
    ("clock=", memory(clock=5)),
    ("clock=", memory(clock=time.time())),
    ("clock=", memory(clock=async_clock)),
    ("on_event=", memory(on_event=5)),
    ("on_event=", memory(on_event=charge)),
    ("time_limit=", lambda: DynamoDBBackend(time_limit="5")),  # type: ignore[arg-type]
    ("time_limit=", lambda: DynamoDBBackend(time_limit=0)),
    ("time_limit=", lambda: DynamoDBBackend(time_limit=float("nan"))),
    ("max_batch=", lambda: GroupCommit(max_batch="25")),  # type: ignore[arg-type]
    ("fallback=", lambda: GroupCommit(fallback="yes")),  # type: ignore[arg-type]
    # The decorator.
    ("write @idempotent\\(store\\) above .*charge", lambda: idempotent(charge)),  # type: ignore[arg-type]
    ("AsyncIdempotencyStore\\('orders'\\)", lambda: idempotent("orders")),  # type: ignore[arg-type]
    ("backend=", lambda: idempotent(MemoryBackend())),  # type: ignore[arg-type]
    ("make one: store = ", lambda: idempotent(AsyncIdempotencyStore)),  # type: ignore[arg-type]
    ("NoneType", lambda: idempotent(None)),  # type: ignore[arg-type]
    ("key=", decorated(key=5)),
    ("key=", decorated(key=["order_id"])),
    ("key=", decorated(key=charge)),
    ("fingerprint=", decorated(fingerprint=5)),
    ("namespace", decorated(namespace=5)),
    ("lease=", decorated(lease="60")),
    ("retention=", decorated(retention="60")),
    ("heartbeat=", decorated(heartbeat="yes")),
    ("heartbeat=", decorated(heartbeat=None)),
    ("on_in_progress=", decorated(on_in_progress=5)),
    ("on_in_progress=", decorated(on_in_progress="wait")),
    ("on_in_progress=", decorated(on_in_progress=Wait)),
    ("Wait\\(timeout\\)", lambda: Wait("5")),  # type: ignore[arg-type]
    ("on_error=", decorated(on_error="retry")),
    ("store_errors=", decorated(store_errors=ValueError)),
    ("store_errors=", decorated(store_errors=(ValueError("no"),))),
    ("store_errors=", decorated(store_errors=[ValueError])),
    ("read_first=", decorated(read_first="yes")),
    ("missing_key=", decorated(missing_key=True)),
    ("missing_parts=", decorated(missing_parts=None)),
    ("on_replay=", decorated(on_replay=5)),
    ("AsyncMock", lambda: idempotent(STORE)(AsyncMock())),
    ("MagicMock", lambda: idempotent(STORE)(MagicMock())),
    ("leave out the parentheses", lambda: idempotent(STORE)(charge("1"))),  # type: ignore[arg-type]
    ("builtins.str is not a coroutine function", lambda: idempotent(STORE)("charge")),  # type: ignore[arg-type]
    ("namespace_of", lambda: namespace_of(5)),  # type: ignore[arg-type]
    # Calls.
    ("leave out the parentheses.*after the function", lambda: ANY.run("k", charge("1"))),
    ("run\\(key, function, .*AsyncMock", lambda: ANY.run("k", AsyncMock())),
    ("NoneType is not a coroutine function", lambda: ANY.run("k", None)),
    ("lease=", lambda: ANY.claim("k", lease="60")),
    ("namespace", lambda: ANY.claim("k", namespace=5)),
    ("heartbeat=", lambda: ANY.execute("k", heartbeat="no")),
    ("limit=", lambda: ANY.claim_many(["k"], limit="2")),
    ("limit=", lambda: ANY.get_many(["k"], limit=0)),
    ("keys=", lambda: ANY.claim_many("order-1")),
    ("keys=", lambda: ANY.get_many(5)),
    ("lease= takes an instance of Lease", lambda: ANY.complete("order-1", 1)),
    ("lease= takes an instance of Lease", lambda: ANY.renew("order-1")),
    ("lease= takes an instance of Lease", lambda: ANY.release(None)),
    ("drain=", lambda: ANY.aclose(drain="5")),
    ("factory=", lambda: ANY.get_or_create_id("k", "id-1")),
    ("expires_after=", lambda: ANY.get_or_create_id("k", expires_after="5")),
    ("key=", lambda: ANY.put_if_absent("orders", {"pk": "1"}, key=5)),
    ("item=", lambda: ANY.put_if_absent("orders", ["pk"])),
    ("table_name= 'ab'", lambda: AsyncIdempotencyStore("orders").put_if_absent("ab", {"pk": "1"})),
    ("shards=", lambda: AsyncIdempotencyStore.in_memory(layout=CompositeKey()).outbox(shards=5)),  # type: ignore[arg-type]
    ("shards=", lambda: AsyncIdempotencyStore.in_memory(layout=CompositeKey()).outbox(shards=["1"])),  # type: ignore[list-item]
    ("poll=", lambda: AsyncIdempotencyStore.in_memory(layout=CompositeKey()).outbox(poll="1")),  # type: ignore[arg-type]
    ("on_poison=", lambda: AsyncIdempotencyStore.in_memory(layout=CompositeKey()).outbox(on_poison=5)),  # type: ignore[arg-type]
    ("deadline\\(seconds\\)", lambda: deadline("5").__enter__()),  # type: ignore[arg-type]
    ("deadline\\(seconds\\)", lambda: deadline(float("nan")).__enter__()),
    ("backend=MemoryBackend\\(\\)", lambda: STORE.override(backend=MemoryBackend)),  # type: ignore[arg-type]
    ("clock=", lambda: STORE.override(clock=time.time())),  # type: ignore[arg-type]
    ("disabled=", lambda: STORE.override(disabled="yes")),  # type: ignore[arg-type]
    # Layouts.
    ("Static needs a partition value", lambda: Static("\ud800")),
    ("Static needs a partition value", lambda: Static(5)),  # type: ignore[arg-type]
    ("HashBuckets needs a prefix of 2045 bytes", lambda: HashBuckets(32, prefix="p" * 2048)),
    ("HashBuckets needs a prefix", lambda: HashBuckets(32, prefix="\udfff")),
    ("RandomBuckets needs a prefix of 2046 bytes", lambda: RandomBuckets(8, prefix="p" * 2048)),
    ("TimeBuckets needs a prefix of", lambda: TimeBuckets(3600, prefix="p" * 2048)),
    ("TimeBuckets needs window=", lambda: TimeBuckets("hour")),  # type: ignore[arg-type]
    ("SimpleKey", lambda: SimpleKey(partitioning=HashBuckets(8))),  # type: ignore[arg-type]
    ("attribute's name", lambda: SimpleKey(5)),  # type: ignore[arg-type]
    ("attribute's name", lambda: AttributeNames(data=5)),  # type: ignore[arg-type]
    ("partitioning=", lambda: CompositeKey(partitioning=HashBuckets)),  # type: ignore[arg-type]
    ("CustomPartition takes plain functions", lambda: CustomPartition("tenant")),  # type: ignore[arg-type]
    ("Reshard takes two strategies", lambda: Reshard(32, 128)),  # type: ignore[arg-type]
    ("Reshard takes two strategies", lambda: Reshard(HashBuckets, HashBuckets(8))),  # type: ignore[arg-type]
    ("Reshard has the phases", lambda: Reshard(HashBuckets(8), HashBuckets(16), "new")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("message", "wrong"), WRONG, ids=[f"{number}-{each[0]}" for number, each in enumerate(WRONG)])
async def test_an_argument_of_a_wrong_kind_is_named(message: str, wrong: Callable[[], object]) -> None:
    """C20: Python's own errors would show the inside of the library, or come at the first request."""
    with pytest.raises(ConfigurationError, match=message):
        made = wrong()
        if inspect.isawaitable(made):
            await made


def test_a_prefix_may_be_as_long_as_its_longest_partition_allows() -> None:
    """C20: the bound is DynamoDB's, 2,048 bytes with the number of the bucket."""
    longest = HashBuckets(32, prefix="p" * 2045)
    assert max(len(each) for each in longest.partitions(0)) == 2048
    windows = TimeBuckets(0.5, buckets=100, prefix="p" * 2000, retention=1)
    assert len(windows.prefix) == 2000


async def test_the_longest_key_fits_in_dynamodbs_bounds() -> None:
    """C20: two namespaces of 400 bytes and a digest are shorter than a sort key of 1,024 bytes."""
    store = AsyncIdempotencyStore.in_memory(namespace="n" * 400)
    decision = await store.claim("k", namespace="m" * 400)
    assert isinstance(decision, Claimed)
    assert len(decision.lease.key) <= 1024
