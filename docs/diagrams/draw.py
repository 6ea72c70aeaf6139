"""Draw the pictures of the documentation: ``python docs/diagrams/draw.py``, or with ``--check`` compare them.

Each picture is text here, and an SVG beside this file that follows the reader's light or dark theme. What is
in the code is read from the code: the packages and their imports, the states of a connection.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "trio_ipc"

STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1c2230; text-anchor: middle; dominant-baseline: middle; }
.left { text-anchor: start; }
.note { font-size: 12px; fill: #4b5566; paint-order: stroke; stroke: #fff; stroke-width: 5px; }
.box { fill: #e9f0fb; stroke: #2a5db0; } .end { fill: #f3f4f6; stroke: #6b7280; }
.bad { fill: #fdecea; stroke: #b3402f; } .good { fill: #e7f5ec; stroke: #2c7a4b; }
.line { fill: none; stroke: #4b5566; stroke-width: 1.5; } .faint { stroke-opacity: 0.45; }
.head { fill: #4b5566; } .frame { fill: none; stroke: #4b5566; stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ef; } .note { fill: #aab3c2; stroke: #131416; }
  .box { fill: #1d2b45; stroke: #7aa7f0; } .end { fill: #262a31; stroke: #9aa3b2; }
  .bad { fill: #40211d; stroke: #f09a8c; } .good { fill: #18351f; stroke: #7fd19b; }
  .line { stroke: #aab3c2; } .head { fill: #aab3c2; } .frame { stroke: #aab3c2; }
}"""

Point = tuple[float, float]


class Picture:
    """An SVG: boxes with text in them, and arrows between them."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._lines: list[str] = []
        self._boxes: list[str] = []
        self._places: dict[str, tuple[float, float, float, float]] = {}

    def box(
        self, name: str, at: Point, text: str = "", *, width: float = 0, height: float = 0, kind: str = "box"
    ) -> None:
        """Draw a box around a point, as large as its text wants."""
        rows = (text or name).split("\n")
        width = width or 26 + 7.6 * max(map(len, rows))
        height = height or 16 + 18 * len(rows)
        x, y = at
        self._places[name] = (x, y, width / 2, height / 2)
        self._boxes.append(
            f'<rect class="{kind}" x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" '
            f'height="{height:g}" rx="6"/>'
        )
        self._boxes += [
            text_at((x, y + 18 * (number - (len(rows) - 1) / 2)), row) for number, row in enumerate(rows)
        ]

    def arrow(
        self, start: str, end: str, label: str = "", *, via: Iterable[Point] = (), shift: Point = (0, 0)
    ) -> None:
        """Draw an arrow between two boxes, straight or by some points; ``shift`` moves its label."""
        middle = list(via)
        first, last = self._centre(start), self._centre(end)
        points = [
            self._border(start, middle[0] if middle else last),
            *middle,
            self._border(end, middle[-1] if middle else first),
        ]
        drawn = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._lines.append(f'<polyline class="line" points="{drawn}" marker-end="url(#head)"/>')
        if label:
            (a, b), (c, d) = points[(len(points) - 1) // 2 : (len(points) - 1) // 2 + 2]
            self.note(((a + c) / 2 + shift[0], (b + d) / 2 + shift[1]), label)

    def curve(self, start: str, end: str) -> None:
        """Draw a faint curve from the top of one box to the bottom of another."""
        x, y, _, half = self._places[start]
        to_x, to_y, _, to_half = self._places[end]
        y, to_y = y - half, to_y + to_half
        bend = (y - to_y) / 2
        self._lines.append(
            f'<path class="line faint" d="M{x:g} {y:g} C{x:g} {y - bend:g} {to_x:g} {to_y + bend:g} '
            f'{to_x:g} {to_y:g}" marker-end="url(#head)"/>'
        )

    def bar(
        self, start: float, end: float, y: float, text: str, note: str = "", *, kind: str = "box"
    ) -> None:
        """Draw a length of time."""
        self._boxes.append(
            f'<rect class="{kind}" x="{start:g}" y="{y:g}" width="{end - start:g}" height="30" rx="4"/>'
        )
        self._boxes.append(text_at(((start + end) / 2, y + 16), text))
        if note:
            self.note(((start + end) / 2, y + 44), note)

    def rule(self, start: Point, end: Point, *, head: bool = False) -> None:
        """Draw a line."""
        marker = ' marker-end="url(#head)"' if head else ""
        drawn = f"{start[0]:g},{start[1]:g} {end[0]:g},{end[1]:g}"
        self._lines.append(f'<polyline class="line" points="{drawn}"{marker}/>')

    def frame(self, corner: Point, size: Point) -> None:
        """Draw a dashed frame."""
        (x, y), (width, height) = corner, size
        self._lines.append(
            f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
        )

    def note(self, at: Point, text: str, *, left: bool = False) -> None:
        """Write small text, in rows around a point."""
        rows = text.split("\n")
        for number, row in enumerate(rows):
            place = (at[0], at[1] + 15 * (number - (len(rows) - 1) / 2))
            self._boxes.append(text_at(place, row, kind="note left" if left else "note"))

    def svg(self) -> str:
        """Return the file."""
        width, height = self._size
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9" '
            'markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 8 4 0 8"/></marker></defs>'
        )
        size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(self._title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            head,
            *self._lines,
            *self._boxes,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _centre(self, name: str) -> Point:
        x, y, _, _ = self._places[name]
        return x, y

    def _border(self, name: str, towards: Point) -> Point:
        """Where the line from a box's centre to a point leaves the box."""
        x, y, half_width, half_height = self._places[name]
        dx, dy = towards[0] - x, towards[1] - y
        scale = min(half_width / abs(dx) if dx else 9e9, half_height / abs(dy) if dy else 9e9)
        return x + dx * scale, y + dy * scale


def text_at(at: Point, text: str, *, kind: str = "") -> str:
    """Return one row of text."""
    shown = f' class="{kind}"' if kind else ""
    return f'<text{shown} x="{at[0]:g}" y="{at[1]:g}">{escape(text)}</text>'


# --- The house ----------------------------------------------------------------------------------------------


def packages() -> list[str]:
    """Return the packages, as docs/architecture.md lists them."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", page.partition("## Rules")[0], re.MULTILINE)


def public_packages() -> dict[str, str]:
    """Return in which package each name of ``trio_ipc`` is."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def imports() -> dict[str, set[str]]:
    """Return which packages each package imports."""
    known, where = packages(), public_packages()
    found: dict[str, set[str]] = {package: set() for package in known}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        package = parts[1]
        if package not in found:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = parts[: len(parts) - node.level] if node.level else ()
                module = ".".join([*base, *([node.module] if node.module else [])])
                names = [f"{module}.{alias.name}" for alias in node.names]
            for name in names:
                top, _, rest = name.partition(".")
                target = rest.partition(".")[0]
                target = where.get(target, target)
                if top == "trio_ipc" and target in found and target != package:
                    found[package].add(target)
    return found


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Leave out what follows from the rest: a package that is imported by one that is imported."""

    def reach(package: str) -> set[str]:
        return {far for near in graph[package] for far in {near, *reach(near)}}

    return {
        package: {near for near in nears if not any(near in reach(other) for other in nears - {near})}
        for package, nears in graph.items()
    }


#: How far to the right each package stands, so that few arrows run behind others. How deep: by its imports.
PLACES = {
    package: int(place)
    for package, place in re.findall(
        r"(\w+) (\d+)",
        "castagnoli 90 heap 205 errors 330 functions 470 streams 715 logs 230 endpoint 340 contract 470 "
        "telemetry 660 settings 190 transports 330 daemoneye 540 config 260 wire 130 channel 280 legacy 200 "
        "opening 290 client 350 server 460 resilient 130 portal 310 testing 520 service 650 blocking 130 "
        "aio 250 cli 560",
    )
}


def house() -> Picture:
    """The packages, each below all that it imports."""
    graph = imports()
    floors: dict[str, int] = {}
    for package in packages():  # what a package imports stands before it
        floors[package] = max((floors[near] + 1 for near in graph[package]), default=0)
    if set(PLACES) != set(floors):
        raise SystemExit(f"PLACES lacks or has too much: {set(PLACES) ^ set(floors)}")
    step = 68.0
    picture = Picture(760, step * (max(floors.values()) + 1) + 44, "The packages, and which imports which")
    picture.note(
        (380, 16), "An arrow leads to a package that is imported. What follows from others is left out."
    )
    for package, level in floors.items():
        picture.box(package, (PLACES[package], 58 + step * level))
    for package, nears in reduced(graph).items():
        for near in sorted(nears):
            picture.curve(package, near)
    return picture


# --- States, ways, times ------------------------------------------------------------------------------------

#: What moves a connection from one state to another.
MOVES = {
    ("READING", "HANDLING"): "a whole request",
    ("READING", "FLUSHING"): "a broken frame",
    ("READING", "ENDED"): "idle, stopped or left",
    ("HANDLING", "FLUSHING"): "turn over, or none left",
    ("HANDLING", "ENDED"): "the client has left",
    ("FLUSHING", "READING"): "none in hand",
    ("FLUSHING", "HANDLING"): "more in hand",
    ("FLUSHING", "ENDED"): "not taken in time",
}


def states() -> Picture:
    """A connection on the server."""
    from trio_ipc.server.states import FOLLOWS  # noqa: PLC0415 - only for this picture

    moves = {(state.name, after.name) for state, afters in FOLLOWS.items() for after in afters}
    if moves != set(MOVES):
        raise SystemExit(f"the picture of the states lacks {moves - set(MOVES)} or has {set(MOVES) - moves}")
    picture = Picture(760, 340, "The states of a connection on the server")
    picture.box("READING", (90, 150), "READING")
    picture.box("HANDLING", (380, 150), "HANDLING")
    picture.box("FLUSHING", (670, 150), "FLUSHING")
    picture.box("ENDED", (380, 300), "ENDED", kind="end")
    ways: dict[tuple[str, str], list[Point]] = {
        ("READING", "FLUSHING"): [(110, 60), (650, 60)],
        ("FLUSHING", "READING"): [(690, 20), (70, 20)],
        ("HANDLING", "FLUSHING"): [(440, 140), (600, 140)],
        ("FLUSHING", "HANDLING"): [(600, 162), (440, 162)],
    }
    shifts: dict[tuple[str, str], Point] = {
        ("FLUSHING", "HANDLING"): (0, 12),
        ("READING", "ENDED"): (-70, 8),
        ("FLUSHING", "ENDED"): (62, 8),
        ("HANDLING", "ENDED"): (58, 0),
    }
    for (before, after), label in MOVES.items():
        key = (before, after)
        picture.arrow(before, after, label, via=ways.get(key, ()), shift=shifts.get(key, (0, -10)))
    return picture


def resilient() -> Picture:
    """The way of a call through the resilient client."""
    picture = Picture(760, 560, "The way of a call through the resilient client")
    picture.frame((20, 60), (720, 410))
    picture.note((250, 446), "one deadline: the call's own\ntimeout, or call_timeout_ms", left=True)
    picture.box("call", (230, 28), "call(request)")
    picture.box("choose", (230, 120), "choose a server\nhealthy, able, by the strategy")
    picture.box("connect", (230, 220), "take a connection\nfrom the pool, or a new one")
    picture.box("ask", (230, 320), "send the request\nwait for the response")
    picture.box("answer", (230, 515), "the response", kind="good")
    picture.box("next", (560, 270), "may another server\nbe asked?")
    picture.box("round", (560, 380), "was nobody reached,\nand are rounds left?")
    picture.box("wait", (560, 170), "wait a while")
    picture.box("error", (560, 515), "one error, with each cause", kind="bad")
    picture.arrow("call", "choose")
    picture.arrow("choose", "connect")
    picture.arrow("connect", "ask")
    picture.arrow("ask", "answer", "a response: also one that reports a failure", shift=(0, -25))
    picture.arrow("connect", "next", "no connection", shift=(0, -12))
    picture.arrow("ask", "next", "it failed", shift=(0, 14))
    picture.arrow("next", "choose", "yes", via=[(430, 270), (430, 125)], shift=(0, -30))
    picture.arrow("next", "round", "no")
    picture.arrow("round", "wait", "yes", via=[(700, 380), (700, 170)])
    picture.arrow("wait", "choose", "a new round", via=[(560, 105)], shift=(-60, -16))
    picture.arrow("round", "error", "no")
    return picture


def deadlines() -> Picture:
    """Which setting bounds which wait, on both sides of one call."""
    picture = Picture(760, 380, "Which setting bounds which wait")
    for y, side in ((60, "client"), (240, "server")):
        picture.note((8, y + 16), side, left=True)
    picture.bar(60, 186, 60, "connect", "accept_timeout_ms")
    picture.bar(190, 310, 60, "send request", "write_timeout_ms")
    picture.bar(314, 590, 60, "until the response begins", "read_timeout_ms")
    picture.bar(594, 740, 60, "until its end", "read_timeout_ms")
    whole = "call(request, timeout=…)"
    picture.bar(190, 740, 130, whole, "the caller's own, around all of the call", kind="good")
    picture.bar(60, 186, 240, "wait for a place", "accept_timeout_ms")
    picture.bar(190, 310, 240, "idle", "read_timeout_ms")
    picture.bar(314, 436, 240, "request comes", "read_timeout_ms")
    picture.bar(440, 580, 240, "handler", "handler_timeout_ms")
    picture.bar(584, 740, 240, "hand response over", "write_timeout_ms")
    picture.rule((60, 345), (740, 345), head=True)
    picture.note((400, 362), "time")
    picture.note(
        (400, 24), "Each wait has its own budget. Where handler_timeout_ms is None it is read_timeout_ms."
    )
    return picture


def switching() -> Picture:
    """What a switch of the transport does to a running server."""
    picture = Picture(760, 360, "Switching the transport of a running server")
    picture.bar(150, 730, 40, "the endpoint, and the clients that wait at it", kind="good")
    picture.bar(150, 400, 110, "accepts new connections")
    picture.bar(400, 730, 110, "no longer accepts", kind="end")
    picture.bar(200, 560, 146, "a connection from before: it finishes here", kind="box")
    picture.bar(150, 400, 230, "not loaded", kind="end")
    picture.bar(400, 730, 230, "accepts new connections")
    picture.bar(450, 700, 266, "a new connection")
    for y, name in ((55, "socket or pipe"), (125, "interprocess"), (245, "legacy")):
        picture.note((12, y), name, left=True)
    picture.rule((400, 20), (400, 320))
    picture.note((400, 12), 'switch_transport("legacy"): the listening socket changes hands')
    picture.rule((150, 328), (740, 328), head=True)
    picture.note(
        (430, 344), "time. A switch that fails leaves interprocess serving. The way back is the same."
    )
    return picture


PICTURES = {
    "house": house,
    "connection-states": states,
    "resilient-call": resilient,
    "deadlines": deadlines,
    "switching": switching,
}


def drawn() -> dict[Path, str]:
    """Return each file and what belongs in it."""
    return {HERE / f"{name}.svg": draw().svg() for name, draw in PICTURES.items()}


def main(arguments: list[str]) -> None:
    """Write the files, or compare them."""
    for file, text in drawn().items():
        if arguments != ["--check"]:
            file.write_text(text, encoding="utf-8", newline="\n")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{file.name} is not what draw.py draws: run python docs/diagrams/draw.py")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
