"""The plan as a picture in a file. Needs matplotlib."""

from math import sqrt
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aioidempotency._cli.planning import Plan, Row

_STYLE: Final[dict[Any, Any]] = {
    # Text stays text, and the same plan gives the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "aioidempotency",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_AFTER, _BEFORE, _CHOSEN, _LIMIT = "#1b7f5c", "#b4471f", "#333333", "#888888"


def save(plan: Plan, file: Path) -> None:
    """Draw the plan into a file, whose suffix names its format.

    Raises:
        OSError: The file cannot be written.
    """
    with rc_context(_STYLE):
        figure = draw(plan)
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


def draw(plan: Plan) -> Figure:
    """Draw how likely the limit holds, and the load of the hottest partition, against the number of buckets."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    likely, hot = figure.subplots(2, 1, sharex=True)
    figure.suptitle(
        f"{plan.workload.calls_per_second:,g} calls a second: {plan.write_units:,.0f} write and "
        f"{plan.read_units:,.0f} read units a second"
    )
    _draw_likelihood(plan, likely)
    _draw_hottest(plan, hot)
    likely.set_ylim(-0.05, 1.05)
    for axes in likely, hot:
        axes.axvline(plan.buckets, color=_CHOSEN, linewidth=1)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return figure


def _draw_likelihood(plan: Plan, axes: Axes) -> None:
    buckets = [row.buckets for row in plan.rows]
    least, most = [row.together for row in plan.rows], [row.together_at_most for row in plan.rows]
    axes.plot(buckets, [row.alone for row in plan.rows], "o-", color=_AFTER, label="after splits: each bucket alone")
    axes.plot(buckets, least, "s-", color=_BEFORE, label=f"before splits: {plan.partitions:,} partitions, at least")
    axes.fill_between(buckets, least, most, color=_BEFORE, alpha=0.2, linewidth=0, label="before splits: at most")
    for row in plan.rows:
        label = "before splits: simulated, with 2 standard errors" if row is plan.rows[0] else None
        axes.errorbar(row.buckets, row.simulated, yerr=_uncertain(row), fmt="x", color=_CHOSEN, capsize=2, label=label)
    axes.axhline(
        plan.terms.probability,
        color=_LIMIT,
        linestyle="--",
        linewidth=1,
        label=f"asked for: {plan.terms.probability:.6g}",
    )
    axes.set_ylabel("probability that no partition\npasses its limit in a second")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.annotate(plan.name, (plan.buckets, 0.3), xytext=(-6, 0), textcoords="offset points", ha="right", color=_CHOSEN)


def _uncertain(row: Row) -> float:
    """Give two standard errors of the simulated share, taking one more success and failure for seen."""
    share = (row.simulated * row.seconds + 1) / (row.seconds + 2)
    return 2 * sqrt(share * (1 - share) / row.seconds)


def _draw_hottest(plan: Plan, axes: Axes) -> None:
    buckets = [row.buckets for row in plan.rows]
    label = "hottest partition before splits, median of the simulation"
    axes.plot(buckets, [row.hottest for row in plan.rows], "s-", color=_BEFORE, label=label)
    axes.axhline(1, color=_LIMIT, linestyle="--", linewidth=1, label="limit of a partition")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("load of the hottest partition")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xscale("log", base=2)
    powers = [number for number in buckets if number.bit_count() == 1]
    axes.set_xticks(powers, [f"{number:,}" for number in powers])
    axes.minorticks_off()
    axes.set_xlabel("buckets")
