"""The pictures of the page on speed, from the figures of a run's file."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import plots
from bench.speed import contest
from bench.speed.contest import MANY
from bench.spread import Spread

Figures = Sequence[Mapping[str, Any]]
_COLOURS: Final = dict(
    zip(
        contest.ORDER,
        (
            *("#3fa34d", "#0b6e4f", "#9bc53d", "#c5d86d", "#dddddd", "#444444", "#999999"),
            *("#8e6c8a", "#c2a5cf", "#e07a1f", "#b23a2e", "#3178c6"),
        ),
        strict=True,
    )
)


_PARTS: Final = (contest.OWN_CODE.name, contest.LEAN.name)
"""Parts of an execution, which are no contestants in pictures."""


def drawn(figures: Figures) -> dict[str, Figure]:
    """Draw all pictures, by the names of their files."""
    return {
        "speed-throughput": _against_concurrency(figures, {"per_processor_second": "executions per processor second"}),
        "speed-latency": _against_concurrency(figures, {"p50_ms": "p50, ms", "p99_ms": "p99, ms"}, yscale="log"),
        "speed-comparison": _comparison(figures),
    }


def _against_concurrency(figures: Figures, wanted: Mapping[str, str], *, yscale: str = "linear") -> Figure:
    """Draw a panel for each figure: fresh calls of each contestant; of one that is alone, a line across."""
    figure, panels = plots.figure(len(wanted))
    figures = [row for row in figures if row["workload"] == "fresh" and row["contestant"] not in _PARTS]
    ticks = sorted({row["level"] for row in figures})
    for axes, (name, what) in zip(panels, wanted.items(), strict=True):
        for contestant, colour in _COLOURS.items():
            rows = [row for row in figures if row["contestant"] == contestant]
            if contestant == contest.POWERTOOLS.name and rows:
                axes.axhline(rows[0][name][0], color=colour, linestyle="--", label=f"{contestant} (one call at a time)")
            elif rows:
                plots.curve(axes, [(row["level"], Spread(*row[name])) for row in rows], contestant, colour)
        axes.set_yscale(yscale)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(each) for each in ticks])
        axes.set(title="Fresh calls", xlabel="calls at once", ylabel=what)
    plots.legend(panels[-1])
    return figure


def _comparison(figures: Figures) -> Figure:
    figure = Figure(figsize=(11, 4.5))
    panels: Sequence[Axes] = figure.subplots(1, 2)
    for axes, workload in zip(panels, ("fresh", "duplicates"), strict=True):
        _bars(axes, [row for row in figures if row["workload"] == workload])
        axes.set(title=f"{workload.capitalize()}, {MANY} at once", xlabel="executions per processor second")
    figure.tight_layout()
    return figure


def _bars(axes: Axes, figures: Figures) -> None:
    # What needs no request would leave no room for the others.
    names = [name for name in _COLOURS if name not in {contest.CACHE.name, *_PARTS}]
    shown = {
        row["contestant"]: Spread(*row["per_processor_second"])
        for name in names
        for row in figures
        if (row["contestant"], row["level"]) == (name, contest.usual_concurrency(name))
    }
    medians = [each.median for each in shown.values()]
    errors = tuple(zip(*((each.median - each.least, each.most - each.median) for each in shown.values()), strict=True))
    bars = axes.barh(
        list(shown), medians, xerr=errors or None, color=[_COLOURS[name] for name in shown], ecolor="#00000080"
    )
    axes.bar_label(bars, [f"{each:,.0f}" for each in medians], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.18)
