"""What `import aioidempotency` brings, and what it leaves to those who ask for it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import aioidempotency
from aioidempotency import transactions

ROOT = Path(__file__).parents[2]

OTHERS = (
    "moto",
    "ministack",
    "typer",
    "rich",
    "pydantic",
    "fastapi",
    "starlette",
    "opentelemetry",
    "aws_lambda_powertools",
    "pytest",
    "hypothesis",
)
"""Packages that only integrations, the command or the tests need."""

OF_DYNAMODB = ("aiobotocore", "botocore", "aiohttp", "urllib3", "httptools")
"""Packages that only a store on DynamoDB needs."""

PARTS = ("asgi", "fastapi", "aiohttp", "aws_lambda", "opentelemetry", "powertools", "testing", "_cli", "__main__")
"""The library's own modules that a user asks for."""


def loaded_by(statement: str, **environment: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    return set(json.loads(ran.stdout))


def test_importing_the_library_imports_no_integration() -> None:
    """U4: neither integrations, nor the command, nor what they and the tests need."""
    bare, loaded = loaded_by("pass"), loaded_by("import aioidempotency")
    added = loaded - bare
    assert "aioidempotency" in added
    assert not added & set(OTHERS)
    assert not added & {f"aioidempotency.{part}" for part in PARTS}


def test_importing_the_library_imports_no_client() -> None:
    """U4: what only a store on DynamoDB needs, or only a key that is more than a dotted name."""
    assert not loaded_by("import aioidempotency") & {*OF_DYNAMODB, "jmespath"}


def test_using_the_library_imports_no_integration() -> None:
    """U4: a call and its replay bring pydantic no more than the import does."""
    call = """
import asyncio, dataclasses
from aioidempotency import AsyncIdempotencyStore, idempotent

@dataclasses.dataclass
class Receipt:
    number: int

@idempotent(AsyncIdempotencyStore.in_memory())
async def charge(order_id: str) -> Receipt:
    return Receipt(1)

async def main():
    assert await charge("a") == await charge("a") == Receipt(1)

asyncio.run(main())
"""
    assert not loaded_by(call) & set(OTHERS)


def test_a_store_in_memory_needs_no_client() -> None:
    """U4: calls with keys by name, by callable and of all arguments; blocks, overrides and direct calls."""
    calls = """
import asyncio
from aioidempotency import AsyncIdempotencyStore, MemoryBackend, idempotent

store = AsyncIdempotencyStore.in_memory()

@idempotent(store, key="order.id", fingerprint=lambda order: order)
async def charge(order: dict[str, str]) -> str:
    return order["id"]

@idempotent(store)
async def send(order: str) -> str:
    return order

async def main():
    assert await charge({"id": "a"}) == await charge({"id": "a"}) == await send("a")
    async with store.execute("block") as execution:
        execution.complete(1)
    with store.override(backend=MemoryBackend()):
        assert await charge({"id": "b"}) == "b"
    assert await store.get("block")
    assert await store.forget("block")
    await store.put_if_absent("items", {"pk": "a"})
    await store.aclose()

asyncio.run(main())
"""
    assert not loaded_by(calls) & {*OF_DYNAMODB, "jmespath"}


def test_an_expression_loads_jmespath() -> None:
    """U4: where a key is more than a dotted name."""
    decorated = """
from aioidempotency import AsyncIdempotencyStore, idempotent

@idempotent(AsyncIdempotencyStore.in_memory(), key="[tenant, order_id]")
async def charge(tenant: str, order_id: str) -> str:
    return order_id
"""
    loaded = loaded_by(decorated)
    assert "jmespath" in loaded
    assert not loaded & set(OF_DYNAMODB)


def test_making_a_store_loads_no_aiobotocore() -> None:
    """U4: a store on DynamoDB loads aiobotocore and aiohttp when it opens a client, and not when it is made."""
    made = "from aioidempotency import AsyncIdempotencyStore\nAsyncIdempotencyStore('orders')"
    assert not loaded_by(made) & {"aiobotocore.session", "aiohttp"}


def test_a_snapshot_of_lambda_holds_aiobotocore() -> None:
    """L1: what is loaded before the snapshot is there after each restore, where calls will need aiobotocore."""
    made = "from aioidempotency import AsyncIdempotencyStore\nAsyncIdempotencyStore('orders')"
    loaded = loaded_by(made, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    assert {"aiobotocore.session", "aiohttp"} <= loaded


def test_names_that_load_botocore_are_names_like_others() -> None:
    """U4: they are listed, stay the same, can be pickled, and a misspelt name is an error as ever."""
    used = """
import pickle
import aioidempotency
from aioidempotency.backends import dynamodb

for module in (aioidempotency, dynamodb):
    assert {"DynamoDBBackend", "GroupCommit"} <= set(dir(module))
    assert module.GroupCommit is module.GroupCommit
    try:
        module.GroupComit
    except AttributeError as error:
        assert "has no attribute 'GroupComit'" in str(error)
    else:
        raise AssertionError
assert aioidempotency.GroupCommit is dynamodb.GroupCommit
assert aioidempotency.DynamoDBBackend is dynamodb.DynamoDBBackend
assert pickle.loads(pickle.dumps(aioidempotency.GroupCommit)) is aioidempotency.GroupCommit
assert pickle.loads(pickle.dumps(aioidempotency.GroupCommit(max_batch=5))) == aioidempotency.GroupCommit(max_batch=5)
"""
    assert "botocore" in loaded_by(used)


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    """U1: in the package, in its metadata, and at the top of the changelog."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert aioidempotency.__version__ == project["version"] == newest


def test_exported_names_are_pinned() -> None:
    """U4: the public names; a new one is a decision, a lost one breaks users."""
    assert sorted(aioidempotency.__all__) == NAMES
    types = ["Condition", "Expressions", "OutboxEvent", "Reason", "Transaction", "TransactionClosedError", "Writes"]
    assert transactions.__all__ == types
    assert all(hasattr(transactions, name) for name in types)
    exported: dict[str, Any] = {}
    exec("from aioidempotency import *", exported)
    assert sorted(exported.keys() - {"__builtins__"}) == NAMES


NAMES = [
    "AsyncIdempotencyStore",
    "AttributeNames",
    "Backend",
    "Claimed",
    "Codec",
    "CompositeKey",
    "ConfigurationError",
    "CustomPartition",
    "Decision",
    "DynamoDBBackend",
    "Execution",
    "GroupCommit",
    "HashBuckets",
    "IdempotencyError",
    "InProgress",
    "InProgressError",
    "JsonCodec",
    "LayoutMismatchError",
    "Lease",
    "LeaseLostError",
    "MemoryBackend",
    "Mismatch",
    "MismatchError",
    "MissingKeyError",
    "PartitioningError",
    "RandomBuckets",
    "Record",
    "Replay",
    "Reshard",
    "ResultUnavailableError",
    "SerializationError",
    "SimpleKey",
    "Static",
    "Status",
    "StoreError",
    "TimeBuckets",
    "TransactionError",
    "Wait",
    "deadline",
    "idempotent",
    "namespace_of",
]
