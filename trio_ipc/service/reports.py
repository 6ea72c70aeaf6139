"""What a service has done, for operators: at a signal, at its end, and at intervals for node_exporter.

Nothing here listens: a file is put in the place of another one. This module must never leave half a file
for a reader to find, and never keep the service from its work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import trio

from trio_ipc.errors import ConfigError, shown
from trio_ipc.server import Server
from trio_ipc.streams import OutputError
from trio_ipc.telemetry import ServerSnapshot

from .console import Console

#: node_exporter's textfile collector reads ``*.prom`` and nothing else.
_SUFFIX: Final = ".prom"

#: A snapshot names peers' failures and endpoints: its owner's alone. node_exporter is another user.
_PRIVATE: Final = 0o600
_READABLE: Final = 0o644


#: Writes a snapshot into a file of this name.
_Write: TypeAlias = Callable[[str, ServerSnapshot], Awaitable[None]]


class Reports:
    """Where a service's snapshots go.

    Args:
        console: for lines.
        snapshot_file: the file to write at a signal and at the end, None for a line at a signal.
        snapshot_interval: seconds from one writing of that to the next, None for those two alone.
        metrics_file: the file for node_exporter, None for none.
        metrics_interval: seconds from one writing of that to the next.

    Raises:
        ConfigError: the metrics' file has a name that is not read, or an interval is none or has no file, or
            the library that writes metrics is missing.
    """

    def __init__(
        self,
        console: Console,
        *,
        snapshot_file: str | None,
        snapshot_interval: float | None,
        metrics_file: str | None,
        metrics_interval: float,
    ) -> None:
        self._console = console
        self._snapshot_file = snapshot_file
        self._snapshot_interval = snapshot_interval
        self._metrics_file = metrics_file
        self._metrics_interval = metrics_interval
        self._has_metrics = False
        if snapshot_interval is not None:
            _check_interval("snapshot_interval", snapshot_interval)
            if snapshot_file is None:
                raise ConfigError(
                    f"snapshot_interval is {shown(snapshot_interval)}, and there is no snapshot_file",
                    hint="give snapshot_file as well",
                )
        if metrics_file is not None:
            _check_metrics(metrics_file, metrics_interval)

    async def show(self, snapshot: ServerSnapshot) -> None:
        """Show a snapshot that was asked for. Where that fails, a line says so and the service goes on."""
        if self._snapshot_file is None:
            whole = snapshot.as_dict()
            if self._console.is_json:
                self._console.say("telemetry", telemetry=whole)
            else:
                self._console.say(f"telemetry: {json.dumps(whole)}")
            return
        try:
            await self.save(snapshot)
        except OutputError as exc:
            self._console.say(str(exc), level=logging.ERROR)

    async def save(self, snapshot: ServerSnapshot) -> None:
        """Write the snapshot's file, if there is one.

        Raises:
            OutputError: it cannot be written.
        """
        if self._snapshot_file is not None:
            await self._write_snapshot(self._snapshot_file, snapshot)

    async def keep_snapshot(self, server: Server[Any, Any]) -> None:
        """Write the snapshot's file, now and at each interval, until cancelled."""
        if self._snapshot_file is not None and self._snapshot_interval is not None:
            await self._keep(server, self._snapshot_file, self._snapshot_interval, self._write_snapshot)

    async def keep_metrics(self, server: Server[Any, Any]) -> None:
        """Write the metrics' file, now and at each interval, until cancelled."""
        if self._metrics_file is not None:
            await self._keep(server, self._metrics_file, self._metrics_interval, self._write_metrics)

    async def _keep(self, server: Server[Any, Any], file: str, interval: float, write: _Write) -> None:
        fails = False
        while True:
            try:
                await write(file, server.snapshot())
            except OutputError as exc:
                if not fails:  # said once, and not at each interval
                    self._console.say(str(exc), level=logging.ERROR)
                fails = True
            else:
                if fails:
                    self._console.say(f"{file}: telemetry is written again")
                fails = False
            await trio.sleep(interval)

    async def _write_snapshot(self, file: str, snapshot: ServerSnapshot) -> None:
        text = json.dumps(snapshot.as_dict()) + "\n"
        await trio.to_thread.run_sync(_replace, file, text, _PRIVATE)

    async def _write_metrics(self, file: str, snapshot: ServerSnapshot) -> None:
        from trio_ipc.telemetry.prometheus import prometheus_text  # noqa: PLC0415 - an extra

        await trio.to_thread.run_sync(_replace, file, prometheus_text(snapshot), _READABLE)
        self._has_metrics = True

    def remove_metrics(self) -> None:
        """Remove the metrics' file, if it is this service's: what has ended must not look like what runs."""
        if self._metrics_file is not None and self._has_metrics:
            with contextlib.suppress(OSError):
                os.unlink(self._metrics_file)


def _check_interval(name: str, interval: float) -> None:
    if not _is_duration(interval):
        raise ConfigError(f"{name} is {shown(interval)}, must be a number of seconds above 0")


def _check_metrics(file: str, interval: float) -> None:
    if not file.endswith(_SUFFIX):
        raise ConfigError(
            f"metrics_file is {shown(file)}, must be a name that ends in {_SUFFIX}",
            hint="node_exporter's textfile collector reads no other",
        )
    _check_interval("metrics_interval", interval)
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError(
            f"metrics_file is {shown(file)}, but the library prometheus_client is missing",
            hint="install trio-ipc with the extra prometheus, or leave metrics_file out",
        )


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


def _replace(path: str, text: str, mode: int) -> None:
    """Put a file in a file's place. A reader sees the old one or the new one.

    Raises:
        OutputError: it cannot be written.
    """
    directory, name = os.path.split(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory or os.curdir)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except (OSError, ValueError) as exc:
        # Its own words may name the temporary file, which would only puzzle.
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise OutputError(
            f"{path}: telemetry cannot be written: {why}; see to the directory, or choose another file"
        ) from exc
