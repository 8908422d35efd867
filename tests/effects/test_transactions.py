"""A body's own writes and its result: together, or not at all."""

import asyncio
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    ConfigurationError,
    DynamoDBBackend,
    Execution,
    GroupCommit,
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MemoryBackend,
    SerializationError,
    Status,
    StoreError,
    TransactionError,
    Wait,
    idempotent,
)
from aioidempotency._core.operations import Operation, Reply
from aioidempotency.testing import FakeClock
from aioidempotency.transactions import Transaction, TransactionClosedError
from tests.conftest import store_options
from tests.effects.conftest import Shop, make_table, shop_on
from tests.support.engines import Engine
from tests.support.proxy import Fault

pytestmark = pytest.mark.backends()  # each engine has transactions of its own

ABSENT = "attribute_not_exists(pk)"


async def test_writes_and_result_are_one_request(shop: Shop) -> None:
    """X2: after the claim, one transaction; a replay sends nothing of it."""
    store = shop.make_store(namespace="shop")
    await shop.put("stock", left=5)
    await shop.put("old")
    await shop.put("customer", active=True)
    bodies = []

    @idempotent(store, key="order_id", namespace="order")
    async def order(order_id: str) -> str:
        bodies.append(order_id)
        write = Execution.current().transaction
        write.put(shop.table, {"pk": order_id, "cents": 4200}, ConditionExpression=ABSENT)
        write.update(
            shop.table,
            {"pk": "stock"},
            "SET #left = #left - :one",
            ConditionExpression="#left >= :one",
            ExpressionAttributeNames={"#left": "left"},
            ExpressionAttributeValues={":one": 1},
        )
        write.delete(TableName=shop.table, Key={"pk": {"S": "old"}})
        write.check(shop.table, {"pk": "customer"}, "active = :yes", ExpressionAttributeValues={":yes": {"BOOL": True}})
        return f"{order_id} is paid"

    start = len(shop.proxy.requests)
    assert await order("order-1") == await order("order-1") == "order-1 is paid"
    assert bodies == ["order-1"]
    assert await shop.items() == {"order-1": {"cents": 4200}, "stock": {"left": 4}, "customer": {"active": True}}
    sent = [seen.operation for seen in shop.proxied.since(start)]
    assert sent[-3:] == ["PutItem", "TransactWriteItems", "PutItem"]
    (transaction,) = shop.sent()
    record = await store.get("order-1", namespace="order")
    assert record is not None
    assert transaction.body["ClientRequestToken"] == record.owner
    assert [list(each) for each in transaction.body["TransactItems"]] == [
        ["Update"],
        ["Put"],
        ["Update"],
        ["Delete"],
        ["ConditionCheck"],
    ]


async def test_a_refused_condition_applies_nothing_and_frees_the_key(shop: Shop) -> None:
    """X2: the refusal is told by its index, with its item where that was asked for; the next call runs."""
    store = shop.make_store()
    await shop.put("stock", left=0, secret="canary")
    with pytest.raises(TransactionError) as refused:
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "order-1"})
            execution.transaction.check(
                shop.table,
                {"pk": "stock"},
                "#left > :none",
                ExpressionAttributeNames={"#left": "left"},
                ExpressionAttributeValues={":none": 0},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
            execution.complete("ordered")
    fine, reason = refused.value.reasons
    assert fine is None
    assert reason is not None
    assert (reason.code, reason.item) == ("ConditionalCheckFailed", {"pk": "stock", "left": 0, "secret": "canary"})
    assert not refused.value.retryable
    assert "canary" not in f"{refused.value} {refused.value!r}"
    assert list(await shop.items()) == ["stock"]
    assert await store.get("k") is None
    async with store.execute("k") as execution:
        assert not execution.replayed


async def test_a_refusal_brings_no_item_unless_asked(shop: Shop) -> None:
    store = shop.make_store()
    await shop.put("order-1")
    with pytest.raises(TransactionError) as refused:
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "order-1"}, ConditionExpression=ABSENT)
    (reason,) = refused.value.reasons
    assert reason is not None
    assert reason.item is None


async def test_a_refusal_can_be_the_result(shop: Shop) -> None:
    """As any error of the block: `store_errors` stores it, `on_error` holds the key."""
    store = shop.make_store()
    await shop.put("order-1")
    for _ in range(2):
        with pytest.raises(IdempotencyError):
            async with store.execute("k", store_errors=(TransactionError,)) as execution:
                execution.transaction.put(shop.table, {"pk": "order-1"}, ConditionExpression=ABSENT)
    assert len(shop.sent()) == 1
    with pytest.raises(TransactionError):
        async with store.execute("held", on_error="hold") as execution:
            execution.transaction.put(shop.table, {"pk": "order-1"}, ConditionExpression=ABSENT)
    with pytest.raises(InProgressError):
        async with store.execute("held"):
            pass


async def test_a_lost_lease_applies_nothing(shop: Shop) -> None:
    """X2: another owner took the key over; neither its record nor the tables are touched."""
    clock = FakeClock()
    store = shop.make_store(clock=clock)
    with pytest.raises(LeaseLostError) as lost:
        async with store.execute("k", heartbeat=False) as execution:
            execution.transaction.put(shop.table, {"pk": "stale"})
            execution.complete("stale")
            clock.advance(62)
            async with shop.make_store(clock=clock).execute("k") as next_one:
                next_one.transaction.put(shop.table, {"pk": "next"})
                next_one.complete("next")
    assert lost.value.result == "stale"
    assert list(await shop.items()) == ["next"]
    record = await store.get("k")
    assert record is not None
    assert record.result == "next"


async def test_a_body_that_raises_writes_nothing(shop: Shop) -> None:
    store = shop.make_store()
    for number, store_errors in enumerate(((), (ValueError,))):
        with pytest.raises(ValueError, match="declined"):
            async with store.execute(f"k-{number}", store_errors=store_errors) as execution:
                execution.transaction.put(shop.table, {"pk": "order-1"})
                raise ValueError("declined")
    assert not await shop.items()
    assert not shop.sent()


async def test_a_transaction_without_writes_is_a_plain_completion(shop: Shop) -> None:
    store = shop.make_store()
    async with store.execute("k") as execution:
        assert len(execution.transaction) == 0
        execution.complete(1)
    assert not shop.sent()
    record = await store.get("k")
    assert record is not None
    assert record.status is Status.COMPLETED


async def test_a_replay_has_no_transaction(shop: Shop) -> None:
    """Nothing of it is sent: its effects are there."""
    store = shop.make_store()
    async with store.execute("k") as execution:
        execution.complete(1)
    with pytest.raises(TransactionClosedError, match="is a replay, and has had its effects") as refused:
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "again"})
    assert isinstance(refused.value, RuntimeError)
    assert not shop.sent()


async def test_after_its_block_a_transaction_takes_nothing(shop: Shop) -> None:
    """Whether it is the one that was kept, or asked for anew; after an error, too."""
    store = shop.make_store()
    kept: list[tuple[Execution, Transaction]] = []
    with pytest.raises(ZeroDivisionError):
        async with store.execute("failed") as execution:
            kept.append((execution, execution.transaction))
            raise ZeroDivisionError
    async with store.execute("k") as execution:
        kept.append((execution, execution.transaction))
        execution.transaction.put(shop.table, {"pk": "order-1"})
    requests = len(shop.proxy.requests)
    for execution, transaction in kept:
        with pytest.raises(TransactionClosedError, match="has ended its block"):
            transaction.put(shop.table, {"pk": "late"})
        with pytest.raises(TransactionClosedError, match="has ended its block"):
            execution.transaction.put(shop.table, {"pk": "late"})
        with pytest.raises(TransactionClosedError):
            transaction.emit("late")
    assert len(shop.proxy.requests) == requests
    assert list(await shop.items()) == ["order-1"]


async def test_an_unprotected_call_has_no_transaction(shop: Shop) -> None:
    """`fail_open` runs a body without a record, and a transaction without one could be applied twice."""
    store = shop.make_store(fail_open=True)
    assert await store.get("k") is None
    shop.proxy.inject(Fault.THROTTLE, operation="PutItem", times=20)
    with pytest.raises(StoreError, match="without a record no transaction is applied once"):
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "order-1"})
    assert not shop.sent()


BAD: dict[str, Any] = {
    "over a hundred": (lambda write, table: [write.delete(table, {"pk": str(n)}) for n in range(100)], "100 actions"),
    "two of one item": (lambda write, table: [write.delete(table, {"pk": "a"}) for _ in range(2)], "two writes"),
    "over 4 MB": (
        lambda write, table: [write.put(table, {"pk": str(n), "data": 390_000 * "x"}) for n in range(11)],
        "4 MB",
    ),
    "over 400 KB": (lambda write, table: write.put(table, {"pk": "a", "data": 410_000 * "x"}), "400 KB"),
    "no values": (lambda write, table: write.put(table, {"pk": "a", "when": object()}), "cannot hold object"),
    "no name": (lambda write, _: write.put("", {"pk": "a"}), "TableName="),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_dynamodb_would_refuse_is_refused_before_it_is_sent(shop: Shop, name: str) -> None:
    """X4: and what was written before stays; the caller may go on, or let the error end the block."""
    store = shop.make_store()
    misuse, match = BAD[name]
    with pytest.raises((TransactionError, SerializationError), match=match):
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "fine"})
            misuse(execution.transaction, shop.table)
    assert not shop.sent()
    assert await store.get("k") is None


async def test_what_was_refused_is_not_collected_and_the_rest_stays(shop: Shop) -> None:
    """A caller that knows better goes on."""
    async with shop.make_store().execute("k") as execution:
        execution.transaction.put(shop.table, {"pk": "fine"})
        for name in ("over 400 KB", "no values", "no name"):
            misuse, match = BAD[name]
            with pytest.raises((TransactionError, SerializationError), match=match):
                misuse(execution.transaction, shop.table)
        with pytest.raises(TransactionError, match="two writes"):
            execution.transaction.delete(shop.table, {"pk": "fine"})
        assert len(execution.transaction) == 1
        execution.transaction.put(shop.table, {"pk": "fine, too"})
    assert sorted(await shop.items()) == ["fine", "fine, too"]


async def test_the_records_own_item_is_not_written(shop: Shop) -> None:
    """By its key, or as an item; other items of the table are the caller's."""
    store = shop.make_store()
    async with store.execute("k") as execution:
        lease = execution.lease
        assert lease is not None
        key = {"pk": lease.location.partition, "sk": lease.key}
        table = lease.location.table.name
        with pytest.raises(TransactionError, match="of the execution's own record"):
            execution.transaction.delete(table, key)
        with pytest.raises(TransactionError, match="of the execution's own record"):
            execution.transaction.put(table, {**key, "status": "COMPLETED"})
        execution.transaction.put(table, {"pk": "mine", "sk": lease.key, "n": 1})
    record = await store.get("k")
    assert record is not None
    assert record.status is Status.COMPLETED


async def test_two_puts_that_only_the_tables_key_tells_apart(shop: Shop) -> None:
    """X4: the key is looked up, once, where the puts could be of one item; and two of one are not sent."""
    lines = await make_table(shop.client, order="S", line="N")
    store = shop.make_store()
    for key in ("a", "b"):
        async with store.execute(key) as execution:
            execution.transaction.put(lines, {"order": key, "line": 1, "cents": 5})
            execution.transaction.put(lines, {"order": key, "line": 2, "cents": 5})
    assert len(shop.sent()) == 2
    assert sum(seen.body["TableName"] == lines for seen in shop.sent("DescribeTable")) == 1
    with pytest.raises(TransactionError, match=f"two writes are of one item in table '{lines}'"):
        async with store.execute("c") as execution:
            execution.transaction.put(lines, {"order": "c", "line": 1, "cents": 5})
            execution.transaction.put(lines, {"order": "c", "line": 1, "cents": 6})
    assert len(shop.sent()) == 2
    assert await store.get("c") is None


async def test_without_the_permission_to_look_the_key_up_dynamodb_judges(simple_shop: Shop) -> None:
    shop = simple_shop
    store = shop.make_store()
    shop.proxy.inject(Fault.DENY, operation="DescribeTable", times=5)
    async with store.execute("k") as execution:
        execution.transaction.put(shop.table, {"pk": "a", "n": 1})
        execution.transaction.put(shop.table, {"pk": "b", "n": 1})
    assert sorted(await shop.items()) == ["a", "b"]


async def test_an_invalid_write_applies_nothing(shop: Shop) -> None:
    """The engines say so of the whole or of the write; the key is free again."""
    store = shop.make_store()
    with pytest.raises((TransactionError, ConfigurationError)) as refused:
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "fine"})
            execution.transaction.put(shop.table, {"pk": 5})
    if isinstance(refused.value, TransactionError):
        assert [reason and reason.code for reason in refused.value.reasons] == [None, "ValidationError"]
    else:
        assert "one of the writes is not valid" in str(refused.value)
    assert not refused.value.retryable
    assert not await shop.items()
    assert await store.get("k") is None


async def test_a_table_that_is_not_there_is_told(shop: Shop) -> None:
    store = shop.make_store()
    with pytest.raises(ConfigurationError, match="one of the tables is not there"):
        async with store.execute("k") as execution:
            execution.transaction.put("no-such-table", {"pk": "a"})
    assert await store.get("k") is None


async def test_a_result_that_cannot_be_stored_is_a_tombstone_with_its_writes(shop: Shop) -> None:
    """O10: the work is done, and is not done again."""
    store = shop.make_store()
    async with store.execute("k") as execution:
        execution.transaction.put(shop.table, {"pk": "order-1"})
        execution.complete(object())
    assert list(await shop.items()) == ["order-1"]
    record = await store.get("k")
    assert record is not None
    assert record.encoding == "tombstone"


async def test_a_committed_result_is_stored_whatever_store_if_says(shop: Shop) -> None:
    """C21: the caller's writes cannot be taken back, so the key is not given back either."""
    asked: list[object] = []

    @idempotent(shop.make_store(), store_if=asked.append)
    async def charge(order: str) -> str:
        Execution.current().transaction.put(shop.table, {"pk": order})
        return "paid"

    assert [await charge("order-1"), await charge("order-1")] == ["paid"] * 2
    assert asked == []
    assert list(await shop.items()) == ["order-1"]


async def test_duplicates_in_the_same_process_get_the_committed_result(shop: Shop) -> None:
    """They look at the call, and send nothing."""
    store = shop.make_store()

    async def order() -> Any:
        async with store.execute("k", on_in_progress=Wait(10)) as execution:
            if not execution.replayed:
                execution.transaction.update(
                    shop.table, {"pk": "n"}, "ADD n :one", ExpressionAttributeValues={":one": 1}
                )
                execution.complete("one")
        return execution.result

    assert await asyncio.gather(*(order() for _ in range(20))) == 20 * ["one"]
    assert await shop.items() == {"n": {"n": 1}}
    assert len(shop.sent()) == 1


async def test_in_memory_there_are_no_tables_of_the_callers(shop: Shop) -> None:
    """It says so, and what to test with; the key is free again."""
    store = type(shop.make_store()).in_memory()
    with pytest.raises(ConfigurationError, match="test such code on an emulator"):
        async with store.execute("k") as execution:
            execution.transaction.put("orders", {"pk": "order-1"})
    assert await store.get("k") is None


async def test_two_transactions_of_two_calls_do_not_mix(shop: Shop) -> None:
    """C10: nothing per call lives on the store."""
    store = shop.make_store()

    async def order(name: str) -> None:
        async with store.execute(name) as execution:
            for step in range(3):
                execution.transaction.put(shop.table, {"pk": f"{name}-{step}"})
                await asyncio.sleep(0)
            execution.complete(name)

    async with store.execute("outer") as outer:
        outer.transaction.put(shop.table, {"pk": "outer"})
        await asyncio.gather(*(order(f"order-{number}") for number in range(5)))
        assert Execution.current() is outer
    assert len(shop.sent()) == 6
    assert len(await shop.items()) == 16


async def test_a_derived_key_is_the_same_for_each_attempt_and_each_replay(shop: Shop) -> None:
    """X5: it depends on namespace, key and step alone."""
    store = shop.make_store(namespace="shop")
    derived = []
    with pytest.raises(ZeroDivisionError):
        async with store.execute({"order": 1}, namespace="charge") as execution:
            derived.append(execution.derive_key("capture"))
            raise ZeroDivisionError
    for _ in range(2):
        async with store.execute({"order": 1}, namespace="charge", fingerprint="other") as execution:
            derived.append(execution.derive_key("capture"))
    assert len(set(derived)) == 1
    async with store.execute({"order": 1}, namespace="other") as execution:
        assert execution.derive_key("capture") not in derived
        assert execution.derive_key("mail") != execution.derive_key("capture")


async def test_with_group_commit_transactions_are_as_without_it(ministack: Engine, session: AioSession) -> None:
    """G1: a transaction is sent by itself, and so is the question for a table's key; ids go in batches."""
    async with shop_on(ministack, session, {"layout": CompositeKey(), "group_commit": GroupCommit()}) as shop:
        store = shop.make_store()

        async def order(number: int) -> None:
            async with store.execute(f"order-{number}") as execution:
                execution.transaction.put(shop.table, {"pk": f"a-{number}", "n": 1})
                execution.transaction.put(shop.table, {"pk": f"b-{number}", "n": 1})
                execution.transaction.emit(number)
                execution.complete(await store.get_or_create_id(f"order-{number}"))

        await asyncio.gather(*(order(number) for number in range(20)), *(order(number + 20) for number in range(20)))
        assert len(await shop.items()) == 80
        assert len([event async for event in store.outbox(poll=None)]) == 40
        assert len(shop.sent()) == 40
        assert shop.sent("BatchExecuteStatement")


async def test_a_backend_of_ones_own_behind_group_commit_need_not_know_keys(
    ministack: Engine, session: AioSession
) -> None:
    """Then DynamoDB itself judges."""
    async with shop_on(ministack, session, {}) as shop:
        real = DynamoDBBackend(**store_options(ministack, session))

        class Batching:
            time_limit = 10.0
            execute, execute_many = real.execute, real.execute_many
            create_table, aclose = real.create_table, real.aclose

        store = shop.make_store(backend=Batching(), group_commit=GroupCommit())
        async with store.execute("k") as execution:
            execution.transaction.put(shop.table, {"pk": "a", "n": 1})
            execution.transaction.put(shop.table, {"pk": "b", "n": 1})
        assert sorted(await shop.items()) == ["a", "b"]
        await real.aclose()


async def test_what_may_pass_is_no_result(shop: Shop) -> None:
    """`store_errors` stores what the caller's conditions say; a conflict, or a missing permission, is tried again."""
    store = shop.make_store()

    async def order() -> None:
        async with store.execute("k", store_errors=(Exception,)) as execution:
            execution.transaction.put(shop.table, {"pk": "order-1"}, ConditionExpression=ABSENT)

    shop.proxy.inject(Fault.EFFECT_CONFLICTS, operation="TransactWriteItems", times=6)
    with pytest.raises(TransactionError, match="TransactionConflict"):
        await order()
    shop.proxy.inject(Fault.DENY, operation="TransactWriteItems")
    with pytest.raises(ConfigurationError, match="AccessDenied"):
        await order()
    await order()
    assert list(await shop.items()) == ["order-1"]


async def test_a_denied_question_for_a_tables_key_is_not_asked_again(simple_shop: Shop) -> None:
    shop, store = simple_shop, simple_shop.make_store()
    shop.proxy.inject(Fault.DENY, operation="DescribeTable", times=5)
    for number in range(3):
        async with store.execute(number) as execution:
            execution.transaction.put(shop.table, {"pk": f"a-{number}", "n": 1})
            execution.transaction.put(shop.table, {"pk": f"b-{number}", "n": 1})
    assert len([seen for seen in shop.sent("DescribeTable") if seen.fault is Fault.DENY]) == 1


async def test_a_question_that_is_not_answered_is_asked_again_by_the_next_call(simple_shop: Shop) -> None:
    """Meanwhile DynamoDB judges."""
    shop = simple_shop
    store = shop.make_store(config=AioConfig(retries={"mode": "standard", "total_max_attempts": 1}))
    shop.proxy.inject(Fault.REFUSE, operation="DescribeTable")
    for number in range(3):
        async with store.execute(number) as execution:
            execution.transaction.put(shop.table, {"pk": f"a-{number}", "n": 1})
            execution.transaction.put(shop.table, {"pk": f"b-{number}", "n": 1})
    asked = [seen.fault for seen in shop.sent("DescribeTable") if seen.body["TableName"] == shop.table]
    assert asked == [Fault.REFUSE, None]


async def test_a_table_that_is_named_by_its_arn_is_asked_for_by_it() -> None:
    """Its owner may be another account."""
    asked = []

    class Curious:
        async def execute(self, operation: Operation) -> Reply:
            return await table.execute(operation)

        async def key_of(self, table_name: str) -> frozenset[str]:
            asked.append(table_name)
            return frozenset({"pk"})

    table, arn = MemoryBackend(), "arn:aws:dynamodb:eu-west-1:222222222222:table/orders"
    store = AsyncIdempotencyStore("table", backend=Curious())
    for key in ("a", "b"):
        with pytest.raises(ConfigurationError, match="has none of your tables"):
            async with store.execute(key) as execution:
                execution.transaction.put(arn, {"pk": "1", "n": 1})
                execution.transaction.put(arn, {"pk": "2", "n": 1})
    assert asked == [arn]
