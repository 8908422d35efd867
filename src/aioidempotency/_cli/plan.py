"""`aioidempotency plan`: how many buckets, how many units, at what price."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aioidempotency._cli import chart
from aioidempotency._cli.failure import fail
from aioidempotency._cli.planning import Plan, Terms, make_plan
from aioidempotency._cli.workload import PlanError, Workload

_FORMATS = {".png", ".svg"}


def plan(
    *,
    calls_per_second: Annotated[float, typer.Option(help="All calls of your busiest second, duplicates among them.")],
    result_bytes: Annotated[int, typer.Option(help="Bytes of a result as it is stored: JSON, if need be compressed.")],
    duplicates: Annotated[float, typer.Option(help="The share of duplicates among all calls, 0 to 1.")] = 0.0,
    read_first: Annotated[bool, typer.Option("--read-first", help="The store has read_first=True.")] = False,
    fingerprint: Annotated[bool, typer.Option("--fingerprint", help="Calls have a fingerprint.")] = False,
    namespace_bytes: Annotated[int, typer.Option(help="Bytes of a key before its digest: module.qualname, say.")] = 30,
    places: Annotated[int, typer.Option(help="Places where a record may be; HashBuckets and Static have one.")] = 1,
    probability: Annotated[float, typer.Option(help="How likely no partition passes its limit in a second.")] = 0.99,
    partitions: Annotated[
        int | None,
        typer.Option(help="Partitions before any split; else those of a new table, or enough for twice the load."),
    ] = None,
    write_price: Annotated[
        float, typer.Option(help="Dollars for a million write request units; US East (N. Virginia), November 2024.")
    ] = 0.625,
    read_price: Annotated[
        float, typer.Option(help="Dollars for a million read request units; US East (N. Virginia), November 2024.")
    ] = 0.125,
    seed: Annotated[int, typer.Option(help="The seed of the simulation.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Draw the plan into this file, .png or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer alone, as one JSON object.")] = False,
) -> None:
    """Say how many buckets HashBuckets needs for a load, and what the load costs.

    Computes; sends nothing, and reads no AWS settings.

    Exits with 0, or with 2 when there is no plan; one line says why.
    """
    try:
        _check_format(plot)
        workload = Workload(
            calls_per_second=calls_per_second,
            duplicates=duplicates,
            result_bytes=result_bytes,
            namespace_bytes=namespace_bytes,
            fingerprint=fingerprint,
            read_first=read_first,
            places=places,
        )
        terms = Terms(
            probability=probability, partitions=partitions, write_price=write_price, read_price=read_price, seed=seed
        )
        answer = make_plan(workload, terms)
        if plot is not None:
            _draw(answer, plot)
    except PlanError as error:
        fail(str(error), code=2)
    _print(answer, as_json=as_json)


def _print(answer: Plan, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(answer), "cost": answer.cost}))
    else:
        Console().print(chart.answer(answer))


def _check_format(file: Path | None) -> None:
    if file is not None and file.suffix.lower() not in _FORMATS:
        raise PlanError(f"--plot takes a file that ends in .png or .svg: not {file}")


def _draw(answer: Plan, file: Path) -> None:
    try:
        from aioidempotency._cli.plot import save  # noqa: PLC0415 - only this option needs matplotlib

        save(answer, file)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise PlanError(
            '--plot needs matplotlib, which is not installed; run: pip install "aioidempotency[plot]"'
        ) from error
    except OSError as error:
        raise PlanError(f"--plot {file} cannot be written: {error.strerror or error}") from error
