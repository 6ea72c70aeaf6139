"""What people and programs get to see.

Names of processes are anybody's bytes: nothing from a record must reach a terminal without `printable`, or
be read as rich's markup. JSON is one document to a line, in ASCII.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

import attrs
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trio_ipc.daemoneye import ProcessRecord

from ..common import printable
from ..host import user_name
from .changes import Changes
from .paging import Enumeration

_SIZE_OF_A_PIPE: Final = 120, 24
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

#: In less than this a table shows no columns at all. The lines of a narrower terminal wrap.
_LEAST_WIDTH: Final = 40
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Display(Protocol):
    """How the agent shows what it learns."""

    def processes(self, cycle: int, seen: Enumeration) -> None:
        """Show everything, at the first cycle."""

    def changes(
        self,
        cycle: int,
        changes: Changes,
        skipped: Sequence[int],
        collectors: Sequence[str] = (),
        telemetry: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Show what a later cycle brought."""

    def note(self, text: str) -> None:
        """Tell a person something beside the data."""


# --- for programs ---------------------------------------------------------------------------------------


class JsonDisplay:
    """One JSON document to a line for each cycle."""

    def processes(self, cycle: int, seen: Enumeration) -> None:
        told = {"processes": list(map(as_json, seen.records))}
        self._write(cycle, told, seen.skipped, seen.collectors, seen.telemetry)

    def changes(
        self,
        cycle: int,
        changes: Changes,
        skipped: Sequence[int],
        collectors: Sequence[str] = (),
        telemetry: Mapping[str, Any] = _NOTHING,
    ) -> None:
        told = {
            "appeared": list(map(as_json, changes.appeared)),
            "vanished": list(map(as_json, changes.vanished)),
            "changed": [
                {"before": as_json(change.before), "after": as_json(change.after)}
                for change in changes.changed
            ],
        }
        self._write(cycle, {"changes": told}, skipped, collectors, telemetry)

    def note(self, text: str) -> None:
        """Leave it out: standard output is the program's."""

    @staticmethod
    def _write(
        cycle: int,
        told: dict[str, Any],
        skipped: Sequence[int],
        collectors: Sequence[str],
        telemetry: Mapping[str, Any],
    ) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        document = {"cycle": cycle, "time": now, **told, "skipped": list(skipped)}
        document |= {"collectors": list(collectors), "telemetry": dict(telemetry)}
        print(json.dumps(document), flush=True)


def as_json(record: ProcessRecord) -> dict[str, Any]:
    """Return a record's fields by their names; those that are not set are left out.

    Unlike protobuf's own JSON, 64-bit integers stay numbers, and a false `accessible` is said. A number that
    JSON does not have is null: a peer may send any.
    """
    fields = {}
    for field in record.DESCRIPTOR.fields:
        if not field.has_presence or record.HasField(field.name):
            value = getattr(record, field.name)
            fields[field.name] = list(value) if field.is_repeated else _in_json(value)
    return fields


def _in_json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- for people -----------------------------------------------------------------------------------------


class TableDisplay:
    """A table at first, then a line for each change.

    Args:
        limit: rows of the table, None for all of them.
        with_hashes: whether there is a column for the executable's hash.
    """

    def __init__(self, *, limit: int | None, with_hashes: bool) -> None:
        self._limit = limit
        self._collectors: Sequence[str] = ()
        self._with_hashes = with_hashes
        # Not rich's own measure: it believes COLUMNS=0 and shows nothing.
        width, height = shutil.get_terminal_size(_SIZE_OF_A_PIPE)
        # A pipe is no old Windows console, of which rich spares the last column.
        legacy = None if sys.stdout is not None and sys.stdout.isatty() else False
        self._console = _AgentConsole(
            highlight=False,
            markup=False,
            width=max(width, _LEAST_WIDTH),
            height=height,
            legacy_windows=legacy,
        )

    def processes(self, cycle: int, seen: Enumeration) -> None:
        by_weight = sorted(seen.records, key=_weight, reverse=True)
        shown = by_weight[: self._limit]
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        columns = _COLUMNS + (_HASH_COLUMNS if self._with_hashes else ()) + _LAST_COLUMNS
        for column in columns:
            # rich shortens the columns that may wrap first: only the paths give way to a narrow terminal.
            widths = [cell_len(text) for text in (column.title, *map(column.cell, shown))]
            table.add_column(
                column.title,
                justify=column.justify,
                no_wrap=not column.elastic,
                min_width=None if column.elastic else max(widths),
            )
        for record in shown:
            cells = (Text(column.cell(record), no_wrap=True, overflow="ellipsis") for column in columns)
            table.add_row(*cells, style=None if record.accessible else "dim")
        self._console.print(table)
        self.note(_caption(len(shown), seen))
        self._tell(seen.collectors)

    def changes(
        self,
        cycle: int,
        changes: Changes,
        skipped: Sequence[int],
        collectors: Sequence[str] = (),
        telemetry: Mapping[str, Any] = _NOTHING,
    ) -> None:
        if changes or skipped:
            self._tell(collectors)
        for record in changes.vanished:
            self._change("- vanished", "red", record)
        for record in changes.appeared:
            self._change("+ appeared", "green", record)
        for change in changes.changed:
            self._change("! changed ", "yellow", change.after, f", was {_executable(change.before)}")
        if skipped:
            self.note(_too_large(skipped))

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text), style="dim"), soft_wrap=True)

    def _tell(self, collectors: Sequence[str]) -> None:
        if collectors != self._collectors:
            self.note(f"answered by {', '.join(collectors)}")
            self._collectors = collectors

    def _change(self, what: str, style: str, record: ProcessRecord, more: str = "") -> None:
        line = Text(f"{dt.datetime.now().astimezone():%H:%M:%S} ")
        line.append(f"{what} {record.pid:>7}", style=style)
        line.append(f" {_name(record)} ({_executable(record) or 'no executable'}{more})")
        self._console.print(line, soft_wrap=True)


class _AgentConsole(Console):
    """A console that leaves it to the program what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this while it handles the BrokenPipeError


@attrs.frozen
class _Column:
    title: str
    cell: Callable[[ProcessRecord], str]
    justify: Any = "left"
    elastic: bool = False


def _weight(record: ProcessRecord) -> tuple[float, int]:
    return record.cpu_usage, record.memory_usage


def _caption(shown: int, seen: Enumeration) -> str:
    parts = [f"{shown} of {len(seen.records)} processes"]
    if seen.pages > 1:
        parts.append(f"in {seen.pages} pages")
    if seen.skipped:
        parts.append(_too_large(seen.skipped))
    return ", ".join(parts)


def _too_large(pids: Sequence[int]) -> str:
    return f"too large for a frame and left out: {', '.join(map(str, pids))}"


def _name(record: ProcessRecord) -> str:
    return _shortened(printable(record.name) or "?", 20)


def _executable(record: ProcessRecord) -> str:
    path = printable(record.executable_path)
    if path and not record.file_exists:
        return f"{path} [deleted]"
    return f"{path} [replaced]" if record.on_disk_mismatch else path


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _size(record: ProcessRecord) -> str:
    if not record.HasField("memory_usage"):
        return ""
    size = float(record.memory_usage)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _started(record: ProcessRecord) -> str:
    if not record.HasField("start_time"):
        return ""
    try:
        # Not fromtimestamp(), which on Windows refuses what lies before its own time zone's 1970.
        started = (_EPOCH + dt.timedelta(seconds=record.start_time)).astimezone()
    except (ValueError, OverflowError, OSError):
        return "?"
    today = started.date() == dt.datetime.now().astimezone().date()
    return f"{started:%H:%M:%S}" if today else f"{started:%Y-%m-%d}"


_COLUMNS: Final = (
    _Column("PID", lambda record: str(record.pid), "right"),
    _Column("PPID", lambda record: str(record.ppid) if record.HasField("ppid") else "", "right"),
    _Column("User", lambda record: _shortened(printable(user_name(record.user_id)), 16)),
    _Column("Name", _name),
    _Column(
        "CPU", lambda record: f"{record.cpu_usage:.1f}%" if record.HasField("cpu_usage") else "", "right"
    ),
    _Column("Memory", _size, "right"),
    _Column("Started", _started),
)
_HASH_COLUMNS: Final = (_Column("Hash", lambda record: _shortened(printable(record.executable_hash), 13)),)
_LAST_COLUMNS: Final = (_Column("Executable", _executable, elastic=True),)
