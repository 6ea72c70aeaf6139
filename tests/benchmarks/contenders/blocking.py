"""The floor for Python: blocking sockets, which echo as many bytes as the others, a thread for each."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.benchmarks.loads import Job
from tests.benchmarks.messages import MESSAGES, DetectionResult, WrongAnswerError, sizes

from .base import BlockingContender, Client

_READ = 65_536


def _path_of(path: str, message: str) -> str:
    # As for bare Trio, a socket for each message.
    return f"{path}.{message}"


def _echo(sock: socket.socket, request: int, response: bytes) -> None:
    missing = 0
    with sock:
        while data := sock.recv(_READ):
            whole, missing = divmod(missing + len(data), request)
            if whole:
                sock.sendall(response * whole)


def _accept(listener: socket.socket, request: int, response: bytes) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_echo, args=(sock, request, response), daemon=True).start()


def _receive(sock: socket.socket, size: int) -> bytes | bytearray:
    data = sock.recv(_READ)
    if len(data) == size:
        return data
    whole = bytearray(data)
    while data and len(whole) < size:
        data = sock.recv(_READ)
        whole += data
    if len(whole) != size:
        raise WrongAnswerError(f"{len(whole)} bytes instead of {size}")
    return whole


class Blocking(BlockingContender):
    def serve(self, path: str) -> None:
        threads = []
        for message in MESSAGES:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(_path_of(path, message))
            listener.listen(128)
            request, response = sizes(message)
            threads.append(threading.Thread(target=_accept, args=(listener, request, bytes(response))))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @contextmanager
    def connect(self, job: Job) -> Iterator[Client]:
        size, answer_size = sizes(job.message)
        request = bytes(size)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(_path_of(job.path, job.message))

            def call() -> None:
                sock.sendall(request)
                _receive(sock, answer_size)

            def burst(number: int) -> Sequence[DetectionResult]:
                sock.sendall(request * number)
                _receive(sock, answer_size * number)
                return ()

            yield Client(call, burst)


def contender(_: str) -> Blocking:
    return Blocking()
