"""The demo runs, adds up, judges by the ledger, and leaves nothing behind."""

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
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session
from rich.console import Console

from aioidempotency import AsyncIdempotencyStore, MemoryBackend
from aioidempotency._cli.demo import conclude
from aioidempotency._cli.demo import run as run_demo
from aioidempotency._cli.payments import Figures, Payments, charged_otherwise
from aioidempotency._cli.server import moto_dynamodb, own_environment
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


def _payments(seed: int = 3) -> Payments:
    """Real payments, delivered without their pauses."""
    payments = Payments(orders=6, deliveries=12, seed=seed)
    payments.payments = [replace(payment, seconds=0.02) for payment in payments.payments]
    payments.deliveries = [replace(delivery, after=0.0, pause=0.01) for delivery in payments.deliveries]
    return payments


async def _delivered_in_memory(*, shared: bool) -> Figures:
    """The payments on three workers, which share one memory or have one each."""
    payments, memory = _payments(), MemoryBackend()
    stores = [
        AsyncIdempotencyStore("t", backend=memory if shared else MemoryBackend(), on_event=payments.note)
        for _ in range(3)
    ]
    return await payments.deliver(stores)


def _printed(figures: Figures, records: Sequence[int] = (1,) * 32) -> str:
    console = Console(record=True, width=100, file=io.StringIO())
    conclude(figures, records, console, as_json=False)
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


def test_a_demo_on_a_terminal_shows_progress_and_verdict(env: dict[str, str]) -> None:
    """The whole way to the verdict, with the progress that only a terminal gets."""
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


def test_the_demo_gives_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the block the process has the demo's settings, afterwards its own."""
    monkeypatch.setenv("AWS_PROFILE", "mine")
    before = dict(os.environ)
    with own_environment():
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["AWS_ACCESS_KEY_ID"] == "demo"
    assert dict(os.environ) == before


async def test_the_embedded_server_ends_with_its_block() -> None:
    """Its port is closed afterwards."""
    async with moto_dynamodb() as url:
        address = urlsplit(url)
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=5)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_the_demo(env: dict[str, str]) -> None:
    """Ctrl-C is answered with one line."""
    command = [sys.executable, "-m", "aioidempotency", "demo"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert "20 payment orders" in demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=_LIMIT)
    assert demo.returncode == 130
    assert errors == "aioidempotency: stopped\n"


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
        reach = {"endpoint_url": engine.endpoint_url, "region_name": "eu-central-1"}
        figures, records = await run_demo(_payments(), 2, Console(quiet=True), table_name="shared", **reach)
        assert figures.charges == sum(records) == 6


async def test_a_table_with_another_key_is_refused(env: dict[str, str], engine: Engine) -> None:
    """One line that says so, and nothing is delivered."""
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
        (
            "typer",
            ("--version",),
            'aioidempotency[cli] (or aioidempotency[demo] for the demo), in a clone: pip install ".[cli]"',
        ),
        (
            "rich",
            ("--version",),
            'aioidempotency[cli] (or aioidempotency[demo] for the demo), in a clone: pip install ".[cli]"',
        ),
        ("moto", ("demo",), 'aioidempotency[demo], in a clone: pip install ".[demo]"'),
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
    """U4: the library imports nothing of its command; the command imports moto for a demo alone, and matplotlib for a plot."""
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
    """The payments have duplicates, refusals and failures in them, and still one charge for each order."""
    figures = await _delivered_in_memory(shared=True)
    assert figures.charged_otherwise == {}
    assert min(figures.refused, figures.retried, figures.replays) > 0


@pytest.mark.parametrize("as_json", [True, False])
async def test_workers_with_a_table_each_fail_the_demo(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """Without a shared table orders are charged several times: the demo names them, and exits with 1."""
    figures = await _delivered_in_memory(shared=False)
    assert figures.charged_otherwise
    assert all(count > 1 for count in figures.charged_otherwise.values())
    assert conclude(figures, [0] * 32, Console(), as_json=as_json) == 1
    shown = capsys.readouterr().out
    assert all(order in shown for order in figures.charged_otherwise)


def test_a_seed_gives_one_run() -> None:
    """The same seed, the same payments and deliveries; another seed, other ones."""
    one, again, other = (Payments(orders=20, deliveries=25, seed=seed) for seed in (7, 7, 8))
    assert (one.payments, one.deliveries) == (again.payments, again.deliveries)
    assert one.payments != other.payments
    assert one.deliveries != other.deliveries


@pytest.mark.parametrize("most", [1, 2, 25])
def test_an_order_is_delivered_up_to_so_many_times(most: int) -> None:
    """Every order at least half as often as was allowed, and never more often."""
    deliveries = Payments(orders=20, deliveries=most, seed=1).deliveries
    counts = Counter(delivery.order.order_id for delivery in deliveries)
    assert len(counts) == 20
    assert all(most / 2 <= count <= most for count in counts.values())


def test_every_bucket_has_its_bar() -> None:
    """Thirty-two bars, each with its number and as long as its count asks for."""
    text = _printed(_FIGURES, range(10, 42))
    bars = {int(bucket): (bar, int(count)) for bucket, bar, count in re.findall(r"(\d+) (━+) +(\d+)", text)}
    assert {bucket: count for bucket, (_, count) in bars.items()} == {n: n + 10 for n in range(32)}
    assert len(bars[0][0]) < len(bars[15][0]) < len(bars[31][0])


def test_the_verdict_is_printed_last() -> None:
    """In words, with both numbers; and with the orders that were charged another number of times."""
    assert _printed(_FIGURES).endswith("Every order was charged exactly once: 20 orders, 20 charges.\n")
    failed = replace(_FIGURES, charges=21, charged_otherwise={"order-007": 3, "order-009": 0})
    text = _printed(failed)
    assert "Not every order was charged exactly once: 20 orders, 21 charges." in text
    assert text.endswith("order-007: 3 charges, order-009: 0 charges.\n")
