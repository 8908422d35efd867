"""The pictures of what was measured, against the offered load."""

from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bench import plots
from bench.hot.results import Result
from bench.hot.settings import BUCKETS, NO_LIMITS, PLACEMENTS, RANDOM, STATIC, WINDOWS

_COLOURS: Final = {
    STATIC: "#c0281c",
    BUCKETS: "#1f5fa8",
    WINDOWS: "#b8730a",
    RANDOM: "#7a3f9d",
    NO_LIMITS: "#8a8a8a",
}


def drawn(result: Result) -> dict[str, Figure]:
    """Draw all pictures, by the names of their files."""
    return {
        "hot-partitions-throughput": _by_load(result, "completed_per_second", "completed calls a second"),
        "hot-partitions-p99": _by_load(result, "p99_ms", "99th percentile of latency (ms)", logarithmic=True),
    }


def _by_load(result: Result, measure: str, what: str, *, logarithmic: bool = False) -> Figure:
    figure, (axes,) = plots.figure(1)
    for name in PLACEMENTS:
        measured = [(load, result.at(load, name, measure)) for load in result.settings.loads]
        points = [(float(load), spread) for load, spread in measured if spread is not None]
        plots.curve(axes, points, name, _COLOURS[name], "--" if name == NO_LIMITS else "-")
    axes.set(xlabel="offered calls a second", ylabel=what, xticks=result.settings.loads)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    plots.legend(axes)
    return figure
