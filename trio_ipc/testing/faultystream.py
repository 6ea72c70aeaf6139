"""A stream that does to its bytes what scripts of faults say: one script for each direction.

What happens, and where, is faultscript.py's; this module only does it. It must never inject what a script
does not say, and all its waits are Trio's, so that a mock clock rules them.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from typing import Final

import trio

from trio_ipc.channel import close_at_once
from trio_ipc.transports import LocalStream, PeerState
from trio_ipc.transports.duplex import OneAtATime

from .faultinbox import Inbox
from .faultrules import EndOfFile, Reset, Stall
from .faultscript import FaultScript, Pause, Step
from .waiting import stalled, wait_until_gone
from .wrapping import WrappedStream

_RESET: Final = "the connection is broken: the script of faults has reset it"


class FaultyStream(WrappedStream):
    """A stream that has faults. Made by :meth:`trio_ipc.testing.Faults.wrap`.

    Whatever is injected, its methods raise and are cancelled as those of any stream. A broken connection is
    :exc:`trio.BrokenResourceError`, and its inner stream is closed, which is what the peer sees of it.
    """

    def __init__(self, inner: trio.abc.Stream, sending: FaultScript, receiving: FaultScript) -> None:
        super().__init__(inner)
        self._outward = sending
        self._inward = receiving
        self._inbox = Inbox()
        self._to_send: deque[Step] = deque()
        self._sent = 0  # bytes of the first of it
        self._send_at: float | None = None
        self._end_at = math.inf  # of what is to be sent, where only pauses are before its end
        self._limit: trio.CancelScope | None = None  # of who waits to read, and sees to that end
        self._eof_sent = False
        self._has_lost = False  # bytes that came behind the end
        self._closed = False
        self._broken = False
        self._to_be_closed = False
        self._over = trio.Event()
        self._waiting = OneAtATime("receiving on this stream")
        self._reader: trio.CancelScope | None = None  # the wait of who waits for the inner stream
        self._inbox.add(receiving.start())
        self._to_send.extend(sending.start())
        self._plan_end()
        if self._is_reset:
            self._break(keep_arrived=True)

    # --- Receiving ---

    def read(self, max_bytes: int) -> bytes | None:
        """Return what the script lets through without a wait; see :meth:`Duplex.read`."""
        if self._closed:
            self._check_usable()
        self._look()
        data = self._inbox.take(max_bytes)
        if data is None and self._broken and not self._to_be_closed:
            self._check_usable()
        if data:
            self._inward.given(len(data), cut=len(data) < max_bytes)
        elif data == b"" and (self._has_lost or not self._has_ended()):
            self._inward.was_met()
        return data

    def _has_ended(self) -> bool:
        """Whether the peer has ended by itself where the script ends what is received."""
        try:
            return self.duplex.read(1) == b""
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False

    async def wait_readable(self) -> None:
        """Wait until the script lets something through; see :meth:`Duplex.wait_readable`."""
        if self._closed:
            self._check_usable()
        with self._waiting:
            with trio.CancelScope(deadline=self._end_at) as self._limit:
                if self._inbox.is_stalled:
                    with stalled("a Stall in receiving"):
                        await self._wait_stalled()
                elif self._inbox or self._broken:
                    await self._wait_until(self._inbox.next_at() if self._inbox else -math.inf)
                else:
                    await self._wait_for_inner()
            self._look()
            await self._end_in_time()
            await self._finish_break()
        if self._closed:
            self._check_usable()

    async def _wait_for_inner(self) -> None:
        """Wait until the inner stream has something, or until another task's look has taken it in."""
        try:
            with trio.CancelScope() as self._reader, self._inner_closed_by_reset():
                await self.duplex.wait_readable()
        except trio.BrokenResourceError:
            if not self._inbox:  # else read() has what came before the script broke the connection
                raise
        finally:
            self._reader = None

    async def _wait_stalled(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.duplex.wait_readable()
            self._inward.was_met()  # only now it holds something up
        await self._over.wait()

    def peer_state(self) -> PeerState:
        """Return what has become of the peer, as far as the script lets it be seen."""
        if not (self._closed or self._broken):
            self._look()
        due = self._inbox.due()
        state = PeerState.GONE if self._closed or self._broken else self.duplex.peer_state()
        if state is PeerState.GONE or isinstance(due, trio.BrokenResourceError):
            return PeerState.GONE
        if isinstance(due, bytes):
            return PeerState.HAS_INPUT
        return PeerState.OPEN if due is None else PeerState.HALF_CLOSED

    def _look(self) -> None:
        """Take in what has come, up to what the script lets through; break what it is time to break.

        What is not read yet hides nothing that comes behind it, as long as there is room.
        """
        while not self._broken and (room := self._inbox.room):
            try:
                data = self.duplex.read(room)
            except trio.BrokenResourceError as exc:
                self._inbox.add([exc])  # a socket says it only once, and maybe not to who reads
                break
            if data is None:
                break
            if data:
                steps, taken = self._inward.feed(data)
                self._inbox.add(steps)
                self._has_lost = taken < len(data)
                if self._inbox.ends_in_stall and self._has_lost:
                    self._inward.was_met()
            else:
                self._inbox.add([*self._inward.end(), EndOfFile()])  # which stays there
        if self._inbox.is_stalled and self.duplex.peer_state() is not PeerState.OPEN:
            self._inward.was_met()
        if self._is_reset and not self._broken:
            self._break(keep_arrived=self._inbox.is_reset)
        if self._reader is not None and (self._inbox or self._broken):
            self._reader.cancel()  # nothing else tells it: the inner stream may have nothing more

    # --- Sending ---

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the script leaves alone and the inner stream takes without a wait."""
        self._look_before_sending()
        if self._to_be_closed and data:
            return 0  # write_some() closes the inner stream, and raises
        self._check_sending()
        whole = 0 if self._to_send else self._outward.untouched(data)
        if not whole and data:
            return 0
        with memoryview(data) as view, view[:whole] as untouched, self._inner_closed_by_reset():
            sent = self.duplex.write(untouched)
            # If only the script ends the write here, the rest belongs to it, and comes by the next call.
            steps, _ = self._outward.feed(view[:sent], more=sent == whole < len(view))
        self._outward.given(sent)
        self._to_send.extend(step for step in steps if not isinstance(step, bytes))
        return sent

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send as the script has it.

        A pause or a stall after the last byte is the next call's: these bytes are through.
        """
        await trio.lowlevel.checkpoint()
        await self._ready_to_send()
        steps, taken = self._outward.feed(data)
        self._to_send.extend(steps)
        await self._send_due(wait_at_end=taken == 0)
        # What comes after an end of file is lost, and nobody is told.
        return len(data) if isinstance(self._outward.ended_by, EndOfFile) else taken

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the inner stream; a pause of the script is not foreseen."""
        with self._sending:
            await self._ready_to_send()
            with self._inner_closed_by_reset():
                await self.inner.wait_send_all_might_not_block()
            await self._ready_to_send()

    async def send_eof(self) -> None:
        """Close the sending side, after what the script kept back."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._eof_sent:
                return
            await self._ready_to_send()
            self._to_send.extend(self._outward.end())
            await self._send_due(wait_at_end=True)
            await self._end_inner()
            self._eof_sent = True

    async def _send_due(self, *, wait_at_end: bool) -> None:
        """Do the steps that are due; leave waits at the end for the next call, unless told otherwise."""
        self._end_at = math.inf  # this call sees to it
        try:
            await self._do_steps(wait_at_end=wait_at_end)
        finally:
            self._plan_end()

    async def _do_steps(self, *, wait_at_end: bool) -> None:
        while self._to_send:
            step = self._to_send[0]
            if isinstance(step, bytes):
                await self._ready_to_send()
                sent = await self._send_inner(memoryview(step)[self._sent :])
                self._sent += sent
                self._outward.given(sent)
                if self._sent < len(step):
                    continue
                self._sent = 0
            elif isinstance(step, EndOfFile):
                await self._end_inner()
                self._outward.was_met()
                if self._broken:
                    return
            elif isinstance(step, Reset):
                self._break()
                await self._finish_break()
                return
            elif not wait_at_end and not any(isinstance(later, bytes) for later in self._to_send):
                return
            elif isinstance(step, Stall):
                await self._send_stalled()
            else:
                await self._wait_out(step)
            self._to_send.popleft()

    async def _send_inner(self, data: memoryview) -> int:
        with self._inner_closed_by_reset():
            sent = self.duplex.write(data)
            if not sent and self.duplex.writes_at_once:
                # write_some() would send as soon as there is room, whatever has come meanwhile.
                await self.inner.wait_send_all_might_not_block()
                await self._ready_to_send()
                sent = self.duplex.write(data)
            if not sent:
                sent = await self.duplex.write_some(data)
        self._check_usable()  # it may have been reset meanwhile, in the other direction
        return sent

    async def _end_inner(self) -> None:
        if isinstance(self.inner, trio.abc.HalfCloseableStream):
            with self._inner_closed_by_reset():
                await self.inner.send_eof()
        else:
            self._break()
            await self._finish_break()

    def _plan_end(self) -> None:
        """Find out when the end comes that nothing but pauses hold up: who reads then sees to it."""
        self._end_at = math.inf
        pauses = [step.seconds for step in self._to_send if isinstance(step, Pause)]
        if len(pauses) + 1 == len(self._to_send) and isinstance(self._to_send[-1], Reset | EndOfFile):
            if self._send_at is None:
                self._send_at = trio.current_time() + sum(pauses[:1])
            self._end_at = self._send_at + sum(pauses[1:])
        if self._limit is not None:
            self._limit.deadline = self._end_at

    async def _end_in_time(self) -> None:
        """Close the sending side if it is time to, and nobody is sending. A reset is a look's."""
        if self._closed or self._broken or self._end_at > trio.current_time():
            return
        self._end_at = math.inf
        self._to_send.clear()
        try:
            await self._end_inner()
        except trio.Cancelled:
            self._to_send.append(EndOfFile())
            self._plan_end()
            raise
        self._outward.was_met()

    async def _wait_out(self, step: Pause) -> None:
        if self._send_at is None:  # else it was cancelled, and goes on where it was
            self._send_at = trio.current_time() + step.seconds
        await self._wait_until(self._send_at)
        self._send_at = None
        await self._ready_to_send()

    async def _send_stalled(self) -> None:
        self._outward.was_met()
        with stalled("a Stall in sending"):
            if isinstance(self.duplex, LocalStream):
                await wait_until_gone(self.duplex)
            else:
                await self._over.wait()
        self._check_usable()
        raise trio.BrokenResourceError("the connection is broken: the peer has closed")

    # --- Both ---

    def close(self) -> bool:
        """Close the inner stream at once, if it can.

        What the script kept back is sent before, as far as the inner stream takes it without a wait: one that
        is not local takes nothing.
        """
        if not (self._closed or self._broken or self._eof_sent or self._to_send):
            self._send_kept()
        self._closed = True
        self._over.set()
        return super().close()

    def _send_kept(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for step in self._outward.end():
                if not isinstance(step, bytes):
                    return
                self._look()
                sent = 0 if self._broken else self.duplex.write(step)
                self._outward.given(sent)
                if sent < len(step):
                    return

    @property
    def _is_reset(self) -> bool:
        """Whether it is time to break the connection."""
        if self._end_at < math.inf and isinstance(self._to_send[-1], Reset):
            return self._end_at <= trio.current_time() or self._inbox.is_reset
        return self._inbox.is_reset

    def _break(self, *, keep_arrived: bool = False) -> None:
        self._broken = True
        for script in (self._outward, self._inward):
            if isinstance(script.ended_by, Reset):
                script.was_met()
        self._over.set()
        self._end_at = math.inf
        self._to_send.clear()
        self._sent = 0
        if not keep_arrived:
            self._inbox.clear()
        self._to_be_closed = not self.duplex.close()

    async def _finish_break(self) -> None:
        """Close what cannot be closed without a wait."""
        if self._to_be_closed:
            await close_at_once(self.inner)
            self._to_be_closed = False

    async def _wait_until(self, deadline: float) -> None:
        """Wait until then, or until the connection is over."""
        with trio.CancelScope(deadline=deadline):
            await self._over.wait()

    @contextlib.contextmanager
    def _inner_closed_by_reset(self) -> Iterator[None]:
        """Raise what a broken connection raises where the inner stream was closed by a reset."""
        try:
            yield
        except trio.ClosedResourceError:
            self._check_usable()
            raise

    async def _ready_to_send(self) -> None:
        self._look_before_sending()
        await self._finish_break()
        self._check_sending()

    def _look_before_sending(self) -> None:
        if not (self._closed or self._broken):
            self._look()  # what has come may be what the connection breaks by

    def _check_sending(self) -> None:
        self._check_usable()
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._broken:
            raise trio.BrokenResourceError(_RESET)
