"""Tables as a whole: made, described, deleted, and their TTL, by which nothing is deleted here."""

import re
from collections.abc import Mapping
from typing import Any, Final

from bench.model.expressions import Request
from bench.model.partitions import Partitions
from bench.model.refusals import ServiceError, invalid
from bench.model.tables import Database, Key, KeyAttribute, Table
from bench.model.writes import Answer

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_KINDS: Final = ("S", "N", "B")


def create_table(request: Request, database: Database, now: float) -> Answer:
    """Answer CreateTable; the table is active at once."""
    name = request.get("TableName")
    if type(name) is not str or not _NAME.fullmatch(name):
        raise invalid("TableName must have 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'")
    if name in database.tables:
        raise ServiceError("ResourceInUseException", f"Table already exists: {name}")
    table = Table(name, _key(request), _description(request, now), Partitions(database.limits, now))
    database.tables[name] = table
    return {"TableDescription": _described(table)}


def describe_table(request: Request, database: Database, _: float) -> Answer:
    """Answer DescribeTable."""
    name = request.get("TableName")
    if name not in database.tables:
        raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")
    return {"Table": _described(database.tables[name])}


def delete_table(request: Request, database: Database, _: float) -> Answer:
    """Answer DeleteTable; the table is gone at once."""
    table = database.table(request)
    del database.tables[table.name]
    return {"TableDescription": {**_described(table), "TableStatus": "DELETING"}}


def list_tables(request: Request, database: Database, _: float) -> Answer:
    """Answer ListTables."""
    names = sorted(name for name in database.tables if name > request.get("ExclusiveStartTableName", ""))
    page = names[: request.get("Limit", 100)]
    last = {"LastEvaluatedTableName": page[-1]} if len(page) < len(names) else {}
    return {"TableNames": page, **last}


def update_time_to_live(request: Request, database: Database, _: float) -> Answer:
    """Answer UpdateTimeToLive: the setting is kept, and nothing is deleted."""
    table = database.table(request)
    wanted = request.get("TimeToLiveSpecification")
    if not isinstance(wanted, dict) or not wanted.get("AttributeName"):
        raise invalid("TimeToLiveSpecification must name an attribute")
    if bool(wanted.get("Enabled")) == (table.expiration is not None):
        raise invalid(f"TimeToLive is already {'enabled' if table.expiration else 'disabled'}")
    table.expiration = wanted["AttributeName"] if wanted.get("Enabled") else None
    return {"TimeToLiveSpecification": wanted}


def describe_time_to_live(request: Request, database: Database, _: float) -> Answer:
    """Answer DescribeTimeToLive."""
    attribute = database.table(request).expiration
    described = {"TimeToLiveStatus": "ENABLED" if attribute else "DISABLED"}
    return {"TimeToLiveDescription": {**described, "AttributeName": attribute} if attribute else described}


def _key(request: Request) -> Key:
    schema: list[Mapping[str, str]] = request.get("KeySchema") or []
    kinds = {each["AttributeName"]: each["AttributeType"] for each in request.get("AttributeDefinitions") or []}
    if [each["KeyType"] for each in schema] not in (["HASH"], ["HASH", "RANGE"]):
        raise invalid("KeySchema must have a HASH key, and at most a RANGE key after it")
    if sorted(each["AttributeName"] for each in schema) != sorted(kinds):
        raise invalid("AttributeDefinitions must define exactly the attributes in KeySchema; this model has no indexes")
    if not set(kinds.values()) <= set(_KINDS):
        raise invalid("AttributeType must be S, N or B")
    attributes = [KeyAttribute(each["AttributeName"], kinds[each["AttributeName"]]) for each in schema]
    return Key(attributes[0], attributes[1] if len(attributes) > 1 else None)


def _description(request: Request, now: float) -> Mapping[str, Any]:
    mode = request.get("BillingMode", "PROVISIONED")
    return {
        "TableName": request["TableName"],
        "TableStatus": "ACTIVE",
        "KeySchema": request["KeySchema"],
        "AttributeDefinitions": request["AttributeDefinitions"],
        "CreationDateTime": now,
        "BillingModeSummary": {"BillingMode": mode},
    }


def _described(table: Table) -> Answer:
    sizes = {"ItemCount": len(table.points), "TableSizeBytes": table.size}
    return {**table.description, "TableArn": table.arn, **sizes}
