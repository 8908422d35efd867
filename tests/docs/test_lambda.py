"""The page on Lambda and its example: each file runs under Amazon's runtime client, with events as Lambda makes them."""

import ast
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession
from cfnlint import api as cfnlint
from cfnlint.config import ManualArgs

from aioidempotency import AsyncIdempotencyStore
from tests.conftest import store_options
from tests.docs.blocks import blocks
from tests.support.engines import Engine
from tests.support.lambda_events import change, event, failures, message
from tests.support.lambda_runtime import Runtime, running
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Amazon's client is made for Linux")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pages" / "lambda.md").read_text(encoding="utf-8")
FILES = {str(block.title): block.text for block in blocks(PAGE) if block.title}
EXAMPLE = ROOT / "docs" / "examples" / "lambda"
GRANTED = {"PutItem", "UpdateItem", "DeleteItem", "GetItem"}

Run = Callable[..., AbstractAsyncContextManager[Runtime]]


@pytest.fixture
async def run(tmp_path: Path, amazon: None, ministack: Engine, session: AioSession) -> Run:
    """Runs the handler of a file of the page, or of the example, on a table that is there."""
    for name, text in FILES.items():
        tmp_path.joinpath(name).write_text(text, encoding="utf-8")
    tmp_path.joinpath("app.py").write_text(EXAMPLE.joinpath("app.py").read_text(encoding="utf-8"), encoding="utf-8")
    async with AsyncIdempotencyStore("idempotency", **store_options(ministack, session)) as store:
        await store.create_table()

    def start(name: str, **variables: str) -> AbstractAsyncContextManager[Runtime]:
        amazons = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return running(f"{name}.handler", tmp_path, **{**amazons, "TABLE": "idempotency", **variables})

    return start


def said(runtime: Runtime, word: str) -> list[str]:
    """The lines that the handler printed and that begin with a word."""
    return [line for line in runtime.said.splitlines() if line.startswith(word)]


def test_the_files_of_the_page_are_all_tested() -> None:
    """U2: a file that no test here runs would be an example that nobody has tried."""
    names = {"lambda_function", "queue_handler", "stream_handler", "eventbridge", "s3", "api", "steps"}
    assert set(FILES) == {f"{name}.py" for name in names | {"observed", "processed"}}


async def test_a_handler_charges_each_order_once(run: Run) -> None:
    """U2, L1: the first file of the page."""
    async with run("lambda_function") as runtime:
        answers = [await runtime.result({"order_id": order}) for order in ("1", "1", "2")]
    assert answers == [{"charged": "1"}, {"charged": "1"}, {"charged": "2"}]
    assert said(runtime, "charging") == ["charging 1", "charging 2"]


async def test_a_queue_reports_what_failed(run: Run) -> None:
    """U2, L5: two messages of one order, and one that is no JSON."""
    batch = event(message("a", {"order_id": "1"}), message("b", {"order_id": "1"}), message("c", "no JSON"))
    async with run("queue_handler") as runtime:
        assert failures(await runtime.result(batch)) == ["c"]
        assert failures(await runtime.result(batch)) == ["c"]
    assert said(runtime, "charging") == ["charging 1"]
    assert said(runtime, "poison") == ["poison: SerializationError"] * 2


async def test_a_stream_is_indexed_once(run: Run) -> None:
    """U2, L6: changes of a table."""
    async with run("stream_handler") as runtime:
        for _ in range(2):
            assert failures(await runtime.result(event(change(1), change(2)))) == []
    assert len(said(runtime, "indexing")) == 2


OBJECT = {"key": "a.csv", "sequencer": "0A1B2C3D4E5F678901"}
RECIPES: dict[str, tuple[list[Any], str, list[str]]] = {
    "eventbridge": (
        [
            {"id": "1", "source": "shop", "detail-type": "OrderPlaced", "detail": {"order_id": "1"}},
            {"id": "2", "source": "shop", "detail-type": "OrderPlaced", "detail": {"order_id": "1"}},
            {"id": "3", "source": "shop", "detail-type": "OrderPaid", "detail": {"order_id": "1"}},
        ],
        "shipping",
        ["shipping 1", "shipping 1"],
    ),
    "s3": (
        [
            event({"eventSource": "aws:s3", "s3": {"bucket": {"name": "in"}, "object": each}})
            for each in (OBJECT, OBJECT, {**OBJECT, "sequencer": "0B"})
        ],
        "reading",
        ["reading a.csv", "reading a.csv"],
    ),
    "steps": (
        [
            {"execution": "arn:1", "state": "Charge", "input": {"order_id": "1"}, "task_token": token}
            for token in ("first", "second")
        ],
        "",
        ["charging 1", "answering first", "answering second"],
    ),
}


@pytest.mark.parametrize("name", RECIPES)
async def test_the_field_of_a_recipe_names_the_work(run: Run, name: str) -> None:
    """U2, C1: a repetition of the work replays, and other work runs."""
    events, word, expected = RECIPES[name]
    async with run(name) as runtime:
        answers = [await runtime.result(each) for each in events]
    assert answers[0] == answers[1]
    assert [line for line in said(runtime, word) if line and not line.startswith("[")] == expected


async def test_the_recipe_of_an_api_keeps_callers_apart(run: Run) -> None:
    """U2: the header is the client's, and the caller comes from the authorizer; wrong requests have their status."""

    def request(caller: str | None, key: str | None, article: str = "chair") -> dict[str, Any]:
        return {
            "version": "2.0",
            "rawPath": "/orders",
            "headers": {"idempotency-key": key} if key else {},
            "requestContext": {"authorizer": {"jwt": {"claims": {"sub": caller} if caller else {}}}},
            "body": json.dumps({"article": article}),
        }

    async with run("api") as runtime:
        first = await runtime.result(request("anna", "k"))
        assert first["statusCode"] == 201
        assert await runtime.result(request("anna", "k")) == first
        assert await runtime.result(request("bert", "k")) == first
        refused = [request("anna", "k", "table"), request("anna", None), request(None, "k")]
        assert [(await runtime.result(each))["statusCode"] for each in refused] == [422, 400, 400]
    assert said(runtime, "placing") == ["placing chair"] * 2


async def test_powertools_logger_tracer_and_events_stand_above(run: Run) -> None:
    """U2: the logger knows the invocation inside of a record's handler."""
    batch = event(message("a", {"order_id": "1"}), message("b", {"order_id": "1"}))
    async with run("observed", POWERTOOLS_TRACE_DISABLED="true", AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512") as runtime:
        assert failures(await runtime.result(batch)) == []
    lines = [json.loads(line) for line in runtime.said.splitlines() if line.startswith("{")]
    assert [(each["message"], each["order_id"]) for each in lines] == [("charging", "1")]
    assert lines[0]["function_request_id"] == "request-1"


async def test_powertools_batch_processor_keeps_its_loop(run: Run) -> None:
    """U2: its record handler is idempotent over several invocations, on the one loop that the processor keeps."""
    batch = event(message("a", {"order_id": "1"}), message("b", "no JSON"))
    async with run("processed", LAMBDA_TASK_ROOT="/var/task", POWERTOOLS_TRACE_DISABLED="true") as runtime:
        for _ in range(2):
            assert failures(await runtime.result(batch)) == ["b"]
    assert said(runtime, "charging") == ["charging 1"]


async def test_the_example_needs_no_more_permissions_than_its_templates_grant(run: Run, ministack: Engine) -> None:
    """U2: success, repetition and failure ask for nothing else; the page and both templates grant the same."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        batch = event(message("a", {"order_id": "1"}), message("b", {"id": "canary"}), message("c", {"order_id": {}}))
        async with run("app", AWS_ENDPOINT_URL_DYNAMODB=proxy.url) as runtime:
            for _ in range(2):
                assert failures(await runtime.result(batch)) == ["b", "c"]
        assert {seen.operation for seen in proxy.requests} <= GRANTED
    assert said(runtime, "charging") == ["charging 1"]
    policy = next(json.loads(block.text) for block in blocks(PAGE) if block.language == "json")
    for granting in json.dumps(policy), text("template.yaml"), text("stack.py"):
        assert set(re.findall(r"dynamodb:([A-Z]\w+)", granting)) == GRANTED


def text(name: str) -> str:
    return EXAMPLE.joinpath(name).read_text(encoding="utf-8")


def test_the_template_is_one_that_sam_accepts() -> None:
    """U2: cfn-lint transforms it as SAM does, and checks each property."""
    found = cfnlint.lint(text("template.yaml"), config=ManualArgs(regions=["eu-central-1"]))
    assert [str(match) for match in found] == []


def test_both_templates_report_failures_and_point_to_the_handler() -> None:
    """U2: without `ReportBatchItemFailures`, Lambda would delete what failed."""
    assert "ReportBatchItemFailures" in text("template.yaml")
    assert "report_batch_item_failures=True" in text("stack.py")
    for name in "template.yaml", "stack.py":
        assert "app.handler" in text(name)
        assert "expiration" in text(name)
    ast.parse(text("stack.py"))
