"""Generated sequences of operations: every engine answers as the dictionary in memory does."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count, product
from typing import Literal, cast, final

import pytest
from aiobotocore.session import AioSession
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aioidempotency import AttributeNames, Backend, CompositeKey, DynamoDBBackend, MemoryBackend, SimpleKey
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged
from aioidempotency._core.model import AttributeValue, Item, Location, Role
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Delete,
    Found,
    FoundAll,
    Get,
    Operation,
    Put,
    Reply,
    TransactionFailed,
    Update,
)
from tests.conftest import store_options
from tests.support.engines import Engine

KEYS = 2
EXAMPLES = 25
STEPS = 12
Changes = Mapping[Role, AttributeValue]

texts: dict[Role, list[str]] = {
    "status": ["INPROGRESS", "COMPLETED"],
    "owner": ["ann", "bob"],
    "data": ["", "{}", "\u20ac"],
    "validation": ["a", "b"],
}
numbers: dict[Role, list[str]] = {
    "fencing_token": ["1", "2", "2.0"],
    "expiration": ["4102448400", "41024484E+2", "4102448400.5"],
    "in_progress_expiration": ["5", "05", "1795000000000"],
}
values: dict[Role, list[AttributeValue]] = {
    **{role: [{"S": text} for text in each] for role, each in texts.items()},
    **{role: [{"N": digits} for digits in each] for role, each in numbers.items()},
}
attributes: dict[Role, st.SearchStrategy[AttributeValue]] = {
    role: st.sampled_from(each) for role, each in values.items()
}


@final
@dataclass(frozen=True)
class Step:
    """One operation on one of a few keys; what it says about a record refers to what is stored by then."""

    kind: Literal["put", "update", "delete", "get"]
    key: int
    changes: Changes
    condition: Literal["absent", "ann", "bob", "unchanged"]
    moved: Changes

    def on(self, location: Location, seen: Item | None) -> Operation:
        """Write the operation down, now that the key has a name and something is stored there or not."""
        wanted = self._condition({**(seen or {}), **_named(location, self.moved)})
        match self.kind:
            case "put":
                return Put(location, {**location.item, **_named(location, self.changes)}, wanted)
            case "update":
                return Update(location, self.changes, wanted)
            case "delete":
                return Delete(location, wanted)
            case "get":
                return Get(location)

    def _condition(self, seen: Item) -> Condition:
        match self.condition:
            case "absent":
                return Absent()
            case "unchanged":
                return Unchanged({name: _respelled(value) for name, value in seen.items()})
            case owner:
                return HeldBy(owner)


nothing: Changes = {}
some: st.SearchStrategy[Changes] = st.fixed_dictionaries({}, optional=attributes).filter(bool)
steps = st.builds(
    Step,
    kind=st.sampled_from(["put", "put", "update", "update", "delete", "get"]),
    key=st.integers(0, KEYS - 1),
    changes=some,
    condition=st.sampled_from(["absent", "ann", "bob", "unchanged", "unchanged"]),
    moved=st.just(nothing) | st.just(nothing) | some,
)


@pytest.mark.parametrize("layout", [SimpleKey(), CompositeKey()], ids=["simple", "composite"])
def test_an_engine_answers_as_the_memory_does(
    engine: Engine, session: AioSession, layout: SimpleKey | CompositeKey
) -> None:
    """O1: what is proved against the memory holds on DynamoDB: equal replies, equal items at the end."""
    table = layout.table(f"test-{secrets.token_hex(6)}", AttributeNames())
    example = count()
    outcomes: set[tuple[type, type, bool]] = set()

    with asyncio.Runner() as runner:
        backend = DynamoDBBackend(**store_options(engine, session))

        # Shrinking would send thousands of requests; twelve steps can be read as they are.
        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
        @given(st.lists(steps, min_size=4, max_size=STEPS))
        def answers_alike(sequence: Sequence[Step]) -> None:
            number = next(example)
            locations = [layout.route(table, f"{number}#{key}").locations(0)[0] for key in range(KEYS)]
            runner.run(_compare(backend, locations, sequence, outcomes))

        try:
            runner.run(backend.create_table(table))
            answers_alike()
        finally:
            runner.run(backend.aclose())
    assert outcomes >= set(product((Put, Update, Delete), (Applied, ConditionFailed), (True, False)))


async def _compare(
    backend: Backend, locations: Sequence[Location], sequence: Sequence[Step], outcomes: set[tuple[type, type, bool]]
) -> None:
    memory = MemoryBackend()
    for step in sequence:
        location = locations[step.key]
        seen = await _stored(memory, location)
        operation = step.on(location, seen)
        expected = await memory.execute(operation)
        assert _normal(await backend.execute(operation)) == _normal(expected), operation
        outcomes.add((type(operation), type(expected), seen is None))
    for location in locations:
        assert _normal(await backend.execute(Get(location))) == _normal(await memory.execute(Get(location)))


async def _stored(backend: Backend, location: Location) -> Item | None:
    reply = await backend.execute(Get(location))
    assert isinstance(reply, Found)
    return reply.item


def _named(location: Location, changes: Changes) -> Item:
    return {location.table.names[role]: value for role, value in changes.items()}


def _respelled(value: AttributeValue) -> AttributeValue:
    """Write a number with other digits, as another reader of the item may."""
    return {"N": f"{Decimal(cast('str', value['N'])):E}"} if "N" in value else value


def _normal(reply: Reply) -> object:
    """Compare numbers by value: DynamoDB normalises their digits."""
    match reply:
        case Applied():
            return reply
        case ConditionFailed(item) | Found(item):
            return type(reply), None if item is None else {name: _value(value) for name, value in item.items()}
        case TransactionFailed(failures):
            return tuple(None if each is None else _normal(each) for each in failures)
        case FoundAll(items):
            return tuple(_normal(Found(item)) for item in items)


def _value(value: AttributeValue) -> object:
    return Decimal(cast("str", value["N"])) if "N" in value else value
