"""PartiQL statements: each one does, costs and is refused as the plain request for the same."""

from typing import Any

import pytest

from bench.model.partiql import parsed
from bench.model.refusals import ServiceError
from tests.bench.calls import TABLE, Model

KILOBYTE = 1024
BUSY: dict[str, Any] = {"partitions": 1, "scale": 0.002, "burst": 1}
"""Two write units and six read units, and then none for a while."""
BY_ANN: dict[str, Any] = {"id": {"S": "a"}, "owner": {"S": "ann"}}
MISFITS: list[tuple[str, list[dict[str, Any]]]] = [
    ("", []),
    ("WRITE IT", []),
    ("INSERT INTO orders VALUE {'id': ?} AND", [{"S": "a"}]),
    ("INSERT INTO orders VALUE {'id': ?, 'id': ?}", [{"S": "a"}, {"S": "b"}]),
    ("INSERT INTO orders VALUE {'owner': ?}", [{"S": "a"}]),
    ("INSERT INTO orders VALUE {'id': ?}", [{"S": "x" * 2049}]),
    ("INSERT INTO orders VALUE {'id': 'a', 'data': ?}", [{"S": "x" * 410 * KILOBYTE}]),
    ("INSERT INTO orders VALUE {'id': ?}", []),
    ("INSERT INTO orders VALUE {'id': ?}", [{"S": "a"}, {"S": "b"}]),
    ("UPDATE orders SET a = ? WHERE owner = ?", [{"S": "a"}, {"S": "b"}]),
    ("UPDATE orders SET id = ? WHERE id = ?", [{"S": "b"}, {"S": "a"}]),
    ("UPDATE orders SET a = ? SET a = ? WHERE id = ?", [{"S": "a"}, {"S": "b"}, {"S": "a"}]),
    ("UPDATE orders SET a = ? REMOVE a WHERE id = ?", [{"S": "a"}, {"S": "a"}]),
    ("UPDATE orders WHERE id = ?", [{"S": "a"}]),
    ("UPDATE orders SET a = ?", [{"S": "a"}]),
    ("DELETE FROM orders WHERE id = ? OR id = ?", [{"S": "a"}, {"S": "b"}]),
    ("DELETE FROM orders WHERE id = ?", [{"N": "1"}]),
    ("DELETE FROM orders WHERE id = ?", [{"NULL": False}]),
    ("SELECT * FROM orders WHERE owner = ?", [{"S": "ann"}]),
    ("SELECT * FROM orders WHERE id = ? AND owner = ?", [{"S": "a"}, {"S": "ann"}]),
    ("SELECT id FROM orders WHERE id = ?", [{"S": "a"}]),
]


def insert(name: str, **attributes: dict[str, Any]) -> dict[str, Any]:
    """Put an item where nothing is."""
    given = {"id": {"S": name}, **attributes}
    values = ", ".join(f"'{each}': ?" for each in given)
    return {"Statement": f'INSERT INTO "{TABLE}" VALUE {{{values}}}', "Parameters": list(given.values())}


def set_status(name: str, owner: str, *, status: str = "done") -> dict[str, Any]:
    """Update an item that this owner has."""
    return {
        "Statement": f'UPDATE "{TABLE}" SET "status"=? WHERE "id"=? AND "owner"=?',
        "Parameters": [{"S": status}, {"S": name}, {"S": owner}],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def delete(name: str, owner: str) -> dict[str, Any]:
    """Delete an item that this owner has."""
    return {
        "Statement": f'DELETE FROM "{TABLE}" WHERE "id"=? AND "owner"=?',
        "Parameters": [{"S": name}, {"S": owner}],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def select(name: str, *, consistent: bool = True) -> dict[str, Any]:
    """Read an item."""
    statement = f'SELECT * FROM "{TABLE}" WHERE "id"=?'
    return {"Statement": statement, "Parameters": [{"S": name}], "ConsistentRead": consistent}


def batch(model: Model, *statements: dict[str, Any]) -> list[dict[str, Any]]:
    """Send statements together."""
    responses: list[dict[str, Any]] = model.call("BatchExecuteStatement", Statements=list(statements))["Responses"]
    assert len(responses) == len(statements)
    return responses


def codes(responses: list[dict[str, Any]]) -> list[str | None]:
    """Give the error code of each statement; None for one that has succeeded."""
    return [each["Error"]["Code"] if "Error" in each else None for each in responses]


def test_each_statement_of_a_batch_succeeds_or_fails_by_itself() -> None:
    """G3: one that is refused changes nothing for its neighbours, and says why under the service's names."""
    model = Model()
    model.put("a", owner={"S": "ann"})
    model.put("b", owner={"S": "bob"})
    responses = batch(
        model,
        insert("new", owner={"S": "cid"}),
        insert("a", owner={"S": "cid"}),
        set_status("b", "cid"),
        {"Statement": 'DELETE FROM "elsewhere" WHERE "id"=?', "Parameters": [{"S": "a"}]},
        {"Statement": "nonsense"},
        insert("large", data={"S": "x" * 410 * KILOBYTE}),
    )
    assert codes(responses) == [
        None,
        "DuplicateItem",
        "ConditionalCheckFailed",
        "ResourceNotFound",
        "ValidationError",
        "ValidationError",
    ]
    assert model.get("new") == {"id": {"S": "new"}, "owner": {"S": "cid"}}
    assert model.get("a") == BY_ANN
    assert model.get("b") == {"id": {"S": "b"}, "owner": {"S": "bob"}}


def test_only_a_failed_condition_brings_its_item_and_only_if_asked() -> None:
    """A duplicate brings none, whatever was asked for."""
    model = Model()
    model.put("a", owner={"S": "ann"})
    duplicate = {**insert("a"), "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    asked, silent = set_status("a", "bob"), set_status("a", "bob")
    del silent["ReturnValuesOnConditionCheckFailure"]
    for statement, item in ((duplicate, None), (asked, BY_ANN), (silent, None), (delete("a", "bob"), BY_ANN)):
        (response,) = batch(model, statement)
        assert response["Error"].get("Item") == item, statement


def test_an_update_of_nothing_is_refused_and_a_deletion_of_nothing_succeeds() -> None:
    """An UPDATE makes no item. AWS says that a DELETE of nothing is a success with no items deleted."""
    model = Model()
    by_key = {"Statement": f'UPDATE "{TABLE}" SET "a"=? WHERE "id"=?', "Parameters": [{"S": "x"}, {"S": "b"}]}
    responses = batch(model, set_status("a", "ann"), by_key, delete("c", "ann"))
    assert codes(responses) == ["ConditionalCheckFailed", "ConditionalCheckFailed", None]
    assert all("Item" not in each["Error"] for each in responses[:2])
    assert model.call("Scan", TableName=TABLE)["Count"] == 0


def test_a_batched_read_brings_the_items_that_are_there() -> None:
    """In the order asked; each costs by its own consistency."""
    model = Model()
    model.put("a", owner={"S": "ann"})
    responses = batch(model, select("missing"), select("a"), select("b", consistent=False))
    assert responses == [{"TableName": TABLE}, {"TableName": TABLE, "Item": BY_ANN}, {"TableName": TABLE}]
    assert model.counted("consumed_reads") == 2.5


def test_statements_cost_what_the_plain_requests_cost() -> None:
    """By the larger of old and new; a refused one by what is there, a duplicate too."""
    model = Model()
    spent = []
    for statement in (
        insert("a", owner={"S": "ann"}, data={"S": "x" * 3000}),
        insert("a"),
        set_status("a", "ann", status="x" * 2000),
        set_status("a", "bob"),
        delete("b", "ann"),
        delete("a", "ann"),
    ):
        batch(model, statement)
        spent.append(model.report(Reset=True)["partitions"][0]["consumed_writes"])
    assert spent == [3, 3, 5, 5, 1, 5]


def test_each_statement_is_throttled_by_itself() -> None:
    """HTTP 200 with the error on those for which nothing was left; they change nothing."""
    model = Model(**BUSY)
    responses = batch(model, *(insert(name) for name in "abc"))
    assert codes(responses) == [None, None, "ThrottlingError"]
    assert model.get("c") is None
    assert model.counted("throttled_writes") == 1
    reads = batch(model, *(select(str(number)) for number in range(7)))
    assert codes(reads) == [None] * 5 + ["ThrottlingError"] * 2


@pytest.mark.parametrize(
    "statements",
    [
        [],
        [insert(str(number)) for number in range(26)],
        [insert("a"), select("b")],
        [insert("a"), insert("a")],
        [insert("a"), delete("a", "ann")],
        [select("a"), select("a")],
        [{**insert("a"), "Limit": 1}],
    ],
    ids=["none", "26", "a read and a write", "two inserts", "two on one key", "two reads", "unknown parameter"],
)
def test_what_is_no_batch_is_refused_whole(statements: list[dict[str, Any]]) -> None:
    """G4: the service rejects the whole batch for two statements on one key."""
    model = Model()
    assert model.refusal("BatchExecuteStatement", Statements=statements).name == "ValidationException"
    assert model.call("Scan", TableName=TABLE)["Count"] == 0


def test_one_value_in_two_tables_or_under_two_sort_keys_is_two_keys() -> None:
    """A key is the whole of it."""
    model = Model(composite=True)
    model.create("other", id="S", sort="S")
    places = [(TABLE, "a"), (TABLE, "b"), ("other", "a")]
    text = "INSERT INTO {} VALUE {{'id': 'x', 'sort': ?}}"
    batch(model, *({"Statement": text.format(name), "Parameters": [{"S": sort}]} for name, sort in places))
    assert [model.call("Scan", TableName=name)["Count"] for name in (TABLE, "other")] == [2, 1]
    named = f'SELECT * FROM "{TABLE}" WHERE "sort"=? AND "id"=?'
    (response,) = batch(model, {"Statement": named, "Parameters": [{"S": "b"}, {"S": "x"}]})
    assert response["Item"] == model.key("x", "b")


@pytest.mark.parametrize(
    "clauses",
    ['SET "a"=? SET "b"=? REMOVE "owner"', 'SET "a"=?, "b"=? REMOVE "owner"', 'set a = ? , b=? remove "owner", "gone"'],
)
def test_assignments_are_repeated_clauses_or_a_list(clauses: str) -> None:
    """AWS documents the first form; engines take both."""
    model = Model()
    model.put("a", owner={"S": "ann"})
    text = f'UPDATE "{TABLE}" {clauses} WHERE "id"=?'
    model.call("ExecuteStatement", Statement=text, Parameters=[{"N": "1.0"}, {"BOOL": True}, {"S": "a"}])
    assert model.get("a") == {"id": {"S": "a"}, "a": {"N": "1"}, "b": {"BOOL": True}}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("\"owner\"='ann'", True),
        ("\"owner\" = 'bob'", False),
        ('"lease" IS MISSING', True),
        ('"owner" IS MISSING', False),
        ('"owner" is not missing', True),
        ("\"lease\"='ann'", False),
        ("\"owner\"='ann' AND \"lease\" IS MISSING AND \"end\"='it''s'", True),
    ],
)
def test_a_where_holds_as_the_service_says(condition: str, holds: bool) -> None:
    """Equality and absence, joined by AND."""
    model = Model()
    model.put("a", owner={"S": "ann"}, end={"S": "it's"})
    text = f'DELETE FROM "{TABLE}" WHERE "id"=\'a\' AND {condition}'
    (response,) = batch(model, {"Statement": text})
    assert codes([response]) == [None if holds else "ConditionalCheckFailed"]


def test_quotes_are_doubled_inside_quotes() -> None:
    """Names with spaces, words of the language and quotes are names."""
    statement = parsed("INSERT INTO \"my \"\"table\" VALUE {'it''s': ?, 'select': 'don''t', '\"': ?}")
    assert statement.table == 'my "table'
    assert statement.assignments == (("it's", 0), ("select", {"S": "don't"}), ('"', 1))


def test_a_statement_alone_fails_with_an_exception() -> None:
    """The same outcomes under the names of exceptions, and a read answers with a list."""
    model = Model(**BUSY)
    model.call("ExecuteStatement", **insert("a", owner={"S": "ann"}))
    assert model.call("ExecuteStatement", **select("a")) == {"Items": [BY_ANN]}
    assert model.call("ExecuteStatement", **select("b")) == {"Items": []}
    refused = model.refusal("ExecuteStatement", **set_status("a", "bob"))
    assert (refused.name, refused.fields) == ("ConditionalCheckFailedException", {"Item": BY_ANN})
    assert model.refusal("ExecuteStatement", **insert("c")).name == "ProvisionedThroughputExceededException"
    model.now = 10
    assert model.refusal("ExecuteStatement", **insert("a")).name == "DuplicateItemException"


@pytest.mark.parametrize(("text", "parameters"), MISFITS, ids=[text or "empty" for text, _ in MISFITS])
def test_what_is_no_statement_or_does_not_fit_is_refused(text: str, parameters: list[dict[str, Any]]) -> None:
    """In a batch as the error of that statement alone."""
    model = Model()
    given = {"Statement": text, "Parameters": parameters}
    assert model.refusal("ExecuteStatement", **given).name == "ValidationException"
    assert codes(batch(model, given, insert("neighbour"))) == ["ValidationError", None]


def test_a_text_is_parsed_once() -> None:
    """A batch of equal statements reads its text once, and keeps the parameters apart."""
    assert parsed(insert("a")["Statement"]) is parsed(insert("b")["Statement"])
    with pytest.raises(ServiceError):
        parsed("nonsense")


def test_requests_are_counted_by_their_operation() -> None:
    """Refused ones, too; a batch is one request, and asking for the report is none."""
    model = Model()
    batch(model, insert("a"), insert("b"))
    model.refusal("BatchExecuteStatement", Statements=[])
    model.get("a")
    found = model.requests(Reset=True)
    assert found == {"CreateTable": 1, "BatchExecuteStatement": 2, "GetItem": 1}
    assert model.requests() == {}
