"""Tables are made, described and deleted; TTL is a setting that deletes nothing here."""

from typing import Any

import pytest

from tests.bench.calls import TABLE, Model


def test_a_table_is_described_as_it_was_made() -> None:
    """Active at once, with its key and its billing mode."""
    model = Model(composite=True)
    model.put("a", "b")
    table = model.call("DescribeTable", TableName=TABLE)["Table"]
    assert (table["TableName"], table["TableStatus"], table["ItemCount"]) == (TABLE, "ACTIVE", 1)
    assert [(each["AttributeName"], each["KeyType"]) for each in table["KeySchema"]] == [
        ("id", "HASH"),
        ("sort", "RANGE"),
    ]
    assert table["BillingModeSummary"] == {"BillingMode": "PAY_PER_REQUEST"}


def test_a_table_is_made_once() -> None:
    """The second creation is refused, and the items stay."""
    model = Model()
    model.put("a")
    key = [{"AttributeName": "id", "KeyType": "HASH"}]
    attributes = [{"AttributeName": "id", "AttributeType": "S"}]
    again = model.refusal("CreateTable", TableName=TABLE, KeySchema=key, AttributeDefinitions=attributes)
    assert again.name == "ResourceInUseException"
    assert model.get("a") is not None


def test_a_deleted_table_is_gone_with_its_items() -> None:
    """A new one of its name is empty."""
    model = Model()
    model.put("a")
    model.call("DeleteTable", TableName=TABLE)
    assert model.call("ListTables")["TableNames"] == []
    model.create(TABLE, id="S")
    assert model.get("a") is None


def test_tables_are_listed_in_pages() -> None:
    """By name, and each page goes on after the last name of the one before."""
    model = Model()
    for name in ("abc", "xyz"):
        model.create(name, id="S")
    first = model.call("ListTables", Limit=2)
    assert first == {"TableNames": ["abc", "orders"], "LastEvaluatedTableName": "orders"}
    assert model.call("ListTables", ExclusiveStartTableName="orders") == {"TableNames": ["xyz"]}


def test_ttl_is_turned_on_and_off_once_each() -> None:
    """The same setting again is refused, as the service does."""
    model = Model()
    assert model.call("DescribeTimeToLive", TableName=TABLE) == {
        "TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}
    }
    for enabled in (True, False):
        wanted = {"Enabled": enabled, "AttributeName": "expiration"}
        model.call("UpdateTimeToLive", TableName=TABLE, TimeToLiveSpecification=wanted)
        again = model.refusal("UpdateTimeToLive", TableName=TABLE, TimeToLiveSpecification=wanted)
        assert again.name == "ValidationException"
        status = model.call("DescribeTimeToLive", TableName=TABLE)["TimeToLiveDescription"]["TimeToLiveStatus"]
        assert status == ("ENABLED" if enabled else "DISABLED")


def test_an_expired_item_stays() -> None:
    """A reader must not rely on the deletion, and here nothing ever is deleted."""
    model = Model()
    wanted = {"Enabled": True, "AttributeName": "expiration"}
    model.call("UpdateTimeToLive", TableName=TABLE, TimeToLiveSpecification=wanted)
    model.put("a", expiration={"N": "1"})
    model.now = 1e9
    assert model.get("a") is not None


@pytest.mark.parametrize("kind", ["S", "N", "B"])
def test_a_key_may_be_a_text_a_number_or_bytes(kind: str) -> None:
    """A number's key is the number, in whatever digits."""
    model = Model()
    model.create("keys", key=kind)
    written, asked = {"S": ("a", "a"), "N": ("1.50", "15e-1"), "B": ("AP8=", "AP8=")}[kind]
    model.call("PutItem", TableName="keys", Item={"key": {kind: written}})
    assert "Item" in model.call("GetItem", TableName="keys", Key={"key": {kind: asked}})


def test_a_table_that_cannot_be_is_refused() -> None:
    """Names, roles and types that DynamoDB does not have, and indexes, which the model does not."""
    model = Model()
    key, attributes = {"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "id", "AttributeType": "S"}
    right: dict[str, Any] = {"TableName": "right", "KeySchema": [key], "AttributeDefinitions": [attributes]}
    wrongs: list[dict[str, Any]] = [
        {"TableName": "a b"},
        {"KeySchema": []},
        {"KeySchema": [{**key, "KeyType": "RANGE"}]},
        {"AttributeDefinitions": [attributes, {"AttributeName": "other", "AttributeType": "S"}]},
        {"AttributeDefinitions": [{**attributes, "AttributeType": "BOOL"}]},
        {"GlobalSecondaryIndexes": []},
    ]
    for wrong in wrongs:
        assert model.refusal("CreateTable", **{**right, **wrong}).name == "ValidationException", wrong
    model.call("CreateTable", **right)


def test_an_operation_that_is_not_modelled_is_refused() -> None:
    """Nothing is answered that was not done."""
    assert Model().refusal("ExecuteTransaction", TransactStatements=[]).name == "UnknownOperationException"
