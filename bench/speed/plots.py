"""The result in pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.speed import contest
from bench.speed.figures import Cell
from bench.speed.goals import MANY
from bench.speed.jobs import Workload
from bench.spread import Spread

_STYLE: Final[dict[Any, Any]] = {
    # Text stays text, and equal results give equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "aioidempotency",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
Summary = Mapping[Cell, Mapping[str, Spread]]
_COLOURS: Final = dict(
    zip(
        contest.ORDER,
        ("#0b6e4f", "#3fa34d", "#9bc53d", "#444444", "#999999", "#e07a1f", "#b23a2e", "#3178c6"),
        strict=True,
    )
)


def draw(found: Summary, directory: Path) -> Sequence[Path]:
    """Draw all pictures into a directory, and name them."""
    directory.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        pictures = {
            "speed-throughput.svg": _throughput(found),
            "speed-latency.svg": _latency(found),
            "speed-comparison.svg": _comparison(found),
        }
        for name, figure in pictures.items():
            figure.savefig(directory / name, metadata={"Date": None}, bbox_inches="tight")
    return [directory / name for name in pictures]


def _throughput(found: Summary) -> Figure:
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    _curves(axes, found, "per_processor_second")
    axes.set(title="Fresh calls", ylabel="executions per processor second")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _latency(found: Summary) -> Figure:
    figure = Figure(figsize=(11, 5))
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("p50", "p99"), strict=True):
        _curves(axes, found, f"{name}_ms")
        axes.set(title=f"Fresh calls, {name}", ylabel="milliseconds" if name == "p50" else "", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _curves(axes: Axes, found: Summary, figure: str) -> None:
    """Draw each contestant's median over the calls at once, with its spread; one that is alone, as a line across."""
    for name, colour in _COLOURS.items():
        points = sorted((cell[2], found[cell][figure]) for cell in found if cell[:2] == (name, "fresh"))
        if not points:
            continue
        at_once = [number for number, _ in points]
        medians = [each.median for _, each in points]
        if name == contest.POWERTOOLS.name:
            axes.axhline(medians[0], color=colour, linestyle="--", label=f"{name} (one call at a time)")
            continue
        axes.plot(at_once, medians, color=colour, marker="o", markersize=4, label=name)
        axes.fill_between(
            at_once, [each.least for _, each in points], [each.most for _, each in points], color=colour, alpha=0.15
        )
    ticks = sorted({cell[2] for cell in found})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(each) for each in ticks])
    axes.set_xlabel("calls at once")
    axes.grid(visible=True, which="major", alpha=0.3)


def _comparison(found: Summary) -> Figure:
    figure = Figure(figsize=(11, 4.5))
    workloads: tuple[tuple[Workload, str], ...] = (("fresh", "Fresh calls"), ("duplicates", "Duplicates"))
    for axes, (workload, title) in zip(figure.subplots(1, 2), workloads, strict=True):
        _bars(axes, found, workload)
        axes.set(title=f"{title}, {MANY} at once", xlabel="executions per processor second")
    figure.tight_layout()
    return figure


def _bars(axes: Axes, found: Summary, workload: Workload) -> None:
    # What needs no request would leave no room for the others.
    names = [name for name in _COLOURS if (name, workload, _at_once(name)) in found and name != contest.CACHE.name]
    spreads = [found[name, workload, _at_once(name)]["per_processor_second"] for name in names]
    medians = [each.median for each in spreads]
    errors = ([each.median - each.least for each in spreads], [each.most - each.median for each in spreads])
    bars = axes.barh(names, medians, xerr=errors, color=[_COLOURS[name] for name in names], ecolor="#00000080")
    axes.bar_label(bars, [f"{each:,.0f}" for each in medians], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.18)


def _at_once(name: str) -> int:
    return 1 if name == contest.POWERTOOLS.name else MANY
