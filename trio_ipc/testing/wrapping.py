"""A stream around a stream, which is everything that the inner one is.

Base of what injects faults and of what records. A wrapper of a :class:`~trio_ipc.transports.LocalStream` is
one too, and one of a stream that can be half closed can be half closed, so that code which asks sees no
difference. This module must never change a byte.
"""

from __future__ import annotations

import functools
from typing import Any, Self

import trio

from trio_ipc.transports import LocalStream


class WrappedStream(trio.abc.Stream):
    """Passes everything on. Made by :meth:`around`.

    Attributes:
        inner: the stream that it is around. It is owned, and closed with this one.
    """

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        if isinstance(inner, LocalStream):
            self.endpoint = inner.endpoint
            self.peer = inner.peer

    @classmethod
    def around(cls, inner: trio.abc.Stream, *arguments: Any) -> Self:
        """Return a wrapper that is of the abstract types that ``inner`` is of.

        Args:
            inner: the stream.
            arguments: what the class takes besides.
        """
        made = _of_types(cls, isinstance(inner, LocalStream), isinstance(inner, trio.abc.HalfCloseableStream))
        wrapper: Self = made(inner, *arguments)
        return wrapper

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the inner stream."""
        return await self.inner.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the inner stream."""
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the inner stream."""
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the inner stream."""
        await self.inner.aclose()

    # Used of a LocalStream alone:

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Receive from the inner stream what is there."""
        return self._local.receive_nowait(max_bytes)

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send on the inner stream what it takes."""
        return self._local.send_nowait(data)

    def is_quiet(self) -> bool:
        """Ask the inner stream."""
        return self._local.is_quiet()

    def peer_is_gone(self) -> bool:
        """Ask the inner stream."""
        return self._local.peer_is_gone()

    # Used of a stream that can be half closed alone:

    async def send_eof(self) -> None:
        """Close the inner stream's sending side."""
        assert isinstance(self.inner, trio.abc.HalfCloseableStream)  # noqa: S101 - as around() saw to it
        await self.inner.send_eof()

    @property
    def _local(self) -> LocalStream:
        assert isinstance(self.inner, LocalStream)  # noqa: S101 - as around() saw to it
        return self.inner


@functools.cache
def _of_types(wrapper: type[Any], local: bool, half_closeable: bool) -> type[Any]:
    # The wrapper comes first, and so its methods.
    types = [wrapper]
    if local:
        types.append(LocalStream)
    if half_closeable:
        types.append(trio.abc.HalfCloseableStream)
    return type(
        wrapper.__name__, tuple(types), {"__module__": wrapper.__module__, "__doc__": wrapper.__doc__}
    )
