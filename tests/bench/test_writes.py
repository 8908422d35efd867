"""Conditional writes of one item: applied or refused, and billed in both cases."""

from typing import Any

import pytest

from tests.bench.calls import ABSENT, TABLE, Model, owned_by

KILOBYTE = 1024
BY_ANN = {"id": {"S": "a"}, "owner": {"S": "ann"}}
MISFITS: list[tuple[str, dict[str, Any]]] = [
    ("PutItem", {"Item": {"owner": {"S": "a"}}}),
    ("PutItem", {"Item": {"id": {"N": "1"}}}),
    ("PutItem", {"Item": {"id": {"S": ""}}}),
    ("PutItem", {"Item": {"id": {"S": "x" * 2049}}}),
    ("PutItem", {"Item": {"id": {"S": "a"}, "data": {"S": "x" * 410 * KILOBYTE}}}),
    ("GetItem", {"Key": {"id": {"S": "a"}, "other": {"S": "b"}}}),
    ("GetItem", {"Key": {"id": {"N": "1"}}}),
    ("DeleteItem", {"Key": {}}),
    ("UpdateItem", {"Key": {"owner": {"S": "a"}}}),
    (
        "UpdateItem",
        {
            "Key": {"id": {"S": "a"}},
            "UpdateExpression": "SET id = :a",
            "ExpressionAttributeValues": {":a": {"S": "b"}},
        },
    ),
    (
        "UpdateItem",
        {
            "Key": {"id": {"S": "a"}},
            "UpdateExpression": "SET a = :a, a = :a",
            "ExpressionAttributeValues": {":a": {"S": "b"}},
        },
    ),
    ("PutItem", {"Item": {"id": {"S": "a"}}, "ReturnValues": "ALL_NEW"}),
    ("PutItem", {"Item": {"id": {"S": "a"}}, "ReturnConsumedCapacity": "TOTAL"}),
]


def set_data(size: int) -> dict[str, Any]:
    """Update an item so that it grows."""
    values = {":data": {"S": "x" * size}}
    return {"UpdateExpression": "SET #data = :data", "ExpressionAttributeNames": {"#data": "data"}} | {
        "ExpressionAttributeValues": values
    }


def test_a_refused_write_brings_the_item_and_changes_nothing() -> None:
    """Each kind of write shows what refused it, if it was asked to."""
    model = Model()
    model.call("PutItem", TableName=TABLE, Item=BY_ANN, **ABSENT)
    target = {"PutItem": {"Item": {"id": {"S": "a"}}}}
    for operation in ("PutItem", "UpdateItem", "DeleteItem"):
        given = target.get(operation, {"Key": {"id": {"S": "a"}}})
        refused = model.refusal(operation, TableName=TABLE, **given, **owned_by("bob"))
        assert (refused.name, refused.fields) == ("ConditionalCheckFailedException", {"Item": BY_ANN})
        silent = {**owned_by("bob"), "ReturnValuesOnConditionCheckFailure": "NONE"}
        assert model.refusal(operation, TableName=TABLE, **given, **silent).fields == {}
    assert model.get("a") == BY_ANN


def test_a_refusal_by_nothing_brings_nothing() -> None:
    """There is no item to show."""
    assert Model().refusal("DeleteItem", TableName=TABLE, Key={"id": {"S": "a"}}, **owned_by("ann")).fields == {}


def test_a_write_that_is_applied_returns_what_was_asked_for() -> None:
    """The item before, or after an update."""
    model = Model()
    key = {"id": {"S": "a"}}
    assert model.call("PutItem", TableName=TABLE, Item=BY_ANN, ReturnValues="ALL_OLD") == {}
    answer = model.call("UpdateItem", TableName=TABLE, Key=key, ReturnValues="ALL_NEW", **set_data(1))
    assert answer == {"Attributes": {**BY_ANN, "data": {"S": "x"}}}
    assert model.call("DeleteItem", TableName=TABLE, Key=key, ReturnValues="ALL_OLD") == answer
    assert model.get("a") is None


def test_an_update_of_nothing_makes_an_item() -> None:
    """DynamoDB's update is an upsert unless a condition forbids it."""
    model = Model()
    model.call("UpdateItem", TableName=TABLE, Key={"id": {"S": "a"}}, **set_data(1))
    assert model.get("a") == {"id": {"S": "a"}, "data": {"S": "x"}}


def test_a_stored_number_is_normalised() -> None:
    """What is read back has the service's spelling, and a condition finds it in any other."""
    model = Model()
    model.put("a", end={"N": "1.50"})
    assert model.get("a") == {"id": {"S": "a"}, "end": {"N": "1.5"}}
    condition = {"ConditionExpression": "#end = :end", "ExpressionAttributeNames": {"#end": "end"}}
    values = {"ExpressionAttributeValues": {":end": {"N": "15E-1"}}}
    model.call("DeleteItem", TableName=TABLE, Key={"id": {"S": "a"}}, **condition, **values)
    assert model.get("a") is None


def test_a_write_costs_by_the_larger_of_old_and_new() -> None:
    """In steps of 1 KB: an overwritten or deleted item is billed for its size."""
    model = Model()
    spent = []
    for size in (0, 1000, 2000, 500):
        model.put("a", data={"S": "x" * size})
        spent.append(model.report(Reset=True)["partitions"][0]["consumed_writes"])
    model.call("UpdateItem", TableName=TABLE, Key={"id": {"S": "a"}}, **set_data(3000))
    spent.append(model.report(Reset=True)["partitions"][0]["consumed_writes"])
    model.call("DeleteItem", TableName=TABLE, Key={"id": {"S": "a"}})
    model.call("DeleteItem", TableName=TABLE, Key={"id": {"S": "a"}})
    spent.append(model.counted("consumed_writes"))
    assert spent == [1, 1, 2, 2, 3, 3 + 1]


def test_a_refused_write_is_billed_by_the_item_that_is_there() -> None:
    """It costs what the stored item weighs, and one unit where nothing is; the new item does not count."""
    model = Model()
    large = {"id": {"S": "a"}, "data": {"S": "x" * 5000}}
    model.refusal("PutItem", TableName=TABLE, Item=large, **owned_by("ann"))
    assert model.report(Reset=True)["partitions"][0]["consumed_writes"] == 1
    model.put("a", data={"S": "x" * 3000})
    model.report(Reset=True)
    refused = model.refusal("PutItem", TableName=TABLE, Item=large, **ABSENT)
    assert refused.name == "ConditionalCheckFailedException"
    assert model.counted("consumed_writes") == 3


def test_a_throttled_write_changes_nothing_and_says_which_limit_it_met() -> None:
    """The reason tells a hot partition from a busy table."""
    model = Model(partitions=1, scale=0.001, burst=1)
    model.put("a")
    refused = model.refusal("PutItem", TableName=TABLE, Item=BY_ANN)
    assert refused.body["__type"] == "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
    assert refused.fields["ThrottlingReasons"] == [
        {
            "reason": "TableWriteKeyRangeThroughputExceeded",
            "resource": "arn:aws:dynamodb:eu-central-1:000000000000:table/orders",
        }
    ]
    assert model.get("a") == {"id": {"S": "a"}}


@pytest.mark.parametrize(("operation", "parameters"), MISFITS, ids=str)
def test_what_does_not_fit_the_table_is_refused(operation: str, parameters: dict[str, Any]) -> None:
    """Keys of a wrong shape, items over 400 KB, and parameters that the model does not know."""
    model = Model()
    assert model.refusal(operation, TableName=TABLE, **parameters).name == "ValidationException"
    assert model.call("Scan", TableName=TABLE)["Count"] == 0


def test_an_item_may_have_four_hundred_kilobytes_and_no_byte_more() -> None:
    """Names count, and an update must not grow past it either."""
    model = Model()
    size = 400 * KILOBYTE - len("id") - len("a") - len("data")
    model.put("a", data={"S": "x" * size})
    refused = model.refusal("UpdateItem", TableName=TABLE, Key={"id": {"S": "a"}}, **set_data(size + 1))
    assert refused.message == "Item size to update has exceeded the maximum allowed size"


@pytest.mark.parametrize("operation", ["PutItem", "GetItem", "Query", "DescribeTable", "DescribeTimeToLive"])
def test_an_unknown_table_is_named_as_such(operation: str) -> None:
    """The library tells its user how to make it."""
    assert Model().refusal(operation, TableName="elsewhere").name == "ResourceNotFoundException"


def test_a_consistent_read_costs_a_unit_for_four_kilobytes() -> None:
    """An eventually consistent one half of it; nothing costs as much as a small item."""
    model = Model()
    model.put("a", data={"S": "x" * 9000})
    model.get("a")
    model.get("missing")
    assert model.counted("consumed_reads") == 3 + 1
    model.call("GetItem", TableName=TABLE, Key={"id": {"S": "a"}})
    assert model.counted("consumed_reads") == 3 + 1 + 1.5
