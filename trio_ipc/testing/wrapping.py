"""A stream around a stream, which is everything that the inner one is.

Base of what injects faults and of what records. A wrapper of a :class:`~trio_ipc.transports.LocalStream` is
one too, and one of a stream that can be half closed can be half closed, so that code which asks sees no
difference. This module must never change a byte.
"""

from __future__ import annotations

import functools
from typing import Any, Self

import trio

from trio_ipc.errors import shown_argument
from trio_ipc.transports import DuplexStream, LocalStream, PeerState, StreamDuplex


class WrappedStream(DuplexStream):
    """Passes on all but how bytes are read and written, which a wrapper says. Made by :meth:`around`.

    Of that :class:`~trio_ipc.transports.DuplexStream` makes a stream's methods, whatever kind is inside.

    Attributes:
        inner: the stream that it is around. It is owned, and closed with this one.
        duplex: how its bytes are read and written: itself, if it is a local one.
    """

    def __init__(self, inner: trio.abc.Stream) -> None:
        DuplexStream.__init__(self)  # that of LocalStream would ask for what is set here
        self.inner = inner
        self.duplex: LocalStream | StreamDuplex
        if isinstance(inner, LocalStream):
            self.duplex = inner
            self.endpoint = inner.endpoint
            self.peer = inner.peer
        else:
            self.duplex = StreamDuplex(inner)
        self.writes_at_once = self.duplex.writes_at_once

    @classmethod
    def around(cls, inner: trio.abc.Stream, *arguments: Any) -> Self:
        """Return a wrapper that is of the abstract types that ``inner`` is of.

        Args:
            inner: the stream.
            arguments: what the class takes besides.

        Raises:
            TypeError: it is no stream.
        """
        if not isinstance(inner, trio.abc.Stream):
            raise TypeError(f"stream is {shown_argument(inner)}, must be a trio.abc.Stream")
        local = isinstance(inner, LocalStream)
        made = _of_types(cls, local, isinstance(inner, trio.abc.HalfCloseableStream))
        wrapper: Self = made(inner, *arguments)
        return wrapper

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the inner stream."""
        with self._sending:
            await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Close the inner stream's sending side; for those that can be half closed."""
        assert isinstance(self.inner, trio.abc.HalfCloseableStream)  # noqa: S101 - as around() saw to it
        with self._sending:
            await self.inner.send_eof()

    def peer_state(self) -> PeerState:
        """Ask the inner stream."""
        return self.duplex.peer_state()

    def close(self) -> bool:
        """Close the inner stream, if that can be done without a wait."""
        return self.duplex.close()

    async def aclose(self) -> None:
        """Close the inner stream."""
        if self.close():
            await trio.lowlevel.checkpoint()
        else:
            await self.duplex.aclose()


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
