"""Generated batches of statements: the model answers what MiniStack answers.

Not generated is what MiniStack takes and the service does not: two statements on one key, and reads
among writes.
"""

import asyncio
import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from aiobotocore.session import AioSession
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.bench.comparison import ONCE, by_value, create, everything
from tests.support.engines import Engine, client_options, model_engine

EXAMPLES = 25
KEYS = 4
Part = tuple[str, list[dict[str, Any]]]
"""A piece of a statement and its parameters; `{}` stands for the table."""

choices: list[dict[str, Any]] = [{"S": "ann"}, {"S": "bob"}, {"N": "1"}, {"N": "1.0"}, {"BOOL": True}]
values = st.sampled_from(choices)
attributes = st.sampled_from(["owner", "end"])


@st.composite
def conditions(draw: st.DrawFn) -> Part:
    """None, or one or two requirements besides the key."""
    text = ""
    parameters: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 2))):
        name = draw(attributes)
        if draw(st.booleans()):
            text += f' AND "{name}"=?'
            parameters.append(draw(values))
        else:
            text += f' AND "{name}" IS MISSING'
    return text, parameters


@st.composite
def writes(draw: st.DrawFn, key: dict[str, Any]) -> dict[str, Any]:
    """One write of one key."""
    kind = draw(st.sampled_from(["INSERT", "INSERT", "UPDATE", "DELETE"]))
    if kind == "INSERT":
        item = {"id": key, **draw(st.dictionaries(attributes, values))}
        named = ", ".join(f"'{name}': ?" for name in item)
        return {"Statement": f'INSERT INTO "{{}}" VALUE {{{{{named}}}}}', "Parameters": list(item.values())}
    condition, wanted = draw(conditions())
    where = f'WHERE "id"=?{condition}'
    shown = {"ReturnValuesOnConditionCheckFailure": draw(st.sampled_from(["ALL_OLD", "NONE"]))}
    if kind == "DELETE":
        return {"Statement": f'DELETE FROM "{{}}" {where}', "Parameters": [key, *wanted], **shown}
    new = draw(st.dictionaries(attributes, values, min_size=1))
    clauses = draw(st.sampled_from([" SET ", ", "])).join(f'"{name}"=?' for name in new)
    gone = draw(st.sampled_from(["", ' REMOVE "status"']))
    text = f'UPDATE "{{}}" SET {clauses}{gone} {where}'
    return {"Statement": text, "Parameters": [*new.values(), key, *wanted], **shown}


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Some writes, or some reads, of keys that differ."""
    numbers = draw(st.lists(st.integers(0, KEYS - 1), min_size=1, max_size=KEYS, unique=True))
    keys = [{"S": f"key-{number}"} for number in numbers]
    if draw(st.integers(0, 3)):
        return [draw(writes(key)) for key in keys]
    return [{"Statement": 'SELECT * FROM "{}" WHERE "id"=?', "Parameters": [key]} for key in keys]


def test_the_model_answers_batches_as_ministack_does(ministack: Engine, session: AioSession) -> None:
    """Equal outcomes for each statement, equal items shown, and equal items left."""
    tables = (f"{secrets.token_hex(6)}-{number}" for number in itertools.count())
    seen: set[object] = set()
    with model_engine() as model, asyncio.Runner() as runner:

        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
        @given(st.lists(batches(), min_size=6, max_size=16))
        def answers_alike(sequence: Sequence[Sequence[dict[str, Any]]]) -> None:
            runner.run(compare(session, (model, ministack), next(tables), sequence, seen))

        answers_alike()
    assert seen == {None, "DuplicateItem", "ConditionalCheckFailed"}


async def compare(
    session: AioSession,
    engines: tuple[Engine, Engine],
    table: str,
    sequence: Sequence[Sequence[dict[str, Any]]],
    seen: set[object],
) -> None:
    one, other = (session.create_client("dynamodb", config=ONCE, **client_options(engine)) for engine in engines)
    async with one as first, other as second:
        for client in (first, second):
            await create(client, table)
        for batch in sequence:
            statements = [{**each, "Statement": each["Statement"].format(table)} for each in batch]
            found, expected = await outcomes(first, statements), await outcomes(second, statements)
            assert found == expected, statements
            seen.update(code for code, *_ in found)
        assert await everything(first, table) == await everything(second, table)


async def outcomes(client: Any, statements: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Send a batch: for each statement its error, the item with it, and the item that was read."""
    responses = (await client.batch_execute_statement(Statements=statements))["Responses"]
    return [
        (error.get("Code"), by_value(error.get("Item")), by_value(each.get("Item")), each.get("TableName"))
        for each in responses
        for error in (each.get("Error", {}),)
    ]
