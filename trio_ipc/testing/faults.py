"""Faults around a stream, as a script and a seed will have them.

:class:`Faults` is the plan, and :meth:`Faults.wrap` puts it around any :class:`trio.abc.Stream`, on either
side of a connection. What happens, and where, is faultscript.py's; this module only does it. It must never
inject what the plan does not say, and all its waits are Trio's, so that a mock clock rules them.
"""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import trio

from trio_ipc.channel import close_at_once

from .faultscript import EndOfFile, Fault, FaultScript, Pause, Reset, Rule, Stall, Step
from .wrapping import WrappedStream

_StreamT = TypeVar("_StreamT", bound=trio.abc.Stream)

_READ_SIZE: Final = 65_536

#: Faults that are listed one by one in a report.
_LISTED: Final = 50


class Faults:
    """A plan of faults for one or several streams.

    As a context manager it adds itself, with the seed, to whatever exception leaves the block::

        with Faults(seed=7, receiving=[at_random(0.01, Flip())]) as faults:
            async with open_pair(handler, wrap=faults.wrap) as (client, server):
                ...

    Args:
        seed: what chance is drawn from; None for a new one, which the report tells.
        sending: what hits the bytes that the wrapped side sends.
        receiving: what hits the bytes that it receives.
        streams: how many streams are hit, in the order in which they are wrapped; later ones are left alone.
            None for all.

    Attributes:
        seed: as given or drawn.
        hits: every fault that has hit, as text.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        sending: Sequence[Rule] = (),
        receiving: Sequence[Rule] = (),
        streams: int | None = None,
    ) -> None:
        # A seed is drawn from the system: random's own state may have been set by the test.
        self.seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        self.hits: list[str] = []
        self._sending = tuple(sending)
        self._receiving = tuple(receiving)
        self._streams = streams
        self._wrapped = 0

    def wrap(self, stream: _StreamT) -> _StreamT:
        """Return a stream around this one that has the faults. It owns the one inside.

        Of a :class:`~trio_ipc.transports.LocalStream` it makes one, of a stream that can be half closed one
        that can be. Where the inner one can't, :class:`EndOfFile` in sending closes it whole.
        """
        self._wrapped += 1
        spared = self._streams is not None and self._wrapped > self._streams
        scripts = [
            self._script("sending", () if spared else self._sending),
            self._script("receiving", () if spared else self._receiving),
        ]
        return cast(_StreamT, FaultyStream.around(stream, *scripts))

    def report(self) -> str:
        """Return the plan and what came of it, for people."""
        more = len(self.hits) - _LISTED
        lines = [repr(self), *self.hits[:_LISTED], *([f"... and {more} more"] if more > 0 else [])]
        return "\n  ".join(lines if self.hits else [*lines, "none of them has hit"])

    def _script(self, direction: str, rules: Sequence[Rule]) -> FaultScript:
        where = f"stream {self._wrapped} {direction}"

        def hit(position: int, fault: Fault) -> None:
            self.hits.append(f"{where} byte {position}: {fault}")

        return FaultScript(rules, f"{self.seed}/{where}", hit)

    def __repr__(self) -> str:
        """Give the call that makes it, with the seed."""
        parts = [f"seed={self.seed}"]
        for name, rules in (("sending", self._sending), ("receiving", self._receiving)):
            if rules:
                parts.append(f"{name}=[{', '.join(map(str, rules))}]")
        if self._streams is not None:
            parts.append(f"streams={self._streams}")
        return f"Faults({', '.join(parts)})"

    def __enter__(self) -> Self:
        """Begin a block whose failures tell of these faults."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Add the report to the exception that leaves the block."""
        if exc is not None:
            exc.add_note(f"faults were injected: {self.report()}")


class FaultyStream(WrappedStream):
    """A stream that has faults. Made by :meth:`Faults.wrap`.

    Whatever is injected, its methods raise and are cancelled as those of any stream. A broken connection is
    :exc:`trio.BrokenResourceError`, and its inner stream is closed, which is what the peer sees of it.
    """

    def __init__(self, inner: trio.abc.Stream, sending: FaultScript, receiving: FaultScript) -> None:
        super().__init__(inner)
        self._outward = sending
        self._inward = receiving
        # What is to be done before the next bytes go out, or come in.
        self._to_send: deque[Step] = deque(sending.start())
        self._arrived: deque[Step] = deque(receiving.start())
        self._inner_ended = False
        self._resume_at: float | None = None
        self._sending = False
        self._receiving = False
        self._eof_sent = False
        self._closed = False
        self._broken = False
        self._over = trio.Event()

    # --- Receiving ---

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for bytes and return them as the script has them; see :class:`trio.abc.ReceiveStream`."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            data = self._take_nowait(max_bytes)
            if data is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
            while data is None:
                await self._wait_for_arrival()
                data = self._take_nowait(max_bytes)
            return data
        finally:
            self._receiving = False

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Return what the script lets through without a wait; see :class:`LocalStream`."""
        data = self._take_nowait(max_bytes)
        while data is None and not self._arrived and self._pull_nowait():
            data = self._take_nowait(max_bytes)
        return data

    def is_quiet(self) -> bool:
        """Return whether the script has let nothing through."""
        if self._closed or self._broken:
            return False
        while not self._arrived and not self._inner_ended:
            try:
                if not self._pull_nowait():
                    return self._local.is_quiet()
            except trio.BrokenResourceError:
                self._arrived.append(Reset())  # a socket says it only once, and not to us
        if not self._arrived:
            return False  # the inner stream's end
        step = self._arrived[0]
        return isinstance(step, Stall) or (isinstance(step, Pause) and not self._pause_is_over(step))

    def peer_is_gone(self) -> bool:
        """Return whether nobody will read what is sent."""
        return self._closed or self._broken or self._local.peer_is_gone()

    def _take_nowait(self, max_bytes: int | None) -> bytes | None:
        """Return what has arrived and may be had now, None if there is nothing."""
        self._check_usable()
        while self._arrived:
            step = self._arrived[0]
            if isinstance(step, bytes):
                data = step[:max_bytes]
                if len(data) == len(step):
                    self._arrived.popleft()
                else:
                    self._arrived[0] = step[len(data) :]
                return data
            if isinstance(step, EndOfFile):
                return b""
            if not isinstance(step, Pause) or not self._pause_is_over(step):
                return None
            self._arrived.popleft()
            self._resume_at = None
        return b"" if self._inner_ended else None

    async def _wait_for_arrival(self) -> None:
        if not self._arrived:
            try:
                data = await self.inner.receive_some(_READ_SIZE)
            except trio.ClosedResourceError:
                self._check_usable()  # it was closed because the connection was reset
                raise
            self._feed(data)
            return
        step = self._arrived[0]
        if isinstance(step, Reset):
            await self._break()
        elif isinstance(step, Stall):
            await self._over.wait()
        elif isinstance(step, Pause):
            assert self._resume_at is not None  # noqa: S101 - _take_nowait has just looked
            with trio.CancelScope(deadline=self._resume_at):
                await self._over.wait()
        self._check_usable()

    def _pause_is_over(self, pause: Pause) -> bool:
        # It begins when somebody comes for the bytes behind it: earlier nobody could tell.
        if self._resume_at is None:
            self._resume_at = trio.current_time() + pause.seconds
        return trio.current_time() >= self._resume_at

    def _pull_nowait(self) -> bool:
        """Take from the inner stream what is there; return whether that was anything."""
        if self._receiving or self._inner_ended:
            return False
        data = self._local.receive_nowait(_READ_SIZE)
        if data is None:
            return False
        self._feed(data)
        return True

    def _feed(self, data: bytes | bytearray) -> None:
        if data:
            steps, _ = self._inward.feed(data)
            self._arrived.extend(steps)
        else:
            self._arrived.extend(self._inward.end())
            self._inner_ended = True

    # --- Sending ---

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as the script has it; see :class:`trio.abc.SendStream`.

        A pause or a stall after the last byte is the next call's: these bytes are through.
        """
        self._begin_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_usable()
            if not data:
                await self._send_inner(data)
            steps, taken = self._outward.feed(data)
            self._to_send.extend(steps)
            await self._perform_due(wait_at_end=taken < len(data))
            if taken < len(data):
                self._check_usable()
        finally:
            self._sending = False

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the script leaves alone and the inner stream takes without a wait."""
        self._begin_sending()
        self._sending = False
        self._check_usable()
        if self._to_send or not data:
            return 0
        whole = self._outward.untouched(data)
        if whole == 0:
            return 0
        sent = self._local.send_nowait(memoryview(data)[:whole])
        steps, _ = self._outward.feed(memoryview(data)[:sent])
        self._to_send.extend(step for step in steps if not isinstance(step, bytes))
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the inner stream; a pause of the script is not foreseen."""
        self._begin_sending()
        try:
            self._check_usable()
            await self.inner.wait_send_all_might_not_block()
        except trio.ClosedResourceError:
            self._check_usable()
            raise
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Close the sending side, after what the script kept back."""
        self._begin_sending(again=True)
        try:
            await trio.lowlevel.checkpoint()
            self._check_usable()
            if self._eof_sent:
                return
            self._to_send.extend(self._outward.end())
            await self._perform_due(wait_at_end=True)
            await self._end_inner()
            self._eof_sent = True
        finally:
            self._sending = False

    def _begin_sending(self, *, again: bool = False) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._eof_sent and not again:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")
        self._sending = True

    async def _perform_due(self, *, wait_at_end: bool = False) -> None:
        """Do the steps that are due; leave waits at the end for the next call, unless told otherwise."""
        while self._to_send:
            step = self._to_send[0]
            if isinstance(step, bytes):
                await self._send_inner(step)
            elif isinstance(step, EndOfFile):
                await self._end_inner()
            elif isinstance(step, Reset):
                await self._break()
            elif wait_at_end or any(isinstance(later, bytes) for later in self._to_send):
                await self._wait_out(step)
            else:
                return
            self._to_send.popleft()

    async def _send_inner(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self.inner.send_all(data)
        except trio.ClosedResourceError:
            self._check_usable()
            raise

    async def _end_inner(self) -> None:
        if isinstance(self.inner, trio.abc.HalfCloseableStream):
            await self.inner.send_eof()
        else:
            await self._break()

    async def _wait_out(self, step: Pause | Stall) -> None:
        with trio.CancelScope() as wait:
            if isinstance(step, Pause):
                wait.deadline = trio.current_time() + step.seconds
            await self._over.wait()
        self._check_usable()

    # --- Both ---

    async def aclose(self) -> None:
        """Close the inner stream at once. What the script kept back is lost."""
        self._closed = True
        self._over.set()
        await self.inner.aclose()

    async def _break(self) -> None:
        self._broken = True
        self._over.set()
        await close_at_once(self.inner)

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._broken:
            raise trio.BrokenResourceError("the connection is broken: the script of faults has reset it")
