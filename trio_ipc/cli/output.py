"""Results on standard output, talk on standard error, and what happens where one of them takes nothing.

Commands print by nothing else. What a peer said goes through :func:`one_line` before it is shown as text;
JSON escapes by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO

from trio_ipc.errors import one_line, writable
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
    "redraws",
    "say",
    "talk_console",
    "write",
    "write_json",
    "writing",
]

#: Columns and lines of an ordinary environment. rich takes all digits for numbers, fails at some, and shows
#: nothing in one column.
_ORDINARY: Final = re.compile("[2-9][0-9]|[1-9][0-9]{2,3}")
_LEAST_COLUMNS: Final = 20
_MOST_COLUMNS: Final = 9_999


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

    What is no ASCII is escaped: a peer's text cannot steer a terminal. A number that JSON does not have, such
    as infinity, becomes null.

    Args:
        value: what :mod:`json` can write.
        form: "short" on one line, "pretty" indented, "auto" pretty on a terminal and short elsewhere.

    Raises:
        ReaderGoneError: nobody reads any longer.
        OutputError: it takes nothing.
    """
    is_pretty = form == "pretty" or (form == "auto" and on_terminal())
    options: dict[str, Any] = {"indent": 2} if is_pretty else {"separators": (",", ":")}
    try:
        text = json.dumps(value, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, **options)
    write(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def redraws() -> bool:
    """Return whether standard output is a terminal on which something can be drawn again."""
    return on_terminal() and not _is_dumb()


def console() -> Console:
    """Return a console on standard output for tables; coloured only on a terminal.

    Print by it inside of :func:`writing`. Text of a peer's goes in as :class:`rich.text.Text`, not as markup.
    """
    return _console(sys.stdout)


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow to load, and not everybody has tables

    width = height = None
    if _is_dumb() or not all(map(_is_ordinary, ("COLUMNS", "LINES"))):
        # rich takes a dumb terminal for one of 80 columns, and believes an environment that says 0.
        columns, height = shutil.get_terminal_size()
        width = max(_LEAST_COLUMNS, min(columns, _MOST_COLUMNS))
    return Console(
        file=stream,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        # FORCE_COLOR, which CI systems set, would have a log file taken for a terminal.
        force_terminal=stream.isatty(),
        width=width,
        height=height,
    )


def _is_dumb() -> bool:
    return os.environ.get("TERM", "").lower() in {"dumb", "unknown"}


def _is_ordinary(name: str) -> bool:
    text = os.environ.get(name, "")
    return not text.isdigit() or _ORDINARY.fullmatch(text) is not None


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


def talk_console() -> Console:
    """Return a console on standard error, for progress; it shows none where that is no terminal."""
    return _console(sys.stderr)
