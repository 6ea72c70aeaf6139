"""The curves that the page shows, from a run's JSON document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from tests.benchmarks.figures import Spread

from .curves import BARE, CURVES, NO_POLLING, OURS, Curve, Figure, values
from .page import caption

_COLOURS: Final = {OURS: "#d9480f", NO_POLLING: "#1c7ed6", BARE: "#868e96"}
_MARKS: Final = {OURS: "o", NO_POLLING: "s", BARE: "^"}

#: Up to which ratio of the highest to the lowest these lines of an axis have a number, by first digits.
_NUMBERED: Final = {5: "23456789", 30: "2357", math.inf: "25"}

#: Which part of an axis a point's label takes.
_ROOM: Final = 0.06

#: Points from which on an axis is linear, where it begins with 0.
_SMALLEST: Final = {"pauses": 50, "handlers": 1}


def draw(document: dict[str, Any], path: str) -> None:
    """Write the curves as SVG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    panels = [
        (name, curve, figure)
        for name, curve in CURVES.items()
        if name in document["measured"]
        for figure in curve.figures
    ]
    lines = -(-len(panels) // 2)
    # Text stays text; the same document gives the same file.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "trio_ipc", "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        picture = Picture(figsize=(11, 0.9 + 3.2 * lines), layout="constrained")
        picture.suptitle("How costs grow", fontsize=14, fontweight="bold")
        picture.supxlabel(caption(document), fontsize=8, color="#555555")
        for index, (name, curve, figure) in enumerate(panels):
            _panel(picture.add_subplot(lines, 2, index + 1), document, name, curve, figure)
        picture.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Any, document: dict[str, Any], name: str, curve: Curve, figure: Figure) -> None:
    axes.set_title(figure.title, loc="left", fontsize=10)
    axes.set_xlabel(curve.what, fontsize=8)
    axes.set_yscale("log")
    if name in _SMALLEST:
        axes.set_xscale("symlog", linthresh=_SMALLEST[name], linscale=0.5)
    else:
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, which="both", linewidth=0.3, color="#dddddd")
    shown: list[float] = []
    every: list[float] = []
    for contender, colour in _COLOURS.items():
        spreads = {
            point: Spread.of(of_rounds)
            for point in document["points"][name]
            if (of_rounds := values(document["measured"], name, contender, point, figure)) is not None
        }
        shown = list(spreads)
        medians = [spread.median for spread in spreads.values()]
        label = document["contenders"][contender]
        axes.plot(
            shown, medians, color=colour, marker=_MARKS[contender], markersize=4, linewidth=1.3, label=label
        )
        least, most = [each.least for each in spreads.values()], [each.most for each in spreads.values()]
        every += least + most
        axes.fill_between(shown, least, most, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(shown, labels_of(curve, shown, _SMALLEST.get(name, 1)), rotation=30, ha="right")
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    digits = next(lines for ratio, lines in _NUMBERED.items() if max(every) <= ratio * min(every))
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,g}" if f"{value:.0e}"[0] in digits else "")
    axes.tick_params(which="both", labelsize=8)
    axes.legend(fontsize=8, frameon=False)


def labels_of(curve: Curve, points: Sequence[float], smallest: float) -> list[str]:
    """Return the points' labels, but for those that would stand on the one before."""
    places = [math.log10(max(point, smallest / 2)) for point in points]
    room = _ROOM * (places[-1] - places[0])
    labels, free = [], -math.inf
    for point, place in zip(points, places, strict=True):
        labels.append(curve.label(point) if place >= free else "")
        if labels[-1]:
            free = place + room
    return labels
