"""The demo plays, adds up, judges by the ledger, and leaves nothing behind."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session
from rich.console import Console, RenderableType

from aioidempotency import AsyncIdempotencyStore, MemoryBackend
from aioidempotency._cli import picture
from aioidempotency._cli.demo import _conclude
from aioidempotency._cli.embedded import embedded_dynamodb
from aioidempotency._cli.scene import Figures, Tally, charged_otherwise, play
from aioidempotency._cli.script import Script, Settings, write_script
from aioidempotency._cli.stage import Stage, perform
from tests.support.engines import Engine, client_options, ministack_engine
from tests.support.values import replace

_LIMIT = 45
_SMALL = ("--orders", "5", "--deliveries", "6")
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
_FIGURES = Figures(
    orders=20,
    deliveries=383,
    executions=32,
    replays=363,
    refused=454,
    retried=12,
    charges=20,
    charged_otherwise={},
    seconds=4.0,
    records_per_bucket=(1,) * 32,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An endpoint of the user's own."""
    with ministack_engine() as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment without AWS settings; coverage may follow the process."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **kept}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and their children with them."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


def _run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return _python(env, "-m", "aioidempotency", *arguments)


def _python(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=_LIMIT, check=False
    )


def _servers(home: str) -> list[int]:
    """The embedded servers that run with a home directory which no other test has."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"aioidempotency._cli.server" in command and f"HOME={home}\0".encode() in environment + b"\0":
            found.append(int(process.name))
    return found


def _scene(seed: int = 3) -> Script:
    """A real script, played without its pauses."""
    script = write_script(Settings(orders=6, deliveries=12, seed=seed))
    return Script(
        payments=tuple(replace(payment, seconds=0.02) for payment in script.payments),
        deliveries=tuple(replace(delivery, after=0.0, pause=0.01) for delivery in script.deliveries),
    )


async def _played_in_memory(*, shared: bool) -> Figures:
    """The scene on three workers, which share one memory or have one each."""
    tally, memory = Tally(), MemoryBackend()
    stores = [
        AsyncIdempotencyStore("t", backend=memory if shared else MemoryBackend(), on_event=tally.note) for _ in range(3)
    ]
    return await play(_scene(), stores, tally)


def _drawn(picture: RenderableType) -> str:
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(picture)
    return console.export_text()


def test_a_demo_adds_up(env: dict[str, str]) -> None:
    """Every execution charged or failed, every delivery charged or was replayed, every order has its record."""
    run = _run(env, "demo", "--json", *_SMALL)
    assert (run.returncode, run.stderr) == (0, "")
    figures = json.loads(run.stdout)
    assert figures["exactly_once"]
    assert figures["orders"] == figures["charges"] == sum(figures["records_per_bucket"]) == 5
    assert figures["executions"] == figures["charges"] + figures["retried"]
    assert figures["deliveries"] == figures["charges"] + figures["replays"]
    assert len(figures["records_per_bucket"]) == 32
    assert _servers(env["HOME"]) == []


def test_a_demo_on_a_terminal_shows_progress_and_verdict(env: dict[str, str]) -> None:
    """The whole way to the picture, with the progress that only a terminal gets."""
    run = _run({**env, "FORCE_COLOR": "1"}, "demo", *_SMALL)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Deliveries answered" in run.stdout
    assert "Every order was charged exactly once: 5 orders, 5 charges." in run.stdout


def test_the_users_surroundings_do_not_reach_the_embedded_server(env: dict[str, str]) -> None:
    """Neither AWS settings, nor ~/.aws, nor a proxy: each of the three would stop a client."""
    settings = Path(env["HOME"], ".aws")
    settings.mkdir()
    (settings / "config").write_text("not a configuration")
    hostile = {
        "AWS_PROFILE": "missing",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "example.com",
    }
    run = _run({**env, **hostile}, "demo", "--json", "--orders", "1", "--deliveries", "2")
    assert (run.returncode, run.stderr) == (0, "")


def test_the_embedded_server_gives_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the block the process has the demo's settings, afterwards its own; and the server is gone."""
    monkeypatch.setenv("AWS_PROFILE", "mine")
    before = dict(os.environ)
    with embedded_dynamodb() as url:
        assert "AWS_PROFILE" not in os.environ
        address = urlsplit(url)
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    assert dict(os.environ) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=5)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the server's process in /proc")
def test_an_interrupt_ends_the_demo_and_its_server(env: dict[str, str]) -> None:
    """Ctrl-C is answered with one line, and no process stays."""
    command = [sys.executable, "-m", "aioidempotency", "demo"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert "20 payment orders" in demo.stdout.readline()
        assert len(_servers(env["HOME"])) == 1
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=_LIMIT)
    assert demo.returncode == 130
    assert errors == "aioidempotency: stopped\n"
    assert _servers(env["HOME"]) == []


async def test_a_table_of_the_users_own_holds_what_the_demo_says(env: dict[str, str], engine: Engine) -> None:
    """The table is created, and a scan of it finds the records in the buckets that were drawn."""
    options = ("--endpoint-url", engine.endpoint_url, "--region", "eu-central-1", "--table-name", "mine")
    run = await asyncio.to_thread(_run, {**env, **_CREDENTIALS}, "demo", "--json", *_SMALL, *options)
    assert (run.returncode, run.stderr) == (0, "")
    async with get_session().create_client("dynamodb", **client_options(engine)) as client:
        items = (await client.scan(TableName="mine"))["Items"]
    found = Counter(item["pk"]["S"] for item in items if item["sk"]["S"].startswith("demo-"))
    drawn = json.loads(run.stdout)["records_per_bucket"]
    assert [found[f"idempotency#{bucket}"] for bucket in range(32)] == drawn
    assert found.total() == 5


async def test_two_demos_on_one_table_do_not_meet(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's keys are its own: the second one charges, and replays nothing of the first."""
    for name, value in _CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        stage = Stage(endpoint_url=engine.endpoint_url, region_name="eu-central-1", table_name="shared")
        figures = await perform(stage, _scene(), Tally(), workers=2)
        assert figures.charges == sum(figures.records_per_bucket) == 6


async def test_a_table_with_another_key_is_refused(env: dict[str, str], engine: Engine) -> None:
    """One line that says so, and no scene."""
    async with get_session().create_client("dynamodb", **client_options(engine)) as client:
        await client.create_table(
            TableName="other",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    options = ("--endpoint-url", engine.endpoint_url, "--region", "eu-central-1", "--table-name", "other")
    run = await asyncio.to_thread(_run, {**env, **_CREDENTIALS}, "demo", "--json", *options)
    assert (run.returncode, run.stdout) == (2, "")
    assert "table 'other' exists with another key: id (HASH, S)" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "arguments", "advice"),
    [
        ("typer", ("--version",), 'pip install "aioidempotency[cli]" (or "aioidempotency[demo]" for the demo)'),
        ("rich", ("--version",), 'pip install "aioidempotency[cli]" (or "aioidempotency[demo]" for the demo)'),
        ("moto", ("demo",), 'pip install "aioidempotency[demo]"'),
    ],
)
def test_a_missing_extra_is_named(env: dict[str, str], missing: str, arguments: tuple[str, ...], advice: str) -> None:
    """One line says what to install."""
    blocked = f"import sys; sys.modules[{missing!r}] = None; from aioidempotency._cli import main; main()"
    run = _python(env, "-c", blocked, *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("aioidempotency: ")
    assert advice in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_server_that_does_not_start_says_why(env: dict[str, str], tmp_path: Path) -> None:
    """The last line that its process wrote is in the one line of the demo."""
    (tmp_path / "moto.py").write_text("raise RuntimeError('broken here')")
    run = _run({**env, "PYTHONPATH": str(tmp_path)}, "demo")
    assert run.returncode == 2
    assert run.stderr == "aioidempotency: the embedded server did not start: RuntimeError: broken here\n"


def test_the_version_is_that_of_the_package(env: dict[str, str]) -> None:
    """`--version` prints it, and nothing else."""
    run = _run(env, "--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{version('aioidempotency')}\n", "")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("aioidempotency", {"aioidempotency._cli", "typer", "rich", "moto"}),
        ("aioidempotency._cli.app", {"moto", "flask", "matplotlib", "numpy"}),
    ],
)
def test_what_is_not_needed_is_not_imported(env: dict[str, str], module: str, absent: set[str]) -> None:
    """U4: the library imports nothing of its command; the command leaves moto to the server's process, and matplotlib to a plot."""
    run = _python(env, "-c", f"import sys, {module}; print(*sys.modules)")
    assert run.returncode == 0
    assert absent.isdisjoint(run.stdout.split())


@pytest.mark.parametrize(
    ("ledger", "wrong"),
    [
        (["a", "b"], {}),
        (["b", "a"], {}),
        (["a", "b", "a"], {"a": 2}),
        (["a"], {"b": 0}),
        (["a", "b", "c"], {"c": 1}),
    ],
)
def test_the_ledger_decides(ledger: list[str], wrong: dict[str, int]) -> None:
    """An order charged twice, one not charged, and a charge without an order are all named."""
    assert charged_otherwise(["a", "b"], ledger) == wrong


async def test_workers_with_one_table_charge_every_order_once() -> None:
    """The scene has duplicates, refusals and failures in it, and still one charge for each order."""
    figures = await _played_in_memory(shared=True)
    assert figures.exactly_once
    assert min(figures.refused, figures.retried, figures.replays) > 0


@pytest.mark.parametrize("as_json", [True, False])
async def test_workers_with_a_table_each_fail_the_demo(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """Without a shared table orders are charged several times: the demo names them, and exits with 1."""
    figures = await _played_in_memory(shared=False)
    assert figures.charged_otherwise
    assert all(count > 1 for count in figures.charged_otherwise.values())
    assert _conclude(figures, Console(), as_json=as_json) == 1
    shown = capsys.readouterr().out
    assert all(order in shown for order in figures.charged_otherwise)


def test_a_seed_gives_one_script() -> None:
    """The same seed, the same scene; another seed, another one."""
    assert write_script(Settings(seed=7)) == write_script(Settings(seed=7))
    assert write_script(Settings(seed=7)) != write_script(Settings(seed=8))


@pytest.mark.parametrize("most", [1, 2, 25])
def test_an_order_is_delivered_up_to_so_many_times(most: int) -> None:
    """Every order at least half as often as was allowed, and never more often."""
    script = write_script(Settings(deliveries=most))
    counts = Counter(delivery.order.order_id for delivery in script.deliveries)
    assert len(counts) == 20
    assert all(most / 2 <= count <= most for count in counts.values())


def test_every_bucket_has_its_bar() -> None:
    """Thirty-two bars, each with its number and as long as its count asks for."""
    figures = replace(_FIGURES, records_per_bucket=tuple(range(10, 42)))
    text = _drawn(picture.result(figures))
    bars = {int(bucket): (bar, int(count)) for bucket, bar, count in re.findall(r"(\d+) ([━╸]+) +(\d+)", text)}
    assert {bucket: count for bucket, (_, count) in bars.items()} == {n: n + 10 for n in range(32)}
    assert len(bars[0][0]) < len(bars[15][0]) < len(bars[31][0])


def test_the_verdict_stands_in_the_picture() -> None:
    """In words, with both numbers; and with the orders that were charged another number of times."""
    assert "Every order was charged exactly once: 20 orders, 20 charges." in _drawn(picture.result(_FIGURES))
    failed = replace(_FIGURES, charges=21, charged_otherwise={"order-007": 3, "order-009": 0})
    text = _drawn(picture.result(failed))
    assert "Not every order was charged exactly once: 20 orders, 21 charges." in text
    assert "order-007: 3 charges, order-009: 0 charges." in text
