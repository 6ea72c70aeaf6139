"""The collector's telemetry for operators: a JSON object in a file, or a line on standard error.

SIGUSR1 asks for it where there is such a signal, and the end of the program writes the file once more. This
module must never leave half a file for a reader to find.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator

import trio

from examples.common import complain
from trio_ipc import ServerSnapshot


class Report:
    """Where snapshots go.

    Args:
        program: whose they are, for lines on standard error.
        file: the file to write, None for a line on standard error.
    """

    def __init__(self, program: str, file: str | None) -> None:
        self._program = program
        self._file = file

    async def show(self, snapshot: ServerSnapshot) -> None:
        """Show a snapshot that was asked for. Where that fails, a line says so and the program goes on."""
        if self._file is None:
            complain(self._program, f"telemetry: {json.dumps(snapshot.as_dict())}")
            return
        try:
            await self.save(snapshot)
        except OSError as exc:
            complain(self._program, exc)

    async def save(self, snapshot: ServerSnapshot) -> None:
        """Write the file, if there is one.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is not None:
            text = json.dumps(snapshot.as_dict()) + "\n"
            await trio.to_thread.run_sync(_replace, self._file, text)


def _replace(path: str, text: str) -> None:
    """Put a file of mode 0600 in a file's place. A reader sees the old one or the new one."""
    directory, name = os.path.split(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory or os.curdir)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as exc:
        # Its own words may name the temporary file, which would only puzzle.
        raise OSError(
            f"{path}: telemetry cannot be written: {exc.strerror}; "
            "see to the directory, or change --telemetry"
        ) from exc


@contextlib.contextmanager
def snapshot_signals() -> Iterator[AsyncIterator[object]]:
    """Receive what asks for a snapshot: SIGUSR1, on Windows nothing. After the block it is ignored."""
    if sys.platform == "win32":
        yield _nothing()
    else:
        # Trio puts back what was there: not the default, which would end a program that is cleaning up.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            yield signals


async def _nothing() -> AsyncIterator[object]:
    await trio.sleep_forever()
    yield
