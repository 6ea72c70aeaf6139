"""The chart that the README shows, from a run's JSON document."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from .figures import Spread

_Panel: TypeAlias = tuple[str, str, str, bool]

#: The panels: a piece of work, how it is headed, its figure, and whether that is shown as calls a second.
_PANELS: Final[tuple[_Panel, ...]] = (
    ("a", "A minimal task, one caller: µs", "us", False),
    ("b1000", "1,000 process records: µs", "us", False),
    ("d", "16 callers on one client: calls a second", "us_per_call", True),
    ("f", "Connect, call, close: µs", "us", False),
)
_TITLES: Final = {
    "quiet": "Local calls between two Python processes",
    "one-core": "Local calls between two Python processes that share one core",
    "busy": "Local calls between two Python processes on a busy machine",
}
_OURS: Final = "#d9480f"
_OTHERS: Final = "#74a0c4"
_FLOORS: Final = "#c9ced3"
_IS_FLOOR: Final = frozenset({"bare-trio", "blocking"})


def draw(document: dict[str, Any], path: str) -> None:
    """Write the chart as SVG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text; the same document gives the same file.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "trio_ipc", "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        figure.suptitle(_TITLES[document["surroundings"]], fontsize=14, fontweight="bold")
        figure.supxlabel(caption(document), fontsize=8, color="#555555")
        for axes, panel in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            _panel(axes, document, panel)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Any, document: dict[str, Any], panel: _Panel) -> None:
    work, title, figure, per_second = panel
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    axes.set_xticks([])
    results = document["measured"].get(work, {})
    spreads = {}
    for name, figures in results.items():
        values = [1e6 / each for each in figures[figure]] if per_second else figures[figure]
        spreads[name] = Spread.of(values)
    best_last = sorted(spreads, key=lambda name: spreads[name].median, reverse=not per_second)
    for row, name in enumerate(best_last):
        spread = spreads[name]
        colour = _OURS if name == "trio_ipc" else _FLOORS if name in _IS_FLOOR else _OTHERS
        axes.barh(row, spread.median, color=colour, height=0.7)
        axes.plot([spread.least, spread.most], [row, row], color="#333333", linewidth=1)
        axes.text(max(spread.median, spread.most), row, f"  {spread.median:,.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(best_last)), [document["contenders"][name] for name in best_last])
    axes.margins(x=0.15)


def caption(document: dict[str, Any]) -> str:
    """Say where, with what and when it was measured."""
    machine, versions = document["machine"], document["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Medians of {document['rounds']} rounds, the lines from the least to the most. Grey: echoes without "
        f"messages.\n{machine['cores']} cores of {machine['processor']}, load {machine['load']:g}, "
        f"{machine['system']}, {machine['python']}, {packages}. {document['date']}"
    )
