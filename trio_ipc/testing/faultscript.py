"""What becomes of a stream of bytes under rules of faults: bytes in, steps out.

A :class:`FaultScript` sees one direction of one stream. What it decides depends on the rules, the seed and
the position of a byte in the stream, and never on how the bytes were sliced on their way or on any clock:
the same seed and the same bytes meet the same faults. This module must never do I/O.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import attrs

from .faultframes import Frames, frames_of
from .faulthits import Hits, Strike
from .faultlosses import Losses
from .faultplaces import Places
from .faultrules import (
    Delay,
    Dribble,
    Drop,
    Duplicate,
    EndOfFile,
    Fault,
    Flip,
    Merge,
    Reset,
    Rule,
    Split,
    Stall,
    Truncate,
)

_BITS: Final = 8

#: Bytes that are looked at for what may go through without a wait: more than a socket takes at once.
_MOST_UNTOUCHED: Final = 262_144


@attrs.frozen
class Pause:
    """A step: wait. Attributes: ``seconds``."""

    seconds: float


#: A step: bytes that come in one piece; a wait; or the fault that ends it all.
Step: TypeAlias = bytes | Pause | Stall | Reset | EndOfFile

#: Steps while they are made: what still grows is a bytearray.
_Steps: TypeAlias = list[Step | bytearray]


class _Copy(NamedTuple):
    """Bytes that are given twice: up to where, and those so far."""

    until: int
    data: bytearray  # what grows by "+" is copied at each piece
    strike: Strike


class _Dribbling(NamedTuple):
    """Bytes that come in pieces, and up to where."""

    until: float
    fault: Dribble
    strike: Strike


class FaultScript:
    """One direction of one stream: takes the bytes that go in, gives the steps that come out.

    What is to happen before a byte happens as soon as the bytes before it are through, so that a connection
    can break right after a request.

    Args:
        rules: the faults, and where.
        key: what chance is drawn from, together with the rule's number.
        hit: told of every fault that has taken effect, once, with the position.
        delimiter: what ends a frame; None for frames of this package.

    Attributes:
        ended_by: the fault that let nothing more through, None as long as there was none.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        key: str,
        hit: Callable[[int, Fault], None] = lambda _at, _fault: None,
        *,
        delimiter: bytes | None = None,
    ) -> None:
        self.ended_by: Stall | Reset | EndOfFile | None = None
        self._hits = Hits(hit)
        self._position = 0
        self._places = Places(rules, key)
        self._frames: Frames = frames_of(delimiter)
        # Of the bytes that came out: how many, and whether the last came with the next, so that only a fault
        # parts them.
        self._out = 0
        self._joined = False
        # What holds up the next byte that comes out, and what parts it from the last one.
        self._delays: list[Strike] = []
        self._borders: list[Strike] = []
        self._ending: Strike | None = None
        # What is happening to the bytes now.
        self._flips: list[tuple[int, Strike]] = []
        self._losses = Losses()
        self._copies: list[_Copy] = []
        self._hold_until = 0
        self._holds: list[Strike] = []
        self._keeping: list[Strike] = []  # those that have kept something back
        self._held = bytearray()
        self._dribbles: list[_Dribbling] = []  # the last is what happens, and ends first
        self._in_piece = 0
        self._new_piece = False

    # --- Bytes in, steps out ---

    def start(self) -> list[Step]:
        """Return what is to happen before the first byte. To be called once, before all else."""
        steps: _Steps = []
        self._arrive(steps)
        return _made(steps)

    def feed(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> tuple[list[Step], int]:
        """Hand over the next bytes.

        Args:
            data: what was read, or is to be written, in one piece.
            more: whether it is only the first part of that piece, and the next call has the rest.

        Returns:
            The steps, and how many of the bytes went in. It is fewer than all only after an end.
        """
        steps: _Steps = []
        at, whole = 0, bytes(data)
        while at < len(whole) and self.ended_by is None:
            run = self._run(whole, at)
            self._take(whole[at : at + run], steps)
            self._arrive(steps)
            at += run
        self._hits.touch(self._keeping, self._out)
        self._joined = self._joined and more
        return _made(steps), at

    def given(self, count: int, *, cut: bool = True) -> None:
        """Say that so many more bytes of the steps were read, or sent, and whether more were asked for."""
        self._hits.given(count, cut=cut)

    def end(self) -> list[Step]:
        """Say that no more bytes will come; return what was kept back."""
        steps: _Steps = []
        if self.ended_by is None:
            self._release(steps)
            self._touch_all(self._delays)
        return _made(steps)

    def untouched(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many of these bytes would go through as one piece and without a fault among them.

        It looks at no more than go through a socket at once.
        """
        trial = copy.copy(self)
        trial._hits = Hits(None)
        trial._places = self._places.copied()
        trial._losses = self._losses.copied()
        trial._frames = copy.copy(self._frames)
        trial._held = bytearray()  # where anything is kept back, nothing goes through untouched
        for name, value in vars(self).items():
            if isinstance(value, list):
                setattr(trial, name, [*value])
        with memoryview(data) as view:
            count, whole = 0, bytes(view[:_MOST_UNTOUCHED])
        while count < len(whole) and not trial._is_altering:
            run = trial._run(whole, count)
            steps: _Steps = []
            trial._take(whole[count : count + run], steps)
            trial._arrive(steps)
            count += run
            if trial.ended_by is not None:
                return count - 1  # the end needs somebody who can wait
            if len(steps) > 1 or trial._new_piece:
                break
        return count

    def was_met(self) -> None:
        """Say that the fault that has ended it is felt: somebody waits, was told, or lost something."""
        if self._ending is not None:
            self._hits.touch([self._ending], 0)

    @property
    def _is_altering(self) -> bool:
        return bool(self._losses.first or self._flips or self._copies or self._hold_until or self.ended_by)

    def _run(self, data: bytes, at: int) -> int:
        """Return how many of these bytes, from there on, meet the same fate."""
        if self._flips:
            return 1
        ends = [*self._places.next, self._losses.until, self._hold_until]
        ends += [copied.until for copied in self._copies]
        if self._dribbles:
            dribbling = self._dribbles[-1]
            ends += [dribbling.until, self._position + dribbling.fault.size - self._in_piece]
        runs = [end - self._position for end in ends if end > self._position]
        most = int(min([len(data) - at, *runs]))
        return int(min(most, self._frames.run(data, at, most)))

    def _take(self, data: bytes, steps: _Steps) -> None:
        """Let bytes of the same fate through."""
        self._frames.take(data)
        if (loss := self._losses.first) is not None:
            self._hits.touch([loss], self._out)
        else:
            for bit, strike in self._flips:
                data = bytes([data[0] ^ 1 << bit])
                self._touch_next(strike)
            for copied in self._copies:
                copied.data.extend(data)
            self._emit(data, steps)
        self._flips = []
        self._position += len(data)

    def _arrive(self, steps: _Steps) -> None:
        """Come to a byte: end what ends before it, begin what begins with it."""
        done = [copied for copied in self._copies if copied.until == self._position]
        self._copies = [copied for copied in self._copies if copied.until != self._position]
        self._emit_copies(done, steps)
        if self._hold_until == self._position:
            self._released(steps)
        if self._dribbles and self._dribbles[-1].until == self._position:
            self._end_dribble(steps)
        self._losses.arrive(self._position, frame_ended=self._frames.ended)
        if self._frames.ended:
            self._frames.begin()
            self._places.begin_frame(self._position)
        for number, fault in self._places.struck(self._position):
            self._strike(fault, number, steps)
            if self.ended_by is not None:
                break

    # --- What they do ---

    def _strike(self, fault: Fault, number: int, steps: _Steps) -> None:
        position = self._position
        if isinstance(fault, Flip) and fault.bit is None:
            fault = Flip(self._places.chance(number).randrange(_BITS))
        strike = Strike(position, fault)
        if isinstance(fault, Flip):
            self._flips.append((fault.bit or 0, strike))
        elif isinstance(fault, Drop | Truncate):
            self._losses.begin(fault, strike)
        elif isinstance(fault, Duplicate):
            self._copies.append(_Copy(position + fault.count, bytearray(), strike))
        elif isinstance(fault, Merge):
            self._hold_until = max(self._hold_until, position + fault.count)
            self._holds.append(strike)
        elif isinstance(fault, Dribble):
            until = math.inf if fault.count is None else position + fault.count
            # Those that go on beyond it come back.
            self._dribbles = [*(other for other in self._dribbles if other.until > until)]
            self._dribbles.append(_Dribbling(until, fault, strike))
            self._in_piece = 0
            self._part(strike)
        elif isinstance(fault, Split):
            self._part(strike)
        elif isinstance(fault, Delay):
            self._delay(fault.seconds, strike, steps)
        else:
            self._end_by(fault, strike, steps)

    def _part(self, *strikes: Strike) -> None:
        self._new_piece = True
        self._borders += strikes

    def _delay(self, seconds: float, strike: Strike, steps: _Steps) -> None:
        if seconds > 0:
            steps.append(Pause(seconds))
            self._delays.append(strike)

    def _end_by(self, fault: Stall | Reset | EndOfFile, strike: Strike, steps: _Steps) -> None:
        self._release(steps)
        if not isinstance(fault, Stall):
            self._touch_all(self._delays)  # they hold up the end
        steps.append(fault)
        self.ended_by, self._ending = fault, strike

    def _touch_next(self, strike: Strike) -> None:
        """Say that this changes the byte that comes out next."""
        self._hits.touch([strike], self._out + len(self._held) + 1)

    def _touch_all(self, strikes: list[Strike]) -> None:
        """Say that these matter as soon as what has come out is given out, and keep them no longer."""
        self._hits.touch(strikes, self._out)
        strikes.clear()

    # --- What comes out ---

    def _release(self, steps: _Steps) -> None:
        """Give out what is kept back, and the second half of what is doubled, as no more will come."""
        self._emit_copies(self._copies, steps)
        self._copies = []
        self._released(steps)

    def _emit_copies(self, copies: list[_Copy], steps: _Steps) -> None:
        for copied in copies:
            if copied.data:
                self._touch_next(copied.strike)
                self._emit(bytes(copied.data), steps)

    def _released(self, steps: _Steps) -> None:
        held, self._held, self._hold_until = self._held, bytearray(), 0
        self._holds.clear()
        if held:
            self._new_piece = True
            self._append(bytes(held), steps)
            self._part(*self._keeping)
        self._keeping.clear()

    def _emit(self, data: bytes, steps: _Steps) -> None:
        if not data:
            return
        if self._hold_until:
            self._keep(data)
            return
        at = 0
        while self._dribbles and at < len(data):
            dribbling = self._dribbles[-1]
            part = data[at : at + dribbling.fault.size - self._in_piece]
            at += len(part)
            self._append(part, steps)
            self._in_piece = (self._in_piece + len(part)) % dribbling.fault.size
            if self._in_piece == 0:
                self._begin_piece(dribbling, dribbling.fault.seconds, steps)
        if at < len(data):
            self._append(data[at:], steps)

    def _keep(self, data: bytes) -> None:
        self._touch_all(self._delays)
        if self._joined and not self._held:
            self._hits.part(self._borders, self._out)
            self._touch_all(self._holds)
        self._borders.clear()  # nothing parts what is kept back
        self._keeping += self._holds
        self._holds.clear()
        self._held += data
        self._joined = True

    def _begin_piece(self, dribbling: _Dribbling, seconds: float, steps: _Steps) -> None:
        self._part(dribbling.strike)
        self._delay(seconds, dribbling.strike, steps)

    def _end_dribble(self, steps: _Steps) -> None:
        """Go on with the one that it has interrupted, if any: a piece of that begins."""
        ended = self._dribbles.pop()
        if self._dribbles:
            earlier = self._dribbles[-1]
            paused = 0 if self._in_piece else ended.fault.seconds
            self._begin_piece(earlier, earlier.fault.seconds - paused, steps)
            self._in_piece = 0

    def _append(self, data: bytes, steps: _Steps) -> None:
        self._touch_all(self._delays)
        if self._joined and self._borders:
            self._hits.part(self._borders, self._out)
        self._borders.clear()
        self._joined = True
        self._out += len(data)
        last = steps[-1] if steps else None
        if isinstance(last, bytes | bytearray) and not self._new_piece:
            if isinstance(last, bytes):
                steps[-1] = last = bytearray(last)
            last.extend(data)
        else:
            steps.append(data)
        self._new_piece = False


def _made(steps: _Steps) -> list[Step]:
    return [bytes(step) if isinstance(step, bytearray) else step for step in steps]
