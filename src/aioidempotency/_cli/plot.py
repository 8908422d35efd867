"""The plan as a picture in a file. Needs matplotlib."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aioidempotency._cli.planning import Plan


def save(plan: Plan, file: Path) -> None:
    """Draw the plan into a file, whose suffix names its format."""
    # Text stays text, and the same plan gives the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "aioidempotency"}):
        draw(plan).savefig(file, dpi=150, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


def draw(plan: Plan) -> Figure:
    """Draw the load of the hottest partition against the number of buckets."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(plan.hottest), list(plan.hottest.values()), "o-", label="hottest partition")
    axes.axhline(1, color="grey", linestyle="--", label="limit of a partition")
    axes.axvline(plan.buckets, color="black", linewidth=1, label=plan.strategy)
    axes.set_title(
        f"{plan.strategy} for {plan.load.calls_per_second:,g} calls a second on {plan.partitions:,} partitions: "
        f"{plan.write_units:,.0f} write and {plan.read_units:,.0f} read units a second"
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(plan.hottest), [f"{buckets:,}" for buckets in plan.hottest])
    axes.minorticks_off()
    axes.set_xlabel("buckets")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel(f"load in {plan.probability * 100:g} % of all seconds, at most")
    axes.grid(visible=True, alpha=0.25)
    axes.legend()
    return figure
