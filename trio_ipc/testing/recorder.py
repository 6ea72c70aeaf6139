"""Writes down what goes over a stream, in both directions, while it goes.

The file is the one that docs/testing.md describes: a line of JSON for each thing that happens, appended and
never changed, so that what was written before a crash can be read after it. recording.py reads it. This
module must never hold up or break the traffic that it records: if it can't write, it stops and says so.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, cast

import attrs
import trio

from trio_ipc.config import IpcConfig, config_of
from trio_ipc.contract import Contract, contract_of
from trio_ipc.logs import Log

from .wrapping import WrappedStream

_log = Log(__name__)

_StreamT = TypeVar("_StreamT", bound=trio.abc.Stream)

#: The side that an event comes from.
Side: TypeAlias = Literal["client", "server"]

FORMAT: Final = "trio_ipc recording"
VERSION: Final = 1

_OWNER_ONLY: Final = 0o600


@attrs.frozen
class Event:
    """What happened on a stream at one moment.

    Attributes:
        at: seconds since the first event. A further run of Trio's goes on where the last one ended.
        connection: its number, from 1.
        what: ``open``; ``data`` for what went; ``cut`` for what was to be sent, had been told as ``data``
            and did not go, or only in part; ``eof``, ``close`` or ``broken``.
        by: who did it.
        data: the bytes of ``data`` and ``cut``.
        endpoint: of ``open``, as far as it is known.
        sent: of ``cut``, how many of the bytes went; None where nobody knows.
    """

    at: float
    connection: int
    what: str
    by: Side
    data: bytes = b""
    endpoint: str = ""
    sent: int | None = None


class StreamObserver:
    """Tells of what happens on the streams that it wraps, and keeps nothing.

    Args:
        told: is called with each event, as it happens. What it raises comes out of the stream.
    """

    def __init__(self, told: Callable[[Event], object]) -> None:
        self._told = told
        self._connections = 0
        self._clock: trio.abc.Clock | None = None
        self._began = 0.0
        self._at = 0.0

    def wrap(self, stream: _StreamT) -> _StreamT:
        """Return a stream around this one that is observed. What is sent on it comes from the client.

        With faults, put it inside of them: ``faults.wrap(recorder.wrap(stream))``. Around them it records
        what they were given, and what they hold up may go with a later send than the one that it saw.
        """
        return self._around(stream, "client")

    def wrap_server(self, stream: _StreamT) -> _StreamT:
        """Return a stream around this one that is observed. What is sent on it comes from the server."""
        return self._around(stream, "server")

    def _around(self, stream: _StreamT, side: Side) -> _StreamT:
        self._connections += 1
        return cast(_StreamT, ObservedStream.around(stream, self, self._connections, side))

    def _happened(self, connection: int, what: str, by: Side, **details: Any) -> None:
        now = trio.current_time()
        clock = trio.lowlevel.current_clock()
        if self._clock is not clock:  # of the first run of Trio's, or of a further one, which counts anew
            self._clock, self._began = clock, now - self._at
        self._at = now - self._began
        self._told(Event(self._at, connection, what, by, **details))


class FileObserver(StreamObserver):
    """Writes what it is told of into a file, for the length of a ``with`` block; subclasses say how.

    Args:
        path: the file to make, its owner's alone. One that exists is never touched.
        told: is called with each event, as it happens, and appends to the file.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], told: Callable[[Event], object]) -> None:
        super().__init__(told)
        self.path: str = os.fspath(path)
        self.failure: OSError | None = None
        # O_EXCL follows no symbolic link, not even a dangling one (open(2)).
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file: int | None = os.open(self.path, flags, _OWNER_ONLY)

    def close(self) -> None:
        """Record nothing more. Streams that are still open go on without. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove_if_empty(self) -> None:
        """Remove the file, closed, unless a connection was recorded: who tries again needs its name."""
        self.close()
        if not self._connections:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as exc:
            self.failure = exc
            self.close()
            _log.error("%s: recording has stopped: %s", self.path, exc.strerror)

    def __enter__(self) -> Self:
        """Begin a block in the end of which the file is closed."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Close the file.

        Raises:
            OSError: the recording is not whole. An exception of the block is not replaced.
        """
        self.close()
        if exc is None and self.failure is not None:
            raise self.failure


class Recorder(FileObserver):
    """Records streams into a file, for the length of a ``with`` block.

    The file is its owner's alone (mode 0600; on Windows what its directory says), because payloads may hold
    secrets. Writing is a system call for each read and write on the stream, without a thread.

    Args:
        path: the file to make. One that exists is never touched.
        contract: the message types; the file has its name.
        config: the settings of what is recorded, which say how frames are to be read.

    Raises:
        TypeError: ``contract`` is no contract, or ``config`` no settings. No file is made then.
        FileExistsError: the file exists.
        OSError: it cannot be made.

    Attributes:
        path: as given.
        failure: why it has stopped recording, None as long as it goes on. Leaving the block raises it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        contract: Contract[Any, Any],
        config: IpcConfig | None = None,
    ) -> None:
        name = contract_of(contract).name
        config = IpcConfig() if config is None else config_of(config)
        super().__init__(path, self._record)
        self._write(
            format=FORMAT,
            version=VERSION,
            started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            contract=name,
            crc32_variant=str(config.crc32_variant),
            max_frame_bytes=config.max_frame_bytes,
        )

    def _record(self, event: Event) -> None:
        details: dict[str, Any] = {}
        if event.what == "data":
            details["data"] = base64.b64encode(event.data).decode()
        elif event.what == "open":
            details["endpoint"] = event.endpoint
        elif event.sent is not None:
            details["sent"] = event.sent
        at = round(event.at, 6)
        self._write(at=at, connection=event.connection, event=event.what, by=event.by, **details)

    def _write(self, **record: Any) -> None:
        if self._file is not None:
            self._append(json.dumps(record, separators=(",", ":")).encode() + b"\n")


class ObservedStream(WrappedStream):
    """A stream that is observed. Made by :meth:`StreamObserver.wrap`."""

    def __init__(self, inner: trio.abc.Stream, observer: StreamObserver, connection: int, side: Side) -> None:
        super().__init__(inner)
        self._observer = observer
        self._connection = connection
        self._side: Side = side
        self._peer: Side = "server" if side == "client" else "client"
        self._over = False
        self._ended = False
        self._peer_ended = False
        self._happened("open", by=side, endpoint=str(getattr(inner, "endpoint", "")))

    def read(self, max_bytes: int) -> bytes | bytearray | None:
        """Read from the inner stream, and tell of it."""
        try:
            data = self.duplex.read(max_bytes)
        except trio.BrokenResourceError:
            self._end("broken", by=self._peer)
            raise
        if data is not None:
            self._received(data)
        return data

    async def wait_readable(self) -> None:
        """Wait for the inner stream."""
        try:
            await self.duplex.wait_readable()
        except trio.BrokenResourceError:
            self._end("broken", by=self._peer)
            raise

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write to the inner stream, and tell what it took."""
        sent = self.duplex.write(data)
        if sent:
            self._data(self._side, memoryview(data)[:sent])
        return sent

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Wait for room, write to the inner stream, and tell what it took."""
        await self.inner.wait_send_all_might_not_block()
        sent = self.write(data)
        if sent:
            return sent
        # It writes only by waiting: a pipe, or a stream that is not local. Told before it goes, since the
        # response could come, to another task, before this one runs again.
        self._data(self._side, data)
        try:
            sent = await self.duplex.write_some(data)
        except BaseException:
            self._happened("cut", by=self._side, data=bytes(data))
            raise
        if sent < len(data):
            self._happened("cut", by=self._side, data=bytes(data), sent=sent)
        return sent

    async def send_eof(self) -> None:
        """Close the inner stream's sending side, and tell of it."""
        await super().send_eof()
        if not self._ended:
            self._ended = True
            self._happened("eof", by=self._side)

    def close(self) -> bool:
        """Close the inner stream, and tell of it."""
        self._end("close", by=self._side)
        return super().close()

    def _received(self, data: bytes | bytearray) -> None:
        if data:
            self._data(self._peer, data)
        elif not self._peer_ended:
            self._peer_ended = True
            self._happened("eof", by=self._peer)

    def _data(self, by: Side, data: bytes | bytearray | memoryview) -> None:
        self._happened("data", by=by, data=bytes(data))

    def _end(self, event: str, by: Side) -> None:
        if not self._over:
            self._over = True
            self._happened(event, by=by)

    def _happened(self, what: str, by: Side, **details: Any) -> None:
        self._observer._happened(self._connection, what, by, **details)  # noqa: SLF001 - half of one thing
