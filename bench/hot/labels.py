"""Names at the ends of lines, instead of a legend, so that none covers another."""

from collections.abc import Sequence

from matplotlib.axes import Axes

_APART = 0.062
"""The height of a name, as a share of the axes."""


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names beside the axes: of each the height of its line's end, the text, and the colour."""
    to_axes = axes.transData + axes.transAxes.inverted()
    right = axes.get_xlim()[1]
    ordered = sorted((float(to_axes.transform((right, height))[1]), text, colour) for height, text, colour in ends)
    places = spread_out([height for height, _, _ in ordered])
    for (height, text, colour), place in zip(ordered, places, strict=True):
        axes.annotate(
            text,
            xy=(1.0, height),
            xytext=(1.05, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 2,
                "shrinkB": 3,
            },
        )


def spread_out(heights: Sequence[float]) -> list[float]:
    """Move ascending heights as far apart as names are high, and back below the top."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + _APART) if places else max(height, 0.0))
    top = 1.0
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], top)
        top = places[index] - _APART
    return places
