"""Generated requests: the model answers what MiniStack answers."""

import asyncio
import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from aiobotocore.session import AioSession
from botocore.exceptions import ClientError
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.bench.comparison import ONCE, by_value, create, everything
from tests.support.engines import Engine, client_options, model_engine

EXAMPLES = 25
KEYS = 3
Call = tuple[str, dict[str, Any]]

ordered: list[dict[str, Any]] = [{"S": "ann"}, {"S": "bob"}, {"N": "1"}, {"N": "1.0"}, {"N": "12"}]
values = st.sampled_from([*ordered, {"BOOL": True}])
attributes = st.sampled_from(["owner", "end"])
keys = st.integers(0, KEYS - 1)


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """A condition of one or two requirements, or none."""
    tests, names, wanted = [], {}, {}
    for number in range(draw(st.integers(0, 2))):
        name = f"#n{number}"
        names[name] = draw(st.sampled_from(["id", "owner", "end"]))
        kind = draw(st.sampled_from(["attribute_exists", "attribute_not_exists", "=", "=", "<>", ">="]))
        if kind.startswith("attribute"):
            tests.append(f"{kind}({name})")
            continue
        tests.append(f"{name} {kind} :v{number}")
        wanted[f":v{number}"] = draw(st.sampled_from(ordered) if kind == ">=" else values)
    if not tests:
        return {}
    shown = {"ReturnValuesOnConditionCheckFailure": draw(st.sampled_from(["ALL_OLD", "ALL_OLD", "NONE"]))}
    placeholders = {"ExpressionAttributeNames": names, **({"ExpressionAttributeValues": wanted} if wanted else {})}
    joint = draw(st.sampled_from([" AND ", " AND ", " OR "]))
    return {"ConditionExpression": joint.join(tests), **placeholders, **shown}


@st.composite
def actions(draw: st.DrawFn) -> tuple[str, int, dict[str, Any]]:
    """One write: its kind, the number of its key, and its parameters but for the key."""
    kind = draw(st.sampled_from(["Put", "Put", "Update", "Delete"]))
    given = draw(conditions())
    if kind == "Put":
        return kind, draw(keys), {"Item": draw(st.dictionaries(attributes, values)), **given}
    if kind == "Update":
        changed = {"#new": draw(attributes), **given.pop("ExpressionAttributeNames", {})}
        wanted = {":new": draw(values), **given.pop("ExpressionAttributeValues", {})}
        given |= {"UpdateExpression": "SET #new = :new", "ExpressionAttributeNames": changed}
        given |= {"ExpressionAttributeValues": wanted}
    return kind, draw(keys), given


steps = st.one_of(
    actions().map(lambda action: [action]),
    actions().map(lambda action: [action]),
    st.lists(actions(), min_size=2, max_size=KEYS, unique_by=lambda action: action[1]),
)


def test_the_model_answers_as_ministack_does(ministack: Engine, session: AioSession) -> None:
    """Single writes and transactions have equal outcomes, equal refusals by index, and leave equal items."""
    tables = (f"{secrets.token_hex(6)}-{number}" for number in itertools.count())
    seen: set[object] = set()
    with model_engine() as model, asyncio.Runner() as runner:

        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
        @given(st.lists(steps, min_size=6, max_size=16))
        def answers_alike(sequence: Sequence[Sequence[tuple[str, int, dict[str, Any]]]]) -> None:
            runner.run(compare(session, (model, ministack), next(tables), sequence, seen))

        answers_alike()
    assert seen >= {"applied", "ConditionalCheckFailedException", "TransactionCanceledException"}


async def compare(
    session: AioSession,
    engines: tuple[Engine, Engine],
    table: str,
    sequence: Sequence[Sequence[tuple[str, int, dict[str, Any]]]],
    seen: set[object],
) -> None:
    one, other = (session.create_client("dynamodb", config=ONCE, **client_options(engine)) for engine in engines)
    async with one as first, other as second:
        for client in (first, second):
            await create(client, table)
        for step in sequence:
            call = written(table, step)
            found, expected = await outcome(first, call), await outcome(second, call)
            assert found == expected, call
            seen.add(found[0])
        assert await everything(first, table) == await everything(second, table)


def written(table: str, step: Sequence[tuple[str, int, dict[str, Any]]]) -> Call:
    """Write a step as one request: a write of its own, or a transaction."""
    named = [(kind, {"TableName": table, **placed(kind, key, parameters)}) for kind, key, parameters in step]
    if len(named) == 1:
        kind, parameters = named[0]
        return f"{kind.lower()}_item", parameters
    return "transact_write_items", {"TransactItems": [{kind: parameters} for kind, parameters in named]}


def placed(kind: str, number: int, parameters: dict[str, Any]) -> dict[str, Any]:
    key = {"id": {"S": f"key-{number}"}}
    return {**parameters, "Item": {**parameters["Item"], **key}} if kind == "Put" else {**parameters, "Key": key}


async def outcome(client: Any, call: Call) -> tuple[str, object]:
    """Send a request; what counts is its outcome, not the words."""
    method, parameters = call
    try:
        await getattr(client, method)(**parameters)
    except ClientError as error:
        response: Mapping[str, Any] = cast("Mapping[str, Any]", error.response)
        reasons = [(each.get("Code"), by_value(each.get("Item"))) for each in response.get("CancellationReasons", [])]
        return response["Error"]["Code"], (by_value(response.get("Item")), reasons)
    return "applied", None
