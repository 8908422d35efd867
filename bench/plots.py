"""What the pictures of both pages have in common. Needs matplotlib.

They have a white ground of their own, so that they can be read on a light page and on a dark one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.spread import Spread

_STYLE: Final[dict[Any, Any]] = {
    # Text stays text, and equal results give equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "aioidempotency",
}


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures into a folder as SVG, under their names, and say where each is."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg" for name in figures]
    with rc_context(_STYLE):
        for path, figure in zip(paths, figures.values(), strict=True):
            figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    return paths


def figure(panels: int, height: float = 4.6) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure of panels that share the vertical axis."""
    made = Figure(figsize=(5.5 * max(panels, 1.5), height))
    axes: Sequence[Axes] = made.subplots(1, panels, sharey=True, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(visible=True, alpha=0.25)
    return made, axes


def curve(axes: Axes, points: Sequence[tuple[float, Spread]], name: str, colour: str, style: str = "-") -> None:
    """Draw the medians of the rounds, and a band from the least to the most."""
    places, spreads = [place for place, _ in points], [Spread(*each) for _, each in points]
    axes.plot(places, [each.median for each in spreads], style, color=colour, marker="o", markersize=3, label=name)
    axes.fill_between(
        places, [each.least for each in spreads], [each.most for each in spreads], color=colour, alpha=0.15, linewidth=0
    )


def legend(axes: Axes) -> None:
    """Name the lines, to the right of the axes."""
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
