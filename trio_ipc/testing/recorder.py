"""Writes down what goes over a stream, in both directions, while it goes.

The file is the one that docs/testing.md describes: a line of JSON for each thing that happens, appended and
never changed, so that what was written before a crash can be read after it. recording.py reads it. This
module must never hold up or break the traffic that it records: if it can't write, it stops and says so.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, cast

import trio

from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, contract_of
from trio_ipc.logs import Log

from .wrapping import WrappedStream

_log = Log(__name__)

_StreamT = TypeVar("_StreamT", bound=trio.abc.Stream)

#: Who of the two a thing was done by.
Side: TypeAlias = Literal["client", "server"]

FORMAT: Final = "trio_ipc recording"
VERSION: Final = 1

_OWNER_ONLY: Final = 0o600


class Recorder:
    """Records streams into a file, for the length of a ``with`` block.

    The file is its owner's alone (mode 0600; on Windows what its directory says), because payloads may hold
    secrets. Writing is a system call for each read and write on the stream, without a thread.

    Args:
        path: the file to make. One that exists is never touched.
        contract: the message types; the file has its name.
        config: the settings of what is recorded, which say how frames are to be read.

    Raises:
        TypeError: ``contract`` is no contract.
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
        self.path = os.fspath(path)
        self.failure: OSError | None = None
        self._connections = 0
        self._began: float | None = None
        # O_EXCL follows no symbolic link, not even a dangling one (open(2)).
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file: int | None = os.open(self.path, flags, _OWNER_ONLY)
        config = config or IpcConfig()
        self._write(
            format=FORMAT,
            version=VERSION,
            started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            contract=name,
            crc32_variant=str(config.crc32_variant),
            max_frame_bytes=config.max_frame_bytes,
        )

    def wrap(self, stream: _StreamT) -> _StreamT:
        """Return a stream around this one that is recorded. What is sent on it comes from the client."""
        return self._around(stream, "client")

    def wrap_server(self, stream: _StreamT) -> _StreamT:
        """Return a stream around this one that is recorded. What is sent on it comes from the server."""
        return self._around(stream, "server")

    def close(self) -> None:
        """Record nothing more. Streams that are still open go on without. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _around(self, stream: _StreamT, side: Side) -> _StreamT:
        self._connections += 1
        return cast(_StreamT, RecordedStream.around(stream, self, self._connections, side))

    def _record(self, connection: int, event: str, **details: Any) -> None:
        now = trio.current_time()
        self._began = now if self._began is None else self._began
        self._write(at=round(now - self._began, 6), connection=connection, event=event, **details)

    def _write(self, **record: Any) -> None:
        if self._file is None:
            return
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
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


class RecordedStream(WrappedStream):
    """A stream that is recorded. Made by :meth:`Recorder.wrap`."""

    def __init__(self, inner: trio.abc.Stream, recorder: Recorder, connection: int, side: Side) -> None:
        super().__init__(inner)
        self._recorder = recorder
        self._connection = connection
        self._side: Side = side
        self._peer: Side = "server" if side == "client" else "client"
        self._over = False
        self._ended = False
        self._peer_ended = False
        self._record("open", by=side, endpoint=str(getattr(inner, "endpoint", "")))

    def read(self, max_bytes: int) -> bytes | bytearray | None:
        """Read from the inner stream, and record it."""
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
        """Write to the inner stream, and record what it took."""
        sent = self.duplex.write(data)
        if sent:
            self._data(self._side, memoryview(data)[:sent])
        return sent

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Wait for room, write to the inner stream, and record what it took."""
        await self.inner.wait_send_all_might_not_block()
        sent = self.write(data)
        if sent:
            return sent
        # It writes only by waiting: a pipe, or a stream that is not local. Recorded before it goes, since the
        # answer could come, to another task, before this one runs again.
        self._data(self._side, data)
        try:
            sent = await self.duplex.write_some(data)
        except BaseException:
            self._record("cut", by=self._side)
            raise
        if sent < len(data):
            self._record("cut", by=self._side, sent=sent)
        return sent

    async def send_eof(self) -> None:
        """Close the inner stream's sending side, and record it."""
        await super().send_eof()
        if not self._ended:
            self._ended = True
            self._record("eof", by=self._side)

    def close(self) -> bool:
        """Close the inner stream, and record it."""
        self._end("close", by=self._side)
        return super().close()

    def _received(self, data: bytes | bytearray) -> None:
        if data:
            self._data(self._peer, data)
        elif not self._peer_ended:
            self._peer_ended = True
            self._record("eof", by=self._peer)

    def _data(self, by: Side, data: bytes | bytearray | memoryview) -> None:
        self._record("data", by=by, data=base64.b64encode(data).decode())

    def _end(self, event: str, by: Side) -> None:
        if not self._over:
            self._over = True
            self._record(event, by=by)

    def _record(self, event: str, **details: Any) -> None:
        self._recorder._record(self._connection, event, **details)  # noqa: SLF001 - half of one thing
