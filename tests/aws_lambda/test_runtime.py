"""Handlers under Amazon's own runtime interface client, in processes of their own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import final

import pytest
from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore
from tests.conftest import store_options
from tests.support.engines import Engine
from tests.support.lambda_events import event, failures, message
from tests.support.lambda_runtime import Answer, Runtime, running
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Amazon's client is made for Linux")

TOP = """
import asyncio, os, random, sys
from aioidempotency import AsyncIdempotencyStore, ConfigurationError, idempotent
from aioidempotency.aws_lambda import lambda_handler, sqs_batch

store = AsyncIdempotencyStore(os.environ["TABLE"])
"""


@final
class Function:
    """A folder for a handler's module, and a table behind a proxy."""

    def __init__(self, folder: Path, store: AsyncIdempotencyStore, proxy: FaultProxy) -> None:
        self.folder = folder
        self.store = store
        self.proxy = proxy

    def running(
        self, module: str, handler: str = "app.handler", **variables: str
    ) -> AbstractAsyncContextManager[Runtime]:
        """Write the module, and run its handler."""
        self.folder.joinpath("app.py").write_text(TOP + module, encoding="utf-8")
        reached = {
            "TABLE": "records",
            "AWS_ENDPOINT_URL_DYNAMODB": self.proxy.url,
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        return running(handler, self.folder, **{**reached, **variables})


@pytest.fixture
async def function(tmp_path: Path, ministack: Engine, session: AioSession) -> AsyncIterator[Function]:
    async with FaultProxy(ministack.endpoint_url) as proxy:
        direct = store_options(ministack, session)
        async with AsyncIdempotencyStore("records", **direct) as store:
            await store.create_table()
            yield Function(tmp_path, store, proxy)
        async with direct.pop("session").create_client("dynamodb", **direct) as client:
            await client.delete_table(TableName="records")


CHARGE = """
@lambda_handler
@idempotent(store, key="event.id", namespace="charges")
async def handler(event, context):
    print("charging", event["id"])
    return {"charged": event["id"], "loop": id(asyncio.get_running_loop())}
"""


async def test_three_invocations_share_one_connection(function: Function) -> None:
    """L1: one loop and one client for all of them, also after a freeze; the repeated one replays."""
    async with function.running(CHARGE) as runtime:
        first = await runtime.result({"id": "1"})
        runtime.freeze()
        runtime.thaw()
        assert await runtime.result({"id": "1"}) == first
        assert (await runtime.result({"id": "2"}))["loop"] == first["loop"]
    assert runtime.said.count("charging") == 2
    assert function.proxy.connections == 1
    assert "Warning" not in runtime.said


async def test_after_a_freeze_a_connection_that_was_closed_is_replaced(function: Function) -> None:
    """L1, L2: the server has hung up while the process slept; the next invocation is served all the same."""
    async with function.running(CHARGE) as runtime:
        await runtime.result({"id": "1"})
        runtime.freeze()
        await function.proxy.hang_up()
        runtime.thaw()
        assert (await runtime.result({"id": "2"}))["charged"] == "2"
    assert function.proxy.connections == 2
    assert "Warning" not in runtime.said


async def test_the_record_names_function_log_stream_and_request(function: Function) -> None:
    """L1: whoever finds a record that hangs finds its log."""
    async with function.running(CHARGE) as runtime:
        for order in "1", "2":
            await runtime.result({"id": order})
    for order in "1", "2":
        record = await function.store.get(order, namespace="charges")
        assert record is not None
        assert record.claimed_by == f"charges 2026/01/01/[$LATEST]0123 request-{order}"


SLOW = """
@lambda_handler(margin=1.5)
@idempotent(store, key="event.id", namespace="charges")
async def handler(event, context):
    if event.get("slow"):
        await asyncio.sleep(60)
    return "done"
"""


async def test_a_handler_that_outlives_its_time_gives_its_key_back(function: Function) -> None:
    """L4: it is cancelled before the end; Lambda gets an error, the key is free, and the process serves the next one."""
    async with function.running(SLOW) as runtime:
        answer = await runtime.invoke({"id": "1", "slow": True}, seconds=2.5)
        assert (answer.kind, answer.body["errorType"]) == ("error", "TimeoutError")
        assert "1.5 s before the end of the invocation" in answer.body["errorMessage"]
        assert await function.store.get("1", namespace="charges") is None
        assert await runtime.result({"id": "1"}) == "done"
    assert function.proxy.connections == 1


async def test_an_invocation_without_time_claims_nothing(function: Function) -> None:
    """L4: less is left than the margin, so the handler does not start."""
    async with function.running(SLOW) as runtime:
        answer = await runtime.invoke({"id": "1"}, seconds=1)
        assert answer.body["errorType"] == "TimeoutError"
        assert "did not start" in answer.body["errorMessage"]
    assert function.proxy.requests == []


LEFTOVER = """
async def report(order):
    await asyncio.sleep(0 if order == "none" else 1000)

@lambda_handler{options}
async def handler(event, context):
    tasks = len(asyncio.all_tasks())
    asyncio.create_task(report(event["id"]), name=event["id"])
    return tasks
"""


async def test_tasks_that_a_handler_leaves_behind_are_cancelled_and_logged(function: Function) -> None:
    """L2, U3: by the name of their code; the task's own name may hold data."""
    async with function.running(LEFTOVER.format(options="")) as runtime:
        assert [await runtime.result({"id": "canary"}) for _ in range(2)] == [1, 1]
    assert runtime.said.count("TasksLeftBehind(handler='app.handler', tasks=('report',), cancelled=True)") == 2
    assert "canary" not in runtime.said


async def test_tasks_that_are_left_behind_can_be_logged_alone(function: Function) -> None:
    """L2: they go on in later invocations; each is told once."""
    async with function.running(LEFTOVER.format(options="(on_leftover='report')")) as runtime:
        assert [await runtime.result({"id": "1"}) for _ in range(3)] == [1, 2, 3]
    assert runtime.said.count("TasksLeftBehind(handler='app.handler', tasks=('report',), cancelled=False)") == 3


FAILING = """
class PaymentDeclined(Exception):
    pass

@lambda_handler
@idempotent(store, key="event.id", namespace="charges")
async def handler(event, context):
    match event["how"]:
        case "declined":
            raise PaymentDeclined("no funds")
        case "cancelled":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        case "group":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(0)).cancel()
    return "done"
"""


async def test_the_error_document_names_the_error_of_the_user(function: Function) -> None:
    """C11, L1: its class, message and line; the key is free, and the process goes on."""
    async with function.running(FAILING) as runtime:
        answer = await runtime.invoke({"id": "1", "how": "declined"})
        assert answer.kind == "error"
        assert (answer.body["errorType"], answer.body["errorMessage"]) == ("PaymentDeclined", "no funds")
        assert 'raise PaymentDeclined("no funds")' in answer.body["stackTrace"][-1]
        assert await function.store.get("1", namespace="charges") is None


async def test_a_handler_that_cancels_itself_does_not_end_the_process(function: Function) -> None:
    """L4: a `CancelledError` is no `Exception`, and would end Amazon's client."""
    async with function.running(FAILING) as runtime:
        answer = await runtime.invoke({"id": "1", "how": "cancelled"})
        assert answer.body["errorType"] == "RuntimeError"
        assert "cancelled from inside" in answer.body["errorMessage"]
        assert await runtime.result({"id": "1", "how": "fine"}) == "done"
        assert await runtime.result({"id": "2", "how": "group"}) == "done"


FORKED = """
@lambda_handler
@idempotent(store, key="event.id", namespace="charges")
async def handler(event, context):
    open(event["id"], "w").close()
    while not os.path.exists(event["other"]):
        await asyncio.sleep(0.01)
    return os.getpid()
"""


async def test_workers_that_the_client_forks_have_a_loop_each(function: Function) -> None:
    """L3: two invocations that wait for each other, in two processes of one environment."""
    async with function.running(FORKED, AWS_LAMBDA_MAX_CONCURRENCY="2") as runtime:
        first, second = await asyncio.gather(
            runtime.result({"id": "a", "other": "b"}), runtime.result({"id": "b", "other": "a"})
        )
        assert first != second
    assert function.proxy.connections == 2


RESTORED = """
class Context:
    aws_request_id = "warming"
    def get_remaining_time_in_millis(self):
        return 30_000

loops, state = [], None

@lambda_handler
@idempotent(store, key="event.id", namespace="charges")
async def handler(event, context):
    loops.append(asyncio.get_running_loop())
    return [loops[0] is loops[-1], random.getstate() == state]

assert handler({"id": "warm"}, Context())[0]
random.seed(1)
state = random.getstate()
"""


@pytest.mark.parametrize("kind", ["snap-start", "on-demand"])
async def test_an_environment_begins_anew_after_a_restore(function: Function, kind: str) -> None:
    """L3: a connection from before the snapshot is dead, and all environments would have one jitter."""
    async with function.running(RESTORED, AWS_LAMBDA_INITIALIZATION_TYPE=kind) as runtime:
        assert await runtime.result({"id": "1"}) == ([False, False] if kind == "snap-start" else [True, True])
    assert function.proxy.connections == (2 if kind == "snap-start" else 1)


BATCH = """
@lambda_handler(margin=1.0)
@sqs_batch(store, namespace="charges")
async def handler(record):
    if record["body"] == "slow":
        await asyncio.sleep(60)
    if record["body"] == "bad":
        raise ValueError("canary")
"""


async def test_a_batch_answers_before_the_end_of_its_invocation(function: Function) -> None:
    """L5, L7: what is done is done, and what failed or did not end comes again."""
    batch = event(message("a", "slow"), message("b", "bad"), message("c", "good"))
    async with function.running(BATCH) as runtime:
        assert failures(await runtime.result(batch, seconds=3)) == ["a", "b"]
        assert await function.store.get("a", namespace="charges") is None
    assert "canary" not in runtime.said
    assert "ValueError at " in runtime.said


KILLED = """
@lambda_handler
@sqs_batch(store, namespace="charges", concurrency=1)
async def handler(record):
    print("charging", record["messageId"])
    if record["body"] == "kill" and not os.path.exists("killed"):
        open("killed", "w").close()
        os._exit(1)
"""


async def test_what_a_killed_batch_has_finished_does_not_run_again(function: Function) -> None:
    """L5: Lambda delivers the whole event again; what ran is running until the lease ends, and fails until then."""
    batch = event(message("a"), message("b", "kill"), message("c"))
    async with function.running(KILLED) as runtime:
        ended = asyncio.ensure_future(runtime.invoke(batch, seconds=600))
        await runtime.died()
        ended.cancel()
    assert "charging c" not in runtime.said
    async with function.running(KILLED) as runtime:
        assert failures(await runtime.result(batch)) == ["b"]
    assert [line for line in runtime.said.splitlines() if line.startswith("charging")] == ["charging c"]


async def started(function: Function, module: str, event: object = None) -> Answer:
    async with function.running(module) as runtime:
        return await runtime.invoke(event)


async def test_a_plain_function_under_the_adapter_fails_at_the_start(function: Function) -> None:
    """L1: the init error says what to write."""
    answer = await started(function, "@lambda_handler\ndef handler(event, context): pass")
    assert (answer.kind, answer.body["errorType"]) == ("init error", "ConfigurationError")
    assert "Write `async def`, or leave lambda_handler out" in answer.body["errorMessage"]


async def test_a_coroutine_handler_without_the_adapter_is_an_error_of_the_client(function: Function) -> None:
    """L1: the library is never asked, and the page on Lambda explains the client's own message."""
    answer = await started(function, "@idempotent(store)\nasync def handler(event, context): pass")
    assert answer.body["errorType"] == "Runtime.MarshalError"
    assert "Object of type coroutine is not JSON serializable" in answer.body["errorMessage"]


FORK_AFTER_AN_INVOCATION = """
import os, asyncio
from aioidempotency import AsyncIdempotencyStore, idempotent
from aioidempotency.aws_lambda import lambda_handler

class Context:
    def get_remaining_time_in_millis(self):
        return 30_000

@lambda_handler
@idempotent(AsyncIdempotencyStore.in_memory(), key="event")
async def handler(event, context):
    # A loop whose descriptors a child has closed or changed hears nothing from its threads.
    return await asyncio.to_thread(str.upper, event)

assert handler("a", Context()) == "A"
child = os.fork()
assert handler("child" if not child else "parent", Context()) in ("CHILD", "PARENT")
if not child:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert handler("b", Context()) == "B"
print("both", flush=True)
os._exit(0)
"""


def test_parent_and_child_of_a_fork_go_on() -> None:
    """L3: the child makes a loop of its own, and leaves the parent's alone."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK_AFTER_AN_INVOCATION],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("both\n", "")
