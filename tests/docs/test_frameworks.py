"""The page on frameworks: its files run on real servers, as its reader would run them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiobotocore.session import AioSession, get_session

from aioidempotency import AsyncIdempotencyStore
from tests.conftest import store_options
from tests.docs.blocks import blocks
from tests.support.engines import Engine

PAGES = Path(__file__).parents[2] / "docs" / "pages"
FILES = {
    block.title: block.text
    for name in ("fastapi.md", "frameworks.md")
    for block in blocks((PAGES / name).read_text(encoding="utf-8"))
    # The tests of the example of FastAPI run the file `app.py`.
    if block.title and block.title != "app.py"
}


@pytest.fixture
async def folder(
    tmp_path: Path, amazon: None, ministack: Engine, session: AioSession, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The page's files beside each other, and its table."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", ministack.endpoint_url)
    for name, text in FILES.items():
        tmp_path.joinpath(str(name)).write_text(text, encoding="utf-8")
    async with AsyncIdempotencyStore("idempotency", **store_options(ministack, session)) as store:
        await store.create_table()
    return tmp_path


def test_the_files_of_the_page_are_all_tested() -> None:
    """U2: a file that no test here runs would be an example that nobody has tried."""
    assert set(FILES) == {"service.py", "worker.py"}


async def test_the_application_answers_a_repeated_request_with_the_first_receipt(folder: Path) -> None:
    """U2: on uvicorn: a repetition replays, another caller is served, another payload and a missing key are refused."""
    async with served(folder) as url, aiohttp.ClientSession(url) as client:

        async def post(key: str | None, user: str, cents: int = 4200) -> tuple[int, object]:
            headers = {"X-User": user} | ({"Idempotency-Key": key} if key else {})
            order = {"article": "chair", "cents": cents}
            async with client.post("/orders", json=order, headers=headers) as response:
                return response.status, await response.json()

        assert await post("k-1", "anna") == (200, {"number": 1, "article": "chair"})
        assert await post("k-1", "anna") == (200, {"number": 1, "article": "chair"})
        assert await post("k-1", "bert") == (200, {"number": 2, "article": "chair"})
        assert await post("k-1", "anna", cents=1) == (422, {"detail": "MismatchError"})
        assert (await post(None, "anna"))[0] == 422


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """The application of the page under uvicorn, in a process of its own."""
    with started("-m", "uvicorn", "service:app", "--port=0", "--no-use-colors", folder=folder) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "running on" in line:
                yield line.partition("running on ")[2].split()[0]
                return
        raise AssertionError("".join(said))


@contextmanager
def started(*arguments: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


async def test_the_worker_empties_its_queue_and_sends_each_invoice_once(folder: Path) -> None:
    """U2: on SQS: a message that was sent twice is one piece of work, and a poisoned one stops nothing."""
    async with get_session().create_client("sqs") as sqs:
        queue = (await sqs.create_queue(QueueName="orders", Attributes={"VisibilityTimeout": "3600"}))["QueueUrl"]
        bodies = [json.dumps({"order_id": order_id}) for order_id in ("order-1", "order-2", "order-1")]
        for body in ["no JSON", *bodies]:
            await sqs.send_message(QueueUrl=queue, MessageBody=body)
        with started("-u", "worker.py", folder=folder, QUEUE_URL=queue) as process:
            while await left(sqs, queue) != {"visible": 0, "taken": 1}:  # noqa: ASYNC110 - each look is a request
                await asyncio.sleep(0)
            process.terminate()
            said, _ = process.communicate(timeout=20)
        await sqs.delete_queue(QueueUrl=queue)
    sent = [line for line in said.splitlines() if line.startswith("sending")]
    assert sorted(sent) == ["sending the invoice of order-1", "sending the invoice of order-2"]
    assert "comes again" in said


async def left(sqs: Any, queue: str) -> dict[str, int]:
    """Count the messages that wait, and those that were delivered and not deleted."""
    names = {"visible": "ApproximateNumberOfMessages", "taken": "ApproximateNumberOfMessagesNotVisible"}
    answer = await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=list(names.values()))
    return {name: int(answer["Attributes"][attribute]) for name, attribute in names.items()}
