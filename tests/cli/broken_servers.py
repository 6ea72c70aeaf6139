"""Set-ups of servers that do not work, and of those that answer what they should not: for ``doctor``."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.cli.broken_setups import STRANGER, Place, acting_as_root, says, served
from trio_ipc import Call, Contract
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.testing import SystemEndpoint, open_server

# --- The server ---------------------------------------------------------------------------------------------


@says(r"server: nobody can be reached: connection refused: nobody listens at this socket")
def a_dead_servers_socket(place: Place) -> None:
    with place.listening():
        pass


@says(r"server: nobody can be reached: cannot connect: the socket is of another kind, such as for datagrams")
def a_socket_for_datagrams(place: Place) -> Any:
    return place.listening(kind=socket.SOCK_DGRAM)


@says(r"server: nobody can be reached: the server did not take the connection in time")
@contextlib.contextmanager
def a_stopped_server(place: Place) -> Iterator[None]:
    place.settings["accept_timeout_ms"] = 100
    with place.listening(backlog=0), contextlib.ExitStack() as waiting:
        for _ in range(2):  # Linux takes one more than the backlog says (listen(2))
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(place.path))
        yield


@says(r"trust: a client refuses this server \(.*uid 54322.*\): allowed is user", of_root=True)
@contextlib.contextmanager
def a_strangers_server(place: Place) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.path))
        place.path.chmod(0o600)
        with acting_as_root():
            os.seteuid(STRANGER)
            sock.listen()  # whose call of listen(2) it was, clients see
            os.seteuid(0)
        yield


# --- The response -------------------------------------------------------------------------------------------


@says(r"answer: the server speaks castagnoli, and crc32_variant is ieee here")
def another_variant(place: Place) -> Any:
    place.settings["crc32_variant"] = "ieee"
    return served(place, crc32_variant="castagnoli")


@says(r"answer: it does not answer: .*0\.5")
def a_server_that_says_nothing(place: Place) -> Any:
    async def hang(_task: DetectionTask, _call: Call) -> DetectionResult:
        await trio.sleep_forever()
        raise AssertionError

    return served(place, hang)


@says(r"answer: it answers, and not that it is well")
def a_server_that_is_unwell(place: Place) -> Any:
    async def unwell(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=False)

    return served(place, unwell)


@says(r"answer: it does not answer: .*closed")
@asynccontextmanager
async def another_protocol(place: Place) -> AsyncIterator[None]:
    async def close(stream: trio.SocketStream) -> None:
        await stream.aclose()

    with place.listening() as sock:
        sock.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, close, [listener])
            yield
            nursery.cancel_scope.cancel()


@says(r"answer: it does not answer: .*does not decode as trio_ipc\.daemoneye\.v1\.DetectionResult")
def another_contract(place: Place) -> Any:
    from google.protobuf.wrappers_pb2 import BytesValue

    async def answer(_request: Any, _call: Call) -> BytesValue:
        return BytesValue(value=b"\xff\xfe")  # no UTF-8, as the text of a DetectionResult must be

    contract = Contract(name="other", request_type=DetectionTask, response_type=BytesValue)
    return open_server(answer, contract, SystemEndpoint(str(place.path)))


@says(r"answer: it does not answer: .*max_frame_bytes|answer: it does not answer: .*limit")
def a_response_beyond_the_limit(place: Place) -> Any:
    async def long(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True, error_message="x" * 5000)

    place.settings["max_frame_bytes"] = 1000
    return served(place, long)
