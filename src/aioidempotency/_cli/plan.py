"""`aioidempotency plan`: how many buckets, how many units, at what price."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Annotated, Final

import typer

from aioidempotency._cli.failure import CommandError, in_one_line
from aioidempotency._cli.planning import NEW_TABLE, Load, Plan, make_plan

_QUOTA: Final = 40_000
"""Write or read units a second that Amazon allows one table, unless asked for more."""


def plan(
    *,
    calls_per_second: Annotated[
        float, typer.Option(min=1, max=1e9, help="Calls in your busiest second, duplicates included.")
    ],
    result_bytes: Annotated[int, typer.Option(min=0, help="Bytes of a stored result, usually JSON.")],
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="The share of duplicates: 0.2 for 20 %.")] = 0.0,
    read_first: Annotated[bool, typer.Option("--read-first", help="The store has read_first=True.")] = False,
    fingerprint: Annotated[bool, typer.Option("--fingerprint", help="Calls have a fingerprint.")] = False,
    namespace_bytes: Annotated[
        int, typer.Option(min=1, max=400, help="Bytes of a key before its digest, such as module.qualname.")
    ] = 30,
    locations: Annotated[
        int, typer.Option(min=1, max=100, help="Locations that a claim looks at; HashBuckets and Static have one.")
    ] = 1,
    probability: Annotated[
        float, typer.Option(min=0, max=0.999999, help="The probability that no partition passes its limit in a second.")
    ] = 0.99,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="Partitions of the table. Default: a new table's, or those for twice the load."
        ),
    ] = None,
    write_price: Annotated[
        float, typer.Option(min=0, max=1e6, help="Dollars for a million write units; N. Virginia, November 2024.")
    ] = 0.625,
    read_price: Annotated[
        float, typer.Option(min=0, max=1e6, help="Dollars for a million read units; N. Virginia, November 2024.")
    ] = 0.125,
    plot: Annotated[Path | None, typer.Option(help="Draw the plan into this file, .png or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Say how many buckets HashBuckets needs for a load, and what the load costs. Sends nothing.

    Exits with 0, or with 2 when there is no plan; the message says why.
    """
    load = Load(
        calls_per_second=calls_per_second,
        duplicates=duplicates,
        result_bytes=result_bytes,
        namespace_bytes=namespace_bytes,
        fingerprint=fingerprint,
        read_first=read_first,
        locations=locations,
    )
    prices = {"write_price": write_price, "read_price": read_price}
    with in_one_line():
        answer = make_plan(load, probability=probability, partitions=partitions, **prices)
        if plot is not None:
            _draw(answer, plot)
    typer.echo(json.dumps(asdict(answer) | prices) if as_json else text(answer, **prices))


def text(plan: Plan, *, write_price: float, read_price: float) -> str:
    """Write the plan in lines of 80 characters at the most."""
    load, fresh, duplicate = plan.load, plan.fresh, plan.duplicate
    options = ", reading first" * load.read_first + f", {load.locations} locations" * (load.locations > 1)
    rows = (
        f"{buckets:>9,}{ceil(share * 100):>10,}  {'█' * min(40, round(share * 20))}"
        + "  <- take this" * (buckets == plan.buckets)
        for buckets, share in plan.hottest.items()
    )
    return f"""\
{load.calls_per_second:,g} calls a second, {load.duplicates * 100:g} % of them duplicates{options}

Take         {plan.strategy}
Write units  {plan.write_units:,.0f} a second: {fresh.write} for a fresh call, {duplicate.write} for a duplicate
Read units   {plan.read_units:,.0f} a second: {fresh.read} for a fresh call, {duplicate.read} for a duplicate
Records      {plan.finished_bytes:,} bytes with a result of {load.result_bytes:,}, and {plan.running_bytes:,} before
Requests     ${plan.cost:,.2f} a month, at ${write_price:g} and ${read_price:g} a million units

The hottest of {plan.partitions:,} partitions has at most this load, in {plan.probability * 100:g} % of all seconds:

  Buckets   % of its limit
{chr(10).join(rows)}

{(chr(10) * 2).join(fill(note, 80) for note in notes(plan))}"""


def notes(plan: Plan) -> Iterator[str]:
    """Say what a user must know who acts on the plan."""
    if plan.write_units > NEW_TABLE * 1000 or plan.read_units > NEW_TABLE * 3000:
        yield (
            f"A new on-demand table takes {NEW_TABLE},000 write or {NEW_TABLE * 3},000 read units a second: warm it up "
            "first, or let the load grow; a table takes up to twice its last peak."
        )
    if max(plan.write_units, plan.read_units) > _QUOTA:
        yield f"Amazon allows one table {_QUOTA:,} write or read units a second unless you ask for more: ask first."
    yield (
        "Another number of buckets later means moving live records, in four steps. A bucket costs nothing: when in doubt, take more. "
        "The default of CompositeKey is HashBuckets(32). A table with one key (SimpleKey) needs no buckets."
    )


def _draw(plan: Plan, file: Path) -> None:
    if file.suffix.lower() not in {".png", ".svg"}:
        raise CommandError(f"--plot takes a file that ends in .png or .svg: not {file}")
    try:
        from aioidempotency._cli.plot import save  # noqa: PLC0415 - only this option needs matplotlib

        save(plan, file)
    except ModuleNotFoundError as error:
        message = f'--plot needs {error.name}, which is not installed; install aioidempotency[plot], in a clone: pip install ".[plot]"'
        raise CommandError(message) from error
    except OSError as error:
        raise CommandError(f"--plot {file} cannot be written: {error.strerror or error}") from error
