"""The model without a network: requests go in and answers come out, at the time that a test sets."""

from collections.abc import Mapping
from typing import Any, final

import pytest

from bench.model.limits import Limits
from bench.model.refusals import ServiceError
from bench.model.service import REPORT, Service

Item = dict[str, dict[str, Any]]
TABLE = "orders"


@final
class Model:
    """A service with one table: its key is `id`, or `id` and `sort`. `now` is its clock."""

    def __init__(self, *, composite: bool = False, **limits: Any) -> None:
        self.service = Service(Limits(**limits) if limits else None)
        self.now = 0.0
        self.composite = composite
        self.create(TABLE, id="S", **({"sort": "S"} if composite else {}))

    def create(self, name: str, **kinds: str) -> None:
        """Make a table; the first attribute is its HASH key, the second its RANGE key."""
        self.call(
            "CreateTable",
            TableName=name,
            KeySchema=[
                {"AttributeName": each, "KeyType": k} for each, k in zip(kinds, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[{"AttributeName": each, "AttributeType": kind} for each, kind in kinds.items()],
            BillingMode="PAY_PER_REQUEST",
        )

    def call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Send one request."""
        return self.service.call(f"DynamoDB_20120810.{operation}", parameters, self.now)

    def refusal(self, operation: str, **parameters: Any) -> ServiceError:
        """Send one request that must be refused."""
        with pytest.raises(ServiceError) as refused:
            self.call(operation, **parameters)
        return refused.value

    def key(self, partition: str, sort: str = "") -> Item:
        """Make a key of the table."""
        return {"id": {"S": partition}, **({"sort": {"S": sort}} if self.composite else {})}

    def put(self, partition: str, sort: str = "", **attributes: dict[str, Any]) -> None:
        """Store an item, whatever is there."""
        self.call("PutItem", TableName=TABLE, Item={**self.key(partition, sort), **attributes})

    def get(self, partition: str, sort: str = "") -> Item | None:
        """Read an item."""
        item: Item | None = self.call(
            "GetItem", TableName=TABLE, Key=self.key(partition, sort), ConsistentRead=True
        ).get("Item")
        return item

    def counted(self, count: str, name: str = TABLE) -> float:
        """Add up one count over all partitions that the table has or had."""
        found = self.report(name)
        return float(sum(each[count] for each in found["partitions"]) + found["before_splits"].get(count, 0))

    def report(self, name: str = TABLE, **parameters: Any) -> dict[str, Any]:
        """Ask for the report on a table."""
        answer: Any = self.service.call(REPORT, parameters, self.now)["tables"]
        found: dict[str, Any] = answer[name]
        return found

    def requests(self, **parameters: Any) -> dict[str, int]:
        """Ask how many requests there were for each operation."""
        found: Any = self.service.call(REPORT, parameters, self.now)["requests"]
        return dict(found)


ABSENT: Mapping[str, Any] = {
    "ConditionExpression": "attribute_not_exists(#key)",
    "ExpressionAttributeNames": {"#key": "id"},
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
}
"""The condition that nothing is there."""


def owned_by(owner: str) -> dict[str, Any]:
    """The condition that the item has this owner."""
    return {
        "ConditionExpression": "#owner = :owner",
        "ExpressionAttributeNames": {"#owner": "owner"},
        "ExpressionAttributeValues": {":owner": {"S": owner}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
