"""What a simulated server does about one request: which functions may say so, and what they answer by.

This module must never send what a behaviour does not say.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import trio

from trio_ipc.contract import RESPONSE_TOO_LARGE, RequestT, ResponseT, encode
from trio_ipc.errors import MessageTooLargeError, shown
from trio_ipc.server import Call
from trio_ipc.transports import LocalStream
from trio_ipc.wire import FrameEncoder

from .checking import returned_message
from .waiting import wait_until_gone

if TYPE_CHECKING:
    from .simulator import SimulatedServer

#: ``async def behaviour(request, reply) -> None``: what the server does about one request.
Behaviour: TypeAlias = Callable[[Any, "Reply[Any, Any]"], Awaitable[None]]


class Reply(Generic[RequestT, ResponseT]):
    """How a behaviour answers: by a proper response, or by any bytes at all.

    What it sends raises :exc:`trio.BrokenResourceError` if the client has left. A behaviour may let that out.

    Attributes:
        call: what a handler is given beside the request. It has no deadline.
        closed: whether the connection was closed, by :meth:`close`.
    """

    def __init__(
        self,
        server: SimulatedServer[RequestT, ResponseT],
        stream: LocalStream,
        call: Call,
        request: RequestT,
        encoder: FrameEncoder,
    ) -> None:
        self.closed: bool = False
        self._server = server
        self._stream = stream
        self.call = call
        self._request = request
        self._left: list[BaseException] = []
        self._encoder = encoder

    async def proper(self) -> ResponseT:
        """Return what the server's handler answers.

        Raises:
            TypeError: that is no response of the contract.
        """
        response = await self._server.handler(self._request, self.call)
        return returned_message("the handler", response, self._server.contract.response_type)

    def frame(self, response: ResponseT) -> bytes:
        """Return the frame of a response; one too large becomes the failure that says so, as servers do.

        Raises:
            MessageTooLargeError: it is too large, and the contract has no failed response.
        """
        try:
            return self._encoder.encode(encode(response))
        except MessageTooLargeError as exc:
            why = f"{RESPONSE_TOO_LARGE}: {exc.size} bytes, the limit max_frame_bytes is {exc.limit}"
            failed = self.failed(why)
            if failed is None:
                raise
            return self._encoder.encode(encode(failed))

    def failed(self, message: str) -> ResponseT | None:
        """Return the contract's failed response, None if it has none."""
        return self._server.contract.failed_response(self._request, message)

    def too_large_header(self) -> bytes:
        """Return the header of a frame that is one byte larger than allowed."""
        return struct.pack("<II", self._server.config.max_frame_bytes + 1, 0)

    def framed(self, payload: bytes) -> bytes:
        """Return the frame of any payload."""
        return self._encoder.encode(payload)

    async def send(self, response: ResponseT) -> None:
        """Send a response."""
        await self.send_bytes(self.frame(response))

    async def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            self._left.append(exc)
            raise

    async def wait_left(self) -> None:
        """Wait until the client has left. Can be cancelled freely."""
        await wait_until_gone(self._stream)

    async def close(self) -> None:
        """Close the connection."""
        self.closed = True
        await self._stream.aclose()

    def _without_leaving(self, exc: BaseException) -> BaseException | None:
        """Return what is left of it, or of a group, without those that say that the client has left."""
        if isinstance(exc, BaseExceptionGroup):
            return exc.split(lambda leaf: leaf in self._left)[1]
        return None if exc in self._left else exc


def names_of(behaviours: Iterable[Behaviour]) -> str:
    return ", ".join(map(_name, behaviours))


def _name(behaviour: object) -> str:
    name: str = getattr(_function_of(behaviour), "__qualname__", type(behaviour).__name__)
    return name.removesuffix(".<locals>.behave").rpartition(".")[2]  # such as hang, for what hang() has made


def _function_of(behaviour: object) -> object:
    while isinstance(behaviour, partial):
        behaviour = behaviour.func
    return behaviour


def check_behaviour(behaviour: object, name: str | None = None) -> None:
    """Raise TypeError if this is no behaviour: one of a script, or what has this name."""
    function = _function_of(behaviour)
    called = getattr(type(function), "__call__", None)  # noqa: B004 - an object may be one
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)):
        said, wanted = ("the script has", "must have") if name is None else (f"{name} is", "must be")
        raise TypeError(
            f"{said} {shown(behaviour)}, {wanted} async def behaviour(request, reply), such as hang()"
        )
