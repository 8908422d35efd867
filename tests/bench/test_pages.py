"""Reads of many items: pages that together are everything, once."""

from typing import Any

import pytest

from tests.bench.calls import TABLE, Model

OF_A = {
    "KeyConditionExpression": "#id = :id",
    "ExpressionAttributeNames": {"#id": "id"},
    "ExpressionAttributeValues": {":id": {"S": "a"}},
}


@pytest.fixture
def model() -> Model:
    """A table with two partition values of some items each; neither value is a start of nothing."""
    made = Model(composite=True)
    for sort in ("b", "a", "d", "c", "aa"):
        made.put("a", sort, end={"N": str(ord(sort[0]))})
    made.put("aa", "a")
    return made


def pages(model: Model, operation: str, **parameters: Any) -> list[dict[str, Any]]:
    """Read page after page until there is no more key to go on with."""
    answers: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    while not answers or start:
        answers.append(dict(model.call(operation, TableName=TABLE, **parameters, **start)))
        last = answers[-1].get("LastEvaluatedKey")
        start = {"ExclusiveStartKey": last} if last else {}
    return answers


def test_a_query_gives_one_partition_value_in_order(model: Model) -> None:
    """A longer value that begins alike is another one."""
    items = model.call("Query", TableName=TABLE, **OF_A)["Items"]
    assert [item["sort"]["S"] for item in items] == ["a", "aa", "b", "c", "d"]


def test_pages_of_a_query_are_everything_once(model: Model) -> None:
    """Each goes on after the last key of the one before; a full last page has a key, too, as in the service."""
    found = pages(model, "Query", Limit=2, **OF_A)
    assert [[item["sort"]["S"] for item in page["Items"]] for page in found] == [["a", "aa"], ["b", "c"], ["d"]]
    assert [len(page["Items"]) for page in pages(model, "Query", Limit=5, **OF_A)] == [5, 0]


def test_pages_go_on_while_items_come_and_go(model: Model) -> None:
    """The key to go on with need not be there any more."""
    first = model.call("Query", TableName=TABLE, Limit=2, **OF_A)
    for sort in ("aa", "c"):
        model.call("DeleteItem", TableName=TABLE, Key=model.key("a", sort))
    model.put("a", "bb")
    rest = model.call("Query", TableName=TABLE, ExclusiveStartKey=first["LastEvaluatedKey"], **OF_A)
    assert [item["sort"]["S"] for item in rest["Items"]] == ["b", "bb", "d"]


def test_a_count_has_no_items(model: Model) -> None:
    """It costs as much as reading them."""
    assert model.call("Query", TableName=TABLE, Select="COUNT", **OF_A) == {"Count": 5, "ScannedCount": 5}


def test_a_filter_leaves_items_out_after_they_were_read(model: Model) -> None:
    """The limit counts what was read, so a page may be empty and not the last."""
    parameters = {
        **OF_A,
        "FilterExpression": "#end >= :end AND attribute_exists(#end) AND attribute_not_exists(data)",
        "ExpressionAttributeNames": {"#id": "id", "#end": "end"},
        "ExpressionAttributeValues": {":id": {"S": "a"}, ":end": {"N": "99"}},
    }
    found = pages(model, "Query", Limit=2, **parameters)
    assert [page["Count"] for page in found] == [0, 1, 1]
    assert [page["ScannedCount"] for page in found] == [2, 2, 1]


def test_pages_of_a_scan_are_the_whole_table_once(model: Model) -> None:
    """Values stay together, in whatever order their hashes have."""
    items = [item for page in pages(model, "Scan", Limit=1) for item in page["Items"]]
    keys = [(item["id"]["S"], item["sort"]["S"]) for item in items]
    assert sorted(keys) == [("a", "a"), ("a", "aa"), ("a", "b"), ("a", "c"), ("a", "d"), ("aa", "a")]
    assert [key for key in keys if key[0] == "a"] == sorted(key for key in keys if key[0] == "a")


def test_a_page_ends_at_a_megabyte(model: Model) -> None:
    """Whatever the limit says; the rest is on the next."""
    for number in range(4):
        model.put("large", str(number), data={"S": "x" * 399_000})
    values = {":id": {"S": "large"}}
    found = pages(model, "Query", **{**OF_A, "ExpressionAttributeValues": values})
    assert [page["Count"] for page in found] == [2, 2]


def test_a_page_costs_by_its_bytes(model: Model) -> None:
    """Small items together cost what one item of their size would."""
    model.call("Query", TableName=TABLE, ConsistentRead=True, **OF_A)
    assert model.counted("consumed_reads") == 1


def test_a_busy_partition_gives_no_page() -> None:
    """A scan is refused where a read of one item would be."""
    model = Model(partitions=1, scale=0.001, burst=1)
    model.put("a")
    for _ in range(6):
        model.call("Scan", TableName=TABLE)
    assert model.refusal("Scan", TableName=TABLE).name == "ProvisionedThroughputExceededException"


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {**OF_A, "KeyConditionExpression": "#id > :id"},
        {**OF_A, "ExpressionAttributeNames": {"#id": "sort"}},
        {**OF_A, "ExpressionAttributeValues": {":id": {"N": "1"}}},
        {**OF_A, "Limit": 0},
        {**OF_A, "Select": "SPECIFIC_ATTRIBUTES"},
        {**OF_A, "ScanIndexForward": False},
        {**OF_A, "ExclusiveStartKey": {"id": {"S": "a"}}},
        {**OF_A, "ExclusiveStartKey": {"id": {"S": "aa"}, "sort": {"S": "a"}}},
    ],
    ids=str,
)
def test_what_is_no_query_is_refused(model: Model, parameters: dict[str, Any]) -> None:
    """Another key, another type, or what the model does not do."""
    assert model.refusal("Query", TableName=TABLE, **parameters).name == "ValidationException"


def test_a_batch_gives_what_is_there() -> None:
    """Missing items are left out; a key may be named once."""
    model = Model()
    model.put("a")
    keys = [{"id": {"S": "missing"}}, {"id": {"S": "a"}}]
    answer = model.call("BatchGetItem", RequestItems={TABLE: {"Keys": keys, "ConsistentRead": True}})
    assert answer == {"Responses": {TABLE: [{"id": {"S": "a"}}]}, "UnprocessedKeys": {}}
    assert model.counted("consumed_reads") == 2
    twice = model.refusal("BatchGetItem", RequestItems={TABLE: {"Keys": [keys[0], keys[0]]}})
    assert twice.name == "ValidationException"


def test_a_batch_leaves_what_a_busy_partition_could_not_give() -> None:
    """It is an error only where nothing could be read."""
    model = Model(partitions=1, scale=0.001, burst=1)
    keys = [{"id": {"S": str(number)}} for number in range(5)]
    wanted = {"Keys": keys, "ConsistentRead": True}
    answer = model.call("BatchGetItem", RequestItems={TABLE: wanted})
    assert answer["UnprocessedKeys"] == {TABLE: {"Keys": keys[3:], "ConsistentRead": True}}
    assert model.refusal("BatchGetItem", RequestItems={TABLE: wanted}).name == "ProvisionedThroughputExceededException"
