"""How an asyncio task waits for a connection in its own event loop.

The loop knows what is here, and this knows no client: one that is forgotten can be collected. This module
must never read or write itself, nor know what is said.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from trio_ipc.channel import Spin

_ONE_PASS: Final = partial(asyncio.sleep, 0)


class Watch:
    """Tells when there is something to look at on a connection, for one wait at a time.

    The socket stays registered from one wait to the next, which spares each two system calls.

    Args:
        sock: a socket of the connection, which this owns, and closes.
        look: reads what is there, without a wait, and returns whether that was anything.
        spin: lets the loop look again, where that is worth it, before it may fall asleep.
        loop: the event loop. But for :meth:`give_up` all is to be called in it.

    Raises:
        NotImplementedError: the event loop cannot watch a socket.
        OSError: the system lets it watch no more of them.
    """

    def __init__(
        self, sock: socket.socket, look: Callable[[], bool], spin: Spin, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._sock = sock
        self._look = look
        self._spin = spin
        self._loop = loop
        self._waiter: asyncio.Future[bool] | None = None
        self._watching = False
        self._begin()

    async def wait(self, seconds: float) -> bool:
        """Wait until a look found something; return whether one did in time.

        False as well, and without a wait, after it was closed, or where the system lets the loop watch no
        more sockets. Cancellation ends the wait, and loses nothing.
        """
        if self._sock.fileno() == -1:
            return False
        try:
            if not self._watching:
                self._begin()
        except OSError:
            return False
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        timer: asyncio.TimerHandle | None = None
        try:
            # It is the loop that looks, once in each pass. Its clock may be too coarse for that: uvloop's is
            # libuv's uv_now(), which counts milliseconds, and by which 0.1 ms of looking took 0.9.
            if not self._spin.begin(time.monotonic) or not await self._spin.until(
                waiter.done, rest=_ONE_PASS, clock=time.monotonic
            ):
                timer = self._loop.call_later(seconds, self._end)
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """Close the socket, and end a wait. Idempotent."""
        self._stop()
        self._sock.close()
        self._end()

    def give_up(self) -> None:
        """Have it closed, in whichever thread this is."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop was closed, and knows no socket any longer
            self._sock.close()

    def _begin(self) -> None:
        self._loop.add_reader(self._sock, self._ready)
        self._watching = True

    def _stop(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._sock)

    def _ready(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            # Between two calls: it was closed, or says what nobody has asked for. The next call finds out.
            self._stop()
            return
        found = True  # also where an interrupt comes: what was read wakes nobody a second time
        try:
            # Here and not in the task, before which the loop would find the same once more.
            found = self._look()
        finally:
            if found:
                waiter.set_result(True)

    def _end(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)
