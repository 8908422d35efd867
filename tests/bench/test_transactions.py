"""Transactions: all or nothing, refusals by index, and the token that makes a repetition harmless."""

from typing import Any

import pytest

from tests.bench.calls import ABSENT, TABLE, Model, owned_by

MINUTE = 60.0


def put(name: str, **more: Any) -> dict[str, Any]:
    return {"Put": {"TableName": TABLE, "Item": {"id": {"S": name}, "owner": {"S": "ann"}}, **more}}


def check(name: str, **more: Any) -> dict[str, Any]:
    return {"ConditionCheck": {"TableName": TABLE, "Key": {"id": {"S": name}}, **more}}


def delete(name: str, **more: Any) -> dict[str, Any]:
    return {"Delete": {"TableName": TABLE, "Key": {"id": {"S": name}}, **more}}


def update(name: str) -> dict[str, Any]:
    change = {"UpdateExpression": "SET #status = :status", "ExpressionAttributeNames": {"#status": "status"}}
    values = {"ExpressionAttributeValues": {":status": {"S": "done"}}}
    return {"Update": {"TableName": TABLE, "Key": {"id": {"S": name}}, **change, **values}}


def test_all_actions_are_applied_together() -> None:
    """Put, update, delete and check in one request."""
    model = Model()
    model.put("old")
    model.put("changed")
    actions = [put("new", **ABSENT), delete("old"), update("changed"), check("missing", **ABSENT)]
    assert model.call("TransactWriteItems", TransactItems=actions) == {}
    assert model.get("new") == {"id": {"S": "new"}, "owner": {"S": "ann"}}
    assert model.get("old") is None
    assert model.get("changed") == {"id": {"S": "changed"}, "status": {"S": "done"}}
    assert model.get("missing") is None


def test_refusals_bring_their_items_by_index_and_apply_nothing() -> None:
    """One reason for each action, in order; those that could have been applied have the code None."""
    model = Model()
    model.put("taken", owner={"S": "bob"})
    actions = [put("new", **ABSENT), check("taken", **ABSENT), delete("missing", **owned_by("ann")), update("other")]
    refused = model.refusal("TransactWriteItems", TransactItems=actions)
    failed = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    assert refused.name == "TransactionCanceledException"
    assert refused.fields["CancellationReasons"] == [
        {"Code": "None"},
        {**failed, "Item": {"id": {"S": "taken"}, "owner": {"S": "bob"}}},
        failed,
        {"Code": "None"},
    ]
    assert refused.message.endswith("[None, ConditionalCheckFailed, ConditionalCheckFailed, None]")
    assert (model.get("new"), model.get("other")) == (None, None)


def test_a_transaction_costs_double_and_so_do_its_checks() -> None:
    """Two units for each action of up to 1 KB, applied or refused."""
    model = Model()
    model.call("TransactWriteItems", TransactItems=[put("a"), check("b", **ABSENT)])
    assert model.counted("consumed_writes") == 4
    model.refusal("TransactWriteItems", TransactItems=[put("c"), check("a", **ABSENT)])
    assert model.counted("consumed_writes") == 8


def test_a_throttled_transaction_applies_nothing() -> None:
    """The busy partition's actions have the code ThrottlingError."""
    model = Model(partitions=1, scale=0.003, burst=1)
    model.call("TransactWriteItems", TransactItems=[put("a")])
    refused = model.refusal("TransactWriteItems", TransactItems=[put("b"), delete("a")])
    reasons: Any = refused.fields["CancellationReasons"]
    assert [each["Code"] for each in reasons] == ["ThrottlingError", "ThrottlingError"]
    assert (model.get("a") is None, model.get("b")) == (False, None)


def test_a_repeated_token_is_not_applied_again() -> None:
    """Within ten minutes the same request succeeds without an effect, and costs reads; then the token is forgotten."""
    model = Model()
    request = {"TransactItems": [put("a", **ABSENT)], "ClientRequestToken": "token"}
    model.call("TransactWriteItems", **request)
    model.call("DeleteItem", TableName=TABLE, Key={"id": {"S": "a"}})
    model.report(Reset=True)
    model.now = 10 * MINUTE
    assert model.call("TransactWriteItems", **request) == {}
    assert model.get("a") is None
    assert model.counted("consumed_writes") == 0
    model.now += 1
    model.call("TransactWriteItems", **request)
    assert model.get("a") is not None


def test_a_repeated_token_with_other_parameters_is_refused() -> None:
    """It is a mistake of the client's, and nothing is applied."""
    model = Model()
    model.call("TransactWriteItems", TransactItems=[put("a")], ClientRequestToken="token")
    refused = model.refusal("TransactWriteItems", TransactItems=[put("b")], ClientRequestToken="token")
    assert refused.name == "IdempotentParameterMismatchException"
    assert model.get("b") is None


def test_a_refused_transaction_does_not_use_up_its_token() -> None:
    """A repetition is judged anew: what refused the first may be gone."""
    model = Model()
    model.put("a")
    request = {"TransactItems": [put("a", **ABSENT)], "ClientRequestToken": "token"}
    model.refusal("TransactWriteItems", **request)
    model.call("DeleteItem", TableName=TABLE, Key={"id": {"S": "a"}})
    model.call("TransactWriteItems", **request)
    assert model.get("a") is not None


@pytest.mark.parametrize(
    "actions",
    [
        [],
        [put(str(number)) for number in range(101)],
        [put("a"), delete("a")],
        [{**put("a"), **delete("b")}],
        [{"Get": {}}],
        [check("a")],
        [{"Put": {"TableName": TABLE, "Item": {"id": {"S": "a"}}, "Key": {}}}],
    ],
    ids=["none", "101", "two on one item", "two in one", "a read", "an empty check", "unknown parameter"],
)
def test_what_is_no_transaction_is_refused(actions: list[dict[str, Any]]) -> None:
    """Refused as a whole, before anything is judged."""
    model = Model()
    assert model.refusal("TransactWriteItems", TransactItems=actions).name == "ValidationException"
    assert model.call("Scan", TableName=TABLE)["Count"] == 0


def test_a_hundred_actions_are_one_transaction() -> None:
    """The most that there may be."""
    model = Model()
    model.call("TransactWriteItems", TransactItems=[put(str(number)) for number in range(100)])
    assert model.call("Scan", TableName=TABLE)["Count"] == 100


def test_four_megabytes_are_too_many() -> None:
    """The sum counts, too."""
    large = [
        {"Put": {"TableName": TABLE, "Item": {"id": {"S": str(number)}, "data": {"S": "x" * 399_000}}}}
        for number in range(11)
    ]
    model = Model()
    assert model.refusal("TransactWriteItems", TransactItems=large).name == "ValidationException"
    model.call("TransactWriteItems", TransactItems=large[:10])


def test_an_action_that_does_not_fit_its_table_is_a_reason_of_its_own() -> None:
    """The transaction is cancelled, and the index says by which."""
    misfit = {"Put": {"TableName": TABLE, "Item": {"key": {"S": "a"}}}}
    refused = Model().refusal("TransactWriteItems", TransactItems=[put("a"), misfit])
    reasons: Any = refused.fields["CancellationReasons"]
    assert [each["Code"] for each in reasons] == ["None", "ValidationError"]


def test_a_transaction_may_touch_two_tables() -> None:
    """A mapping and its entity are written together."""
    model = Model()
    model.create("entities", entity="S")
    there = {"Put": {"TableName": "entities", "Item": {"entity": {"S": "1"}}}}
    model.call("TransactWriteItems", TransactItems=[put("a"), there])
    assert model.call("Scan", TableName="entities")["Items"] == [{"entity": {"S": "1"}}]


def test_items_are_read_together_at_twice_the_price() -> None:
    """What is missing has an empty answer in its place."""
    model = Model()
    model.put("a")
    gets = [{"Get": {"TableName": TABLE, "Key": {"id": {"S": name}}}} for name in ("missing", "a")]
    assert model.call("TransactGetItems", TransactItems=gets) == {"Responses": [{}, {"Item": {"id": {"S": "a"}}}]}
    assert model.counted("consumed_reads") == 4
    twice = model.refusal("TransactGetItems", TransactItems=[gets[0], gets[0]])
    assert twice.name == "ValidationException"


def test_a_throttled_read_of_several_items_says_by_which() -> None:
    """As a write does."""
    model = Model(partitions=1, scale=0.001, burst=1)
    gets = [{"Get": {"TableName": TABLE, "Key": {"id": {"S": "a"}}}}]
    model.call("TransactGetItems", TransactItems=gets)
    refused = model.refusal("TransactGetItems", TransactItems=gets)
    reasons: Any = refused.fields["CancellationReasons"]
    assert [each["Code"] for each in reasons] == ["ThrottlingError"]
