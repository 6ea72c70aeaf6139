"""Results on standard output, talk on standard error, and what happens where one of them takes nothing.

Commands print by nothing else. What a peer said goes through :func:`one_line` before it is shown as text;
JSON escapes by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trio_ipc.errors import escape, writable
from trio_ipc.streams import OutputError, ReaderGoneError, flush, tell, writing

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "OutputError",
    "ReaderGoneError",
    "client_log_discarded",
    "console",
    "flush",
    "on_terminal",
    "one_line",
    "say",
    "talk_console",
    "write",
    "write_json",
    "writing",
]

#: Characters of a line on standard error.
_LONGEST_LINE = 4_000


# --- Results -----------------------------------------------------------------------------------------------


def write(text: str) -> None:
    """Write a line, or several, to standard output.

    Raises:
        ReaderGoneError: nobody reads any longer.
        OutputError: it takes nothing, since the disk is full for example.
    """
    with writing() as stream:
        print(writable(text), file=stream)


def write_json(value: Any, form: str = "auto") -> None:
    """Write a value as JSON to standard output.

    What is no ASCII is escaped: a peer's text cannot steer a terminal.

    Args:
        value: what :mod:`json` can write.
        form: "short" on one line, "pretty" indented, "auto" pretty on a terminal and short elsewhere.

    Raises:
        ReaderGoneError: nobody reads any longer.
        OutputError: it takes nothing.
    """
    if form == "pretty" or (form == "auto" and on_terminal()):
        write(json.dumps(value, indent=2))
    else:
        write(json.dumps(value, separators=(",", ":")))


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def console() -> Console:
    """Return a console on standard output for tables; coloured only on a terminal.

    Print by it inside of :func:`writing`. Text of a peer's goes in as :class:`rich.text.Text`, not as markup.
    """
    from rich.console import Console  # noqa: PLC0415 - slow to load, and not everybody has tables

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=False)


# --- Talk --------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Write a line to standard error, if that can be done."""
    tell(writable(text))


@contextlib.contextmanager
def client_log_discarded() -> Iterator[None]:
    """Keep what a client logs off standard error, for a block around a client of one server.

    What it refuses it raises as well, and that is the line that the command ends with. Handlers that somebody
    has configured get the log all the same.
    """
    log, handler = logging.getLogger("trio_ipc.client"), logging.NullHandler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def one_line(text: str) -> str:
    """Return a text from elsewhere on one line, cut, without what could steer a terminal."""
    return escape(writable(text), _LONGEST_LINE)


def talk_console() -> Console:
    """Return a console on standard error, for progress; it shows none where that is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - slow to load

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
