"""The pieces of work, by the letters of the command line and of docs/benchmarks.md."""

from __future__ import annotations

from typing import Final

import attrs

from .loads import Use
from .messages import LARGEST, MINIMAL

MANY: Final = 16
DEPTH: Final = 64


@attrs.frozen
class Piece:
    """Work that is timed.

    Attributes:
        what: what is done, for the tables.
        alone: whether it is for those only whose many callers share a client. For others it is the same as
            another piece.
        figure: which of its figures it is judged by: ``us``, the median of single operations, or
            ``us_per_call``, the time of all divided by the calls.
    """

    what: str
    use: Use
    message: str
    number: int = 1
    figure: str = "us"
    alone: bool = False


#: What every contender is timed at.
TIMED: Final = {
    "a": Piece("a minimal task and an empty success, one caller", Use.ONE, MINIMAL),
    "b100": Piece("a result of 100 process records", Use.ONE, "100"),
    "b1000": Piece("a result of 1,000 process records", Use.ONE, "1000"),
    "c": Piece("a result of just less than 1 MiB", Use.ONE, LARGEST),
    "d": Piece(f"{MANY} callers at once on one client", Use.MANY, MINIMAL, MANY, "us_per_call"),
    "d16": Piece(
        f"{MANY} callers at once, each on a connection of its own",
        Use.SEPARATE,
        MINIMAL,
        MANY,
        "us_per_call",
        alone=True,
    ),
    "e": Piece(f"{DEPTH} calls pipelined on one connection", Use.PIPELINED, MINIMAL, DEPTH, "us_per_call"),
    "f": Piece("connect, call, close", Use.CONNECT, MINIMAL),
}

#: What is measured in other ways, each by a module of its own.
OTHER: Final = {
    "g": "server memory of idle connections",
    "h": "start-up: import, and time to the first response",
    "p": "polling's price",
    "codec": "protobuf and frames alone",
}

NAMES: Final = (*TIMED, *OTHER)


def chosen(names: str) -> list[str]:
    """Return the pieces that a list such as ``a,b`` means; ``b`` means ``b100`` and ``b1000``.

    Raises:
        ValueError: there is no such piece.
    """
    found = []
    for name in names.split(","):
        fitting = [one for one in NAMES if one == name or (name == "b" and one.startswith("b"))]
        if not fitting:
            raise ValueError(f"there is no work {name!r}; there are {', '.join(NAMES)}")
        found += fitting
    return [name for name in NAMES if name in found]
