"""The examples in the docstrings of public names run, each by itself."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import aioidempotency
from tests.docs.blocks import Block, blocks, running

WITH_EXAMPLE = (
    "aioidempotency.AsyncIdempotencyStore",
    "aioidempotency.AsyncIdempotencyStore.aclose",
    "aioidempotency.AsyncIdempotencyStore.claim",
    "aioidempotency.AsyncIdempotencyStore.claim_many",
    "aioidempotency.AsyncIdempotencyStore.commit_once",
    "aioidempotency.AsyncIdempotencyStore.complete",
    "aioidempotency.AsyncIdempotencyStore.create_table",
    "aioidempotency.AsyncIdempotencyStore.execute",
    "aioidempotency.AsyncIdempotencyStore.forget",
    "aioidempotency.AsyncIdempotencyStore.get",
    "aioidempotency.AsyncIdempotencyStore.get_many",
    "aioidempotency.AsyncIdempotencyStore.get_or_create_id",
    "aioidempotency.AsyncIdempotencyStore.in_memory",
    "aioidempotency.AsyncIdempotencyStore.put_if_absent",
    "aioidempotency.AsyncIdempotencyStore.release",
    "aioidempotency.AsyncIdempotencyStore.renew",
    "aioidempotency.AsyncIdempotencyStore.run",
    "aioidempotency.AsyncIdempotencyStore.verify_layout",
    "aioidempotency.CompositeKey",
    "aioidempotency.DynamoDBBackend",
    "aioidempotency.GroupCommit",
    "aioidempotency.HashBuckets",
    "aioidempotency.InProgressError",
    "aioidempotency.JsonCodec",
    "aioidempotency.LeaseLostError",
    "aioidempotency.MemoryBackend",
    "aioidempotency.MismatchError",
    "aioidempotency.MissingKeyError",
    "aioidempotency.RandomBuckets",
    "aioidempotency.Reshard",
    "aioidempotency.ResultUnavailableError",
    "aioidempotency.SimpleKey",
    "aioidempotency.Static",
    "aioidempotency.StoreError",
    "aioidempotency.TimeBuckets",
    "aioidempotency.Wait",
    "aioidempotency.aws_lambda",
    "aioidempotency.aws_lambda.lambda_handler",
    "aioidempotency.aws_lambda.sqs_batch",
    "aioidempotency.aws_lambda.stream_batch",
    "aioidempotency.backends.Backend",
    "aioidempotency.codecs.Codec",
    "aioidempotency.deadline",
    "aioidempotency.events",
    "aioidempotency.idempotent",
    "aioidempotency.namespace_of",
    "aioidempotency.testing.FakeClock",
    "aioidempotency.transactions.Transaction",
)
"""Names that users meet most. Each docstring has an example."""


def modules() -> Iterator[ModuleType]:
    """Import the package, and every module without an underscore in the name."""
    yield aioidempotency
    for found in pkgutil.walk_packages(aioidempotency.__path__, "aioidempotency."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield importlib.import_module(found.name)


def docstrings() -> Iterator[tuple[str, str]]:
    """Name each public module, class, function, method and property of the package, with the docstring."""
    seen: set[int] = set()
    for module in modules():
        yield module.__name__, module.__doc__ or ""
        for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
            value = getattr(module, name)
            ours = str(getattr(value, "__module__", "")).partition(".")[0] == aioidempotency.__name__
            if (inspect.isclass(value) or inspect.isroutine(value)) and ours and id(value) not in seen:
                seen.add(id(value))
                yield f"{module.__name__}.{name}", value.__doc__ or ""
                yield from members(f"{module.__name__}.{name}", value)


def members(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Name the public members that a class itself defines."""
    if inspect.isclass(value):
        for name, member in vars(value).items():
            if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                yield f"{path}.{name}", inspect.unwrap(getattr(value, name)).__doc__ or ""


EXAMPLES: list[tuple[str, Block]] = [
    (name, block) for name, text in docstrings() for block in blocks(inspect.cleandoc(text)) if block.info
]


@pytest.mark.parametrize(("name", "block"), EXAMPLES, ids=[f"{name}:{block.line}" for name, block in EXAMPLES])
def test_the_example_of_a_docstring_runs(
    name: str, block: Block, amazon: None, shop: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U2: an example needs nothing but the imports that it shows; the one table that is there is "shop"."""
    assert block.info == "python"
    with running("docstring", name, monkeypatch) as run:
        run(block)


@pytest.mark.parametrize("path", WITH_EXAMPLE)
def test_a_name_that_users_meet_often_has_an_example(path: str) -> None:
    """U2: in its own docstring, so that an editor and `help` show the example."""
    text = inspect.cleandoc(pkgutil.resolve_name(path).__doc__)
    assert [block for block in blocks(text) if block.info == "python"]


def test_every_module_is_searched() -> None:
    """U2: the search finds methods, and names outside of the package's first module."""
    found = {name for name, _ in docstrings()}
    assert {name for name in found if "._" in name} == set()
