"""The pictures of what was measured. Needs matplotlib.

They have a white ground of their own, so that they can be read on a light page and on a dark one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bench.hot.labels import label_ends
from bench.hot.results import Curve, Point, Result
from bench.hot.settings import BUCKETS, NO_LIMITS, RANDOM, STATIC, STREAMS, WINDOWS
from bench.spread import Spread

_STYLE: Final[dict[Any, Any]] = {
    # Text stays text, and the same numbers give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "aioidempotency",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}
_COLOURS: Final = {
    STATIC: "#c0281c",
    "HashBuckets(4)": "#7fa8d6",
    "HashBuckets(16)": "#4a86c5",
    BUCKETS: "#1f5fa8",
    "HashBuckets(64)": "#0b3768",
    WINDOWS: "#b8730a",
    RANDOM: "#7a3f9d",
    NO_LIMITS: "#8a8a8a",
}
_TITLES: Final = {"uniform": "new keys only", "skewed": "half of the calls repeat a key"}

Measure = Callable[[Point], Spread | None]


def save(result: Result, folder: Path) -> None:
    """Draw all pictures into a folder, as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        for name, figure in drawn(result).items():
            figure.savefig(folder / f"hot-partitions-{name}.svg", metadata={"Date": None})


def drawn(result: Result) -> dict[str, Figure]:
    """Draw all pictures."""
    return {
        "throughput": _by_load(result, "completed calls a second", lambda point: point.completed_per_second),
        "throttled": _by_load(
            result, "calls throttled or still repeated (%)", lambda point: _percent(point.failed_share), top=100
        ),
        "p99": _by_load(result, "99th percentile of latency (ms)", lambda point: point.p99_ms, logarithmic=True),
        "splitting": _over_time(result),
    }


def _percent(spread: Spread) -> Spread:
    return Spread(100 * spread.median, 100 * spread.least, 100 * spread.most)


def _by_load(
    result: Result, what: str, measure: Measure, *, top: float | None = None, logarithmic: bool = False
) -> Figure:
    """Draw one panel for each stream: the medians of the rounds, and bands from the least to the most.

    A logarithmic picture has no bands: they would be as high as it is.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(STREAMS), sharey=True)
    highest = max(result.settings.loads)
    ends = []
    for axes, stream in zip(panels, STREAMS, strict=True):
        axes.set_title(_TITLES[stream])
        axes.set_xlabel("offered calls a second")
        axes.set_xticks(result.settings.loads[-4:])
        axes.set_xlim(0, 1.01 * highest)
        lines = (_line(axes, result, (stream, name), measure, band=not logarithmic) for name in result.strategies)
        ends.append([end for end in lines if end is not None])
    panels[0].set_ylabel(what)
    if logarithmic:
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        panels[0].set_ylim(-0.02 * (top or highest), 1.03 * (top or highest))
    for axes, found in zip(panels, ends, strict=True):
        label_ends(axes, found)
    return figure


def _line(
    axes: Axes, result: Result, which: tuple[str, str], measure: Measure, *, band: bool
) -> tuple[float, str, str] | None:
    """Draw the line of one stream and placement; tell where it ends, its name and its colour."""
    points = [point for point in result.summary if (point.stream, point.strategy) == which]
    found = [(point.offered, spread) for point in points if (spread := measure(point)) is not None]
    if not found:
        return None
    name, colour = which[1], _COLOURS[which[1]]
    loads, medians = [load for load, _ in found], [spread.median for _, spread in found]
    style = "--" if name == NO_LIMITS else "-"
    axes.plot(loads, medians, style, marker="o", markersize=3, linewidth=1.6, color=colour)
    if band:
        least, most = [spread.least for _, spread in found], [spread.most for _, spread in found]
        axes.fill_between(loads, least, most, color=colour, alpha=0.15, linewidth=0)
    return medians[-1], name, colour


def _over_time(result: Result) -> Figure:
    """Draw what a constant load comes to, second by second."""
    settings = result.settings
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(settings.split_load, color=_COLOURS[NO_LIMITS], linewidth=1, linestyle="--")
    axes.text(0.2, settings.split_load * 1.03, f"offered: {settings.split_load}", color="#555555")
    ends = []
    for curve in result.splitting:
        smooth = _smoothed(curve.completed)
        colour = _COLOURS[WINDOWS] if curve.split_after else _COLOURS[curve.strategy]
        axes.plot([second + 0.5 for second in range(len(smooth))], smooth, color=colour, linewidth=1.8)
        ends.append((smooth[-1], _named(curve), colour))
    axes.set_xlim(0, settings.split_seconds)
    axes.set_ylim(0, 1.3 * settings.split_load)
    axes.set_xlabel("seconds since the load began")
    axes.set_ylabel("completed calls a second")
    label_ends(axes, ends)
    return figure


def _smoothed(counts: Sequence[int]) -> list[float]:
    """Average each second with its neighbours."""
    near = [counts[max(0, second - 1) : second + 2] for second in range(len(counts))]
    return [sum(each) / len(each) for each in near]


def _named(curve: Curve) -> str:
    if curve.split_after:
        return f"{curve.strategy}, {curve.splits} splits"
    return f"{curve.strategy}, no splits"
