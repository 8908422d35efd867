"""`aioidempotency demo`: payment orders delivered many times over, on a table of its own or on the user's."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from aioidempotency._cli.failure import in_one_line
from aioidempotency._cli.payments import NAMESPACE, Figures, Payments
from aioidempotency._cli.server import moto_dynamodb, own_environment
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.partitioning import CompositeKey, HashBuckets

_BUCKETS: Final = HashBuckets(32)


def demo(
    *,
    orders: Annotated[int, typer.Option(min=1, max=200, help="Payment orders.")] = 20,
    deliveries: Annotated[int, typer.Option(min=1, max=100, help="Deliveries of one order, at the most.")] = 25,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Workers, each with a store of its own.")] = 4,
    seed: Annotated[int, typer.Option(help="The seed of chance.")] = 1,
    endpoint_url: Annotated[str | None, typer.Option(help="Run against this DynamoDB endpoint.")] = None,
    region: Annotated[str | None, typer.Option(help="Run in this AWS region.")] = None,
    table_name: Annotated[
        str | None,
        typer.Option(help="Run on this table, with the keys pk and sk; a missing table is created."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures alone, as one JSON object.")] = False,
) -> None:
    """Deliver payment orders many times over, and count how often each was charged.

    Runs on a DynamoDB server of its own, which ends with the demo.

    --endpoint-url, --region and --table-name make the demo run on a table of yours, with your AWS settings.

    The records expire there after an hour.

    Exits with 0 when every order was charged exactly once, 1 when not, 2 when the demo cannot run.
    """
    payments = Payments(orders=orders, deliveries=deliveries, seed=seed)
    given = {"endpoint_url": endpoint_url, "region_name": region}
    console = Console(quiet=as_json)
    with in_one_line():
        if endpoint_url or region or table_name:
            running = run(payments, workers, console, table_name=table_name or "aioidempotency-demo", **given)
            figures, records = asyncio.run(running)
        else:
            with own_environment():
                figures, records = asyncio.run(_run_on_moto(payments, workers, console))
    raise typer.Exit(conclude(figures, records, console, as_json=as_json))


async def _run_on_moto(payments: Payments, workers: int, console: Console) -> tuple[Figures, list[int]]:
    async with moto_dynamodb() as url:
        return await run(payments, workers, console, table_name="aioidempotency-demo", endpoint_url=url)


async def run(
    payments: Payments, workers: int, console: Console, *, table_name: str, **reach: Any
) -> tuple[Figures, list[int]]:
    """Create the table if it is missing, deliver the orders, and count their records in each bucket."""
    namespace = f"demo-{secrets.token_hex(8)}"  # two runs on one table do not meet
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    async with AsyncExitStack() as opened:
        stores = [
            await opened.enter_async_context(
                AsyncIdempotencyStore(
                    table_name,
                    namespace=namespace,
                    layout=CompositeKey("pk", "sk", partitioning=_BUCKETS),
                    lease=30,
                    on_event=payments.note,
                    **reach,
                )
            )
            for _ in range(workers)
        ]
        await stores[0].create_table()
        console.print(
            f"{len(payments.payments)} payment orders arrive in {len(payments.deliveries)} deliveries, at {workers} workers "
            "at once. A payment takes a while, and some fail at first. The workers share nothing but the table "
            f'{table_name}; their handler is decorated with @idempotent(store, key="order.order_id").\n',
            markup=False,
            highlight=False,
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            watching = asyncio.create_task(_watch(payments, progress))
            try:
                figures = await payments.deliver(stores)
            finally:
                watching.cancel()
        orders = [payment.order.order_id for payment in payments.payments]
        found = [record for record in await stores[0].get_many(orders, namespace=NAMESPACE) if record is not None]
    counts = Counter(_BUCKETS.home(record.key, time.time()) for record in found)
    return figures, [counts[bucket] for bucket in _BUCKETS.partitions(time.time())]


async def _watch(payments: Payments, progress: Progress) -> None:
    charged = progress.add_task("Orders charged", total=len(payments.payments))
    answered = progress.add_task("Deliveries answered", total=len(payments.deliveries))
    while True:
        progress.update(charged, completed=payments.completed)
        progress.update(answered, completed=payments.answered)
        await asyncio.sleep(0.1)


def conclude(figures: Figures, records: Sequence[int], console: Console, *, as_json: bool) -> int:
    """Print what happened, and answer with the exit code."""
    exactly_once = not figures.charged_otherwise
    if as_json:
        typer.echo(json.dumps({**asdict(figures), "records_per_bucket": records, "exactly_once": exactly_once}))
        return 0 if exactly_once else 1
    for name, count, meaning in (
        ("Orders", figures.orders, "each to be charged once"),
        ("Deliveries", figures.deliveries, f"of these orders, all answered in {figures.seconds:g} s"),
        ("Refused while running", figures.refused, "another worker had the order; delivered again"),
        ("Executions", figures.executions, "runs of the handler"),
        ("Retried after failure", figures.retried, "runs that failed and released the order"),
        ("Replays", figures.replays, "deliveries answered with the stored receipt"),
        ("Charges", figures.charges, "lines in the payment provider's own ledger"),
    ):
        console.print(f"{name:22}[bold]{count:>6}[/]   [dim]{meaning}[/]", highlight=False)
    console.print("\n[bold]Records in each bucket of the table[/]\n")
    rows = len(records) // 4
    for row in range(rows):
        cells = (
            f"[dim]{bucket:>2}[/] [cyan]{'━' * round(11 * records[bucket] / max(1, *records)):11}[/] {records[bucket]:<5}"
            for bucket in range(row, len(records), rows)
        )
        console.print("".join(cells), highlight=False)
    console.print()
    totals = f"{figures.orders} orders, {figures.charges} charges"
    if exactly_once:
        console.print(f"Every order was charged exactly once: {totals}.", style="bold green", highlight=False)
        return 0
    wrong = ", ".join(f"{order}: {count} charges" for order, count in figures.charged_otherwise.items())
    console.print(f"Not every order was charged exactly once: {totals}.\n{wrong}.", style="bold red", highlight=False)
    return 1
