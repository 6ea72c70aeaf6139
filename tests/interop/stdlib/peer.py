"""The whole protocol with Python's standard library alone: frames, a client and a server.

For those who write a peer in another language: read it from top to bottom, beside docs/wire-protocol.md, and
then messages.py. It is complete and plain, not fast: a thread for each connection. A violation closes the
connection without a word, as existing peers do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from .messages import Message, decode, encode

# --- Frames -------------------------------------------------------------------------------------------------


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901 - it is worked on bit by bit
        yield value


_TABLE: Final = tuple(_table())


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4), a byte at a time."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFF_FFFF


CHECKSUMS: Final[dict[str, Callable[[bytes], int]]] = {"ieee": zlib.crc32, "castagnoli": crc32c}


class PeerError(Exception):
    """What went wrong with a connection: a word for the kind, and the rest in words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind} {text}")
        self.kind = kind


class Settings(NamedTuple):
    variant: str = "ieee"
    max_frame_bytes: int = 1024 * 1024
    #: Seconds until a frame begins, and again until it is whole.
    timeout: float = 30.0


class Connection:
    """A socket that carries messages. After an error it must be closed."""

    def __init__(self, sock: socket.socket, settings: Settings) -> None:
        self._sock = sock
        self._settings = settings
        self._checksum = CHECKSUMS[settings.variant]

    def frame(self, kind: str, message: Message) -> bytes:
        """Encode a message with its header: length, then checksum, both little-endian."""
        payload = encode(kind, message)
        limit = self._settings.max_frame_bytes
        if not payload:
            raise PeerError("empty", "a message without any field cannot be sent")
        if len(payload) > limit:
            raise PeerError("too-large", f"the message has {len(payload)} bytes, the limit is {limit}")
        return struct.pack("<II", len(payload), self._checksum(payload)) + payload

    def send(self, data: bytes) -> None:
        """Hand over frames."""
        with _system_errors():
            self._sock.settimeout(self._settings.timeout)
            self._sock.sendall(data)

    def receive(self, kind: str) -> Message | None:
        """Wait for a message. None if the peer closed its sending side between two frames."""
        first = self._read(1, time.monotonic() + self._settings.timeout)
        if not first:
            return None
        until = time.monotonic() + self._settings.timeout
        size, checksum = struct.unpack("<II", first + self._all(7, until))
        limit = self._settings.max_frame_bytes
        if not 0 < size <= limit:  # judged before a byte of the payload is read
            raise PeerError("length", f"the frame has {size} bytes, allowed are 1 to {limit}")
        payload = self._all(size, until)
        if self._checksum(payload) != checksum:
            raise PeerError("checksum", f"the payload's checksum is not {checksum:08x}")
        try:
            return decode(kind, payload)
        except ValueError as exc:
            raise PeerError("decode", str(exc)) from exc

    def end(self) -> None:
        """Close the sending side: no request follows."""
        with _system_errors():
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    def _all(self, size: int, until: float) -> bytes:
        data = self._read(size, until)
        if len(data) < size:
            raise PeerError("closed", "the peer closed the connection inside a frame")
        return data

    def _read(self, size: int, until: float) -> bytes:
        """Read so many bytes, or fewer at the end of the stream."""
        data = bytearray()
        with _system_errors():
            while len(data) < size:
                self._sock.settimeout(max(until - time.monotonic(), 0.001))
                piece = self._sock.recv(min(size - len(data), 65_536))
                if not piece:
                    break
                data += piece
        return bytes(data)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise PeerError("timeout", "the peer took too long") from exc
    except OSError as exc:
        raise PeerError("closed", str(exc)) from exc


# --- A client -----------------------------------------------------------------------------------------------


def connect(endpoint: str, settings: Settings) -> Connection:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(endpoint)
    except OSError as exc:
        sock.close()
        raise PeerError("connect", f"{endpoint}: {exc}") from exc
    return Connection(sock, settings)


def call(connection: Connection, tasks: Sequence[Message], *, last: bool = False) -> Iterator[Message]:
    """Send tasks, all of them before the first response; give the results, which come in their order."""
    frames = b"".join(connection.frame("DetectionTask", task) for task in tasks)

    def send() -> None:
        with contextlib.suppress(PeerError):  # who reads sees it, too
            connection.send(frames)
            if last:
                connection.end()

    # While another thread reads: a server that can't get rid of its responses takes no more requests.
    threading.Thread(target=send, daemon=True).start()
    for task in tasks:
        result = connection.receive("DetectionResult")
        if result is None:
            raise PeerError("closed", "the server closed the connection before it answered")
        if result["task_id"] != task.get("task_id", ""):
            raise PeerError(
                "mismatch", f"the result is of {result['task_id']!r}: {result.get('error_message')}"
            )
        yield result


# --- A server -----------------------------------------------------------------------------------------------


def listen(endpoint: str) -> socket.socket:
    """Open a socket for this user alone. A dead server's is removed, and nothing else is."""
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(endpoint)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(endpoint).st_mode):
                os.unlink(endpoint)
    before = os.umask(0o177)
    try:
        listener.bind(endpoint)  # raises OSError where something is left: EADDRINUSE
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def serve(
    listener: socket.socket, handler: Callable[[Message], Message], places: int, settings: Settings
) -> None:
    """Serve until the process ends. A connection over the limit is closed at once."""
    free = threading.BoundedSemaphore(places)
    while True:
        sock, _ = listener.accept()
        if free.acquire(blocking=False):
            arguments = (Connection(sock, settings), handler, free)
            threading.Thread(target=_converse, args=arguments, daemon=True).start()
        else:
            sock.close()


def _converse(
    connection: Connection, handler: Callable[[Message], Message], place: threading.Semaphore
) -> None:
    try:
        while (task := connection.receive("DetectionTask")) is not None:
            result = handler(task)
            try:
                frame = connection.frame("DetectionResult", result)
            except PeerError as exc:  # the client is told instead
                failed = {"task_id": result["task_id"], "success": False, "error_message": str(exc)}
                frame = connection.frame("DetectionResult", failed)
            connection.send(frame)
    except PeerError:
        pass  # whatever it was, this connection alone has ended
    finally:
        connection.close()
        place.release()
