"""Responses that are made and not delivered yet: their bytes, their counting, and what keeps them here.

This module must never make a response, and never count a request twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.errors import ChannelError
from trio_ipc.telemetry import CloseReason, RequestFailure, ServerCounters

_LOST_BY: Final = {
    CloseReason.CUT_OFF: RequestFailure.CUT_OFF,
    CloseReason.INTERNAL_ERROR: RequestFailure.INTERNAL_ERROR,
}


def lost_by(reason: CloseReason) -> RequestFailure:
    """Return what becomes of requests without their response when the connection ends for this reason."""
    return _LOST_BY.get(reason, RequestFailure.RESPONSE_UNDELIVERED)


class Outbox:
    """What goes to the client of one connection.

    Args:
        channel: where to.
        counters: what became of the requests is counted there.

    Attributes:
        size: bytes of the responses that wait.
        failure: why they could not be sent by :meth:`send_behind`, or None.
    """

    __slots__ = (
        "_behind",
        "_channel",
        "_counters",
        "_half_sent",
        "_handed_over",
        "_payloads",
        "_undelivered",
        "failure",
        "size",
    )

    def __init__(self, channel: Channel, counters: ServerCounters) -> None:
        self._channel = channel
        self._counters = counters
        self._payloads: list[bytes] = []
        self._undelivered = 0
        self._handed_over = 0  # those of them that the channel has; others may be added meanwhile
        self._half_sent = False  # the channel has what there was no room for
        self._behind: trio.Event | None = None
        self.size = 0
        self.failure: ChannelError | None = None

    def add(self, payload: bytes, *, counts: bool = True) -> None:
        """Put a response behind those that wait.

        Args:
            payload: it.
            counts: whether its request is decided by its delivery; not if it reports a failure that was
                counted already.
        """
        self._payloads.append(payload)
        self.size += len(payload)
        if counts:
            self._undelivered += 1

    def flush_nowait(self) -> bool:
        """Hand over all that waits, if the system takes it at once; else :meth:`flush` must follow.

        Returns:
            Whether that is done.

        Raises what :meth:`Channel.send_nowait` raises.
        """
        if self._half_sent or self.failure is not None:
            return False
        if self._payloads and not self._send_nowait():
            return False
        self._delivered()
        return True

    async def flush(self) -> None:
        """Wait until all is handed over.

        Raises and is cancelled like :meth:`Channel.flush`.
        """
        if self._behind is not None:
            await self._behind.wait()
        if self.failure is not None:
            raise self.failure
        if not self.flush_nowait():
            await self._flush_channel()

    def send_behind(self, nursery: trio.Nursery, failed: Callable[[ChannelError], None]) -> None:
        """Send while the connection's own task is busy with a handler.

        Args:
            nursery: where to wait, if the system does not take all of it at once.
            failed: called if the responses cannot be sent.
        """
        if not self._payloads or self._behind is not None or self.failure is not None:
            return
        try:
            if self._send_nowait():
                self._delivered()
                return
        except ChannelError as exc:
            self.failure = exc
            failed(exc)
            return
        self._behind = trio.Event()
        nursery.start_soon(self._flush_behind, failed)

    async def _flush_behind(self, failed: Callable[[ChannelError], None]) -> None:
        try:
            await self._flush_channel()
            while self._payloads:  # they were made meanwhile, and the handler of now may take its time
                if self._send_nowait():
                    self._delivered()
                else:
                    await self._flush_channel()
        except ChannelError as exc:
            self.failure = exc
            failed(exc)
        finally:
            assert self._behind is not None  # noqa: S101 - for the type checker
            self._behind.set()
            self._behind = None

    def _send_nowait(self) -> bool:
        payloads, self._payloads, self.size = self._payloads, [], 0
        self._handed_over = self._undelivered
        all_sent = self._channel.send_nowait(payloads)
        self._half_sent = not all_sent
        return all_sent

    async def _flush_channel(self) -> None:
        await self._channel.flush()
        self._half_sent = False
        self._delivered()

    def _delivered(self) -> None:
        delivered, self._handed_over = self._handed_over, 0
        self._counters.requests_answered += delivered
        self._counters.requests_in_flight -= delivered
        self._undelivered -= delivered

    def discard(self, why: RequestFailure) -> None:
        """Count what was not delivered by the end of the connection, and let go of it."""
        self._counters.requests_failed[why] += self._undelivered
        self._counters.requests_in_flight -= self._undelivered
        self._undelivered = self._handed_over = 0
        self._payloads = []
        self.failure = None
