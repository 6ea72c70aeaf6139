"""What a service says: one line for each thing, to people or to what collects logs.

Standard output has one line, where clients can connect; all else is on standard error. This module must never
fail because nobody reads what it writes, and never write what could steer a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Final

from trio_ipc import streams
from trio_ipc.errors import ConfigError, ends_the_program, escape, shown, writable

#: How lines look.
STYLES: Final = ("text", "json")

#: Characters of a line that a terminal is shown.
_LONGEST_LINE: Final = 100_000

#: What every record has: all else are fields that somebody gave it.
_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """Writes a record as text. An exception may say what a peer has sent: its lines are escaped."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback."""
        return "\n".join(escape(line, _LONGEST_LINE) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, message, its fields, and a traceback.

    It is some lines of its own, since the fields are, and since nothing in one may cost the line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _message_of(record),
            **{name: value for name, value in fields.items() if name not in {"time", "level", "logger"}},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # ASCII: bytes of a path that are no text are escaped as well.
        try:
            return json.dumps(entry, default=shown, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # a key that is no text, infinity, a circle
            return json.dumps({str(name): _as_text(value) for name, value in entry.items()})


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except BaseException as exc:  # arguments that do not fit the text; logging would write a traceback
        if ends_the_program(exc) is not None:
            raise
        return f"{_as_text(record.msg)} {shown(record.args)}"


class Console:
    """Standard output and standard error of a service.

    Args:
        name: of the program, before each line.
        style: ``text`` or ``json``.
    """

    def __init__(self, name: str, style: str) -> None:
        self._name = name
        self._json = JsonFormatter() if style == "json" else None

    @property
    def is_json(self) -> bool:
        """Whether its lines are JSON."""
        return self._json is not None

    def say(
        self, text: str, *, level: int = logging.INFO, exc: BaseException | None = None, **fields: Any
    ) -> None:
        """Write a line to standard error, if that can be done."""
        if self._json is None:
            line = f"{self._name}: {escape(text, _LONGEST_LINE)}"
        else:
            exc_info = None if exc is None else (type(exc), exc, exc.__traceback__)
            made = {"name": self._name, "msg": writable(text), "levelno": level, "exc_info": exc_info}
            line = self._json.format(
                logging.makeLogRecord({**made, "levelname": logging.getLevelName(level), **fields})
            )
        streams.tell(line)
        if exc is not None and self._json is None:
            streams.tell(TextFormatter().formatException((type(exc), exc, exc.__traceback__)))

    def announce(self, endpoint: str) -> None:
        """Say on standard output where clients can connect. The process that started the service need not
        read it.

        Raises:
            OutputError: it takes nothing, though somebody may well be waiting for it.
        """
        if streams.is_closed(sys.stdout):
            return
        try:
            with streams.writing() as file:
                print(f"listening on {writable(endpoint)}", file=file, flush=True)
        except streams.ReaderGoneError:
            streams.discard(sys.stdout)

    def configure_logging(self, level: int) -> None:
        """Have the log written as these lines are, unless the program has said how already."""
        handler = logging.StreamHandler()
        name = self._name.replace("%", "%%")
        text = TextFormatter(f"{name}: %(levelname)s %(name)s: %(message)s")
        handler.setFormatter(self._json or text)
        logging.basicConfig(level=level, handlers=[handler])


def program_name() -> str:
    """Return what the program is called: its file, or the package that it is."""
    path = os.path.splitext(sys.argv[0] if sys.argv else "")[0]
    name = os.path.basename(path)
    if name == "__main__":  # of a package
        name = os.path.basename(os.path.dirname(path))
    return name if name and not name.startswith("-") else "service"


def checked_style(style: str) -> str:
    """Return how lines look, or refuse it."""
    if style not in STYLES:
        raise ConfigError(
            f"log_style is {shown(style)}, must be " + " or ".join(f'"{one}"' for one in STYLES)
        )
    return style


def checked_level(level: int | str) -> int:
    """Return a level of :mod:`logging` by its number or name, or refuse it."""
    known = logging.getLevelNamesMapping()
    number = known.get(level.upper()) if isinstance(level, str) else level
    if not isinstance(number, int) or isinstance(number, bool):
        allowed = ", ".join(name for name, value in known.items() if value)
        raise ConfigError(f"log_level is {shown(level)}, must be a number or one of {allowed}")
    return number
