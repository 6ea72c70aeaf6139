"""What becomes of a stream of bytes under rules of faults: bytes in, steps out.

A :class:`FaultScript` sees one direction of one stream. What it decides depends on the rules, the seed and
the position of a byte in the stream, and never on how the bytes were sliced on their way or on any clock:
the same seed and the same bytes meet the same faults. This module must never do I/O.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import attrs

from .faultframes import Frames, frames_of
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

#: Bytes; more than any stream has.
_LONGEST_GAP: Final = 2**63


@attrs.frozen
class Pause:
    """A step: wait. Attributes: ``seconds``."""

    seconds: float


#: A step: bytes that come in one piece; a wait; or the fault that ends it all.
Step: TypeAlias = bytes | Pause | Stall | Reset | EndOfFile

#: Steps while they are made: what still grows is a bytearray.
_Steps: TypeAlias = list[Step | bytearray]


class _Strike(NamedTuple):
    """A fault that has begun at a byte. It is a hit once it has touched something."""

    position: int
    fault: Fault


class _Copy(NamedTuple):
    """Bytes that are given twice: up to where, and those so far."""

    until: int
    data: bytearray  # what grows by "+" is copied at each piece
    strike: _Strike


class FaultScript:
    """One direction of one stream: takes the bytes that go in, gives the steps that come out.

    What is to happen before a byte happens as soon as the bytes before it are through, so that a connection
    can break right after a request.

    Args:
        rules: the faults, and where.
        key: what chance is drawn from, together with the rule's number.
        hit: told of every fault that has touched something, once, with the position.
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
        self._rules = tuple(rules)
        self._key = key
        self._hit = hit
        self._position = 0
        self._draws = [0] * len(self._rules)
        self._next = [self._first_hit(number) for number in range(len(self._rules))]
        self._frames: Frames = frames_of(delimiter)
        self._frame = 0
        # Faults that have touched nothing yet, and those of them that will touch what goes through next.
        self._untold: list[_Strike] = []
        self._before_next: list[_Strike] = []
        self._ending: _Strike | None = None
        # What is happening to the bytes now.
        self._flips: list[tuple[int, _Strike]] = []
        self._drop_until: float = 0
        self._drop_frame = False
        self._drops: list[_Strike] = []
        self._copies: list[_Copy] = []
        self._hold_until = 0
        self._holds: list[_Strike] = []
        self._held = bytearray()
        self._dribble: _Strike | None = None
        self._dribble_until: float = 0
        self._in_piece = 0
        self._new_piece = False
        self._has_given = False

    # --- Bytes in, steps out ---

    def start(self) -> list[Step]:
        """Return what is to happen before the first byte. To be called once, before all else."""
        steps: _Steps = []
        self._arrive(steps)
        return _made(steps)

    def feed(self, data: bytes | bytearray | memoryview) -> tuple[list[Step], int]:
        """Hand over the next bytes.

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
        return _made(steps), at

    def end(self) -> list[Step]:
        """Say that no more bytes will come; return what was kept back."""
        steps: _Steps = []
        if self.ended_by is None:
            self._release(steps)
            self._touch_delays()
        return _made(steps)

    def untouched(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many of these bytes would go through as one piece and without a fault among them.

        It looks at no more than go through a socket at once.
        """
        trial = copy.copy(self)
        trial._hit = lambda _at, _fault: None
        trial._frames = copy.copy(self._frames)
        trial._held = bytearray()  # where anything is kept back, nothing goes through untouched
        for name in ("_next", "_draws", "_copies", "_untold", "_before_next", "_drops", "_holds", "_flips"):
            setattr(trial, name, [*getattr(self, name)])
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
            self._touch(self._ending)

    @property
    def _is_altering(self) -> bool:
        dropping = self._drop_frame or self._position < self._drop_until
        return bool(dropping or self._flips or self._copies or self._hold_until or self.ended_by)

    def _run(self, data: bytes, at: int) -> int:
        """Return how many of these bytes, from there on, meet the same fate."""
        if self._flips:
            return 1
        ends = [*self._next, self._drop_until, self._dribble_until, self._hold_until]
        ends += [copied.until for copied in self._copies]
        if self._dribble is not None:
            ends.append(self._position + self._piece_size - self._in_piece)
        runs = [end - self._position for end in ends if end > self._position]
        most = int(min([len(data) - at, *runs]))
        return int(min(most, self._frames.run(data, at, most)))

    def _take(self, data: bytes, steps: _Steps) -> None:
        """Let bytes of the same fate through."""
        self._frames.take(data)
        if self._drop_frame or self._position < self._drop_until:
            self._touch_all(self._drops)
        else:
            for bit, strike in self._flips:
                data = bytes([data[0] ^ 1 << bit])
                self._touch(strike)
            for copied in self._copies:
                self._touch(copied.strike)
            for copied in self._copies:
                copied.data.extend(data)
            self._emit(data, steps)
        self._flips = []
        self._position += len(data)

    def _arrive(self, steps: _Steps) -> None:
        """Come to a byte: end what ends before it, begin what begins with it."""
        done = [copied for copied in self._copies if copied.until == self._position]
        self._copies = [copied for copied in self._copies if copied.until != self._position]
        for copied in done:
            self._emit(bytes(copied.data), steps)
        if self._hold_until == self._position:
            self._released(steps)
        if self._dribble_until == self._position:
            self._dribble = None
        if self._frames.ended:
            self._begin_frame()
        for number, rule in enumerate(self._rules):
            if self._next[number] == self._position and self.ended_by is None:
                self._next[number] = self._later_hit(number)
                self._strike(rule.fault, number, steps)

    # --- Where faults hit ---

    def _begin_frame(self) -> None:
        self._frame += 1
        self._frames.begin()
        self._drop_frame = False
        for number, rule in enumerate(self._rules):
            if rule.frame is not None or rule.each_frame:
                struck = rule.frame == self._frame or (
                    rule.each_frame and self._chance(number).random() < rule.probability
                )
                self._next[number] = self._position + rule.offset if struck else math.inf

    def _first_hit(self, number: int) -> float:
        rule = self._rules[number]
        if rule.byte is not None:
            return rule.byte
        if rule.frame is not None or rule.each_frame:
            return math.inf
        return self._gap(number)

    def _later_hit(self, number: int) -> float:
        rule = self._rules[number]
        once = rule.byte is not None or rule.frame is not None or rule.each_frame
        return math.inf if once else self._position + 1 + self._gap(number)

    def _gap(self, number: int) -> int:
        """Return how many bytes are spared before the next is hit, if each is with a probability."""
        probability = self._rules[number].probability
        if probability == 1:
            return 0
        # Inversion of the geometric distribution; one draw for a gap instead of one for each byte.
        gap = math.log(1 - self._chance(number).random()) / math.log1p(-probability)
        return int(min(gap, _LONGEST_GAP))

    def _chance(self, number: int) -> random.Random:
        # Each draw has a seed of its own, so that rules don't disturb each other and the state is a number.
        self._draws[number] += 1
        return random.Random(f"{self._key}/{number}/{self._draws[number]}")  # noqa: S311 - to be foreseen

    # --- What they do ---

    def _strike(self, fault: Fault, number: int, steps: _Steps) -> None:
        position = self._position
        if isinstance(fault, Flip) and fault.bit is None:
            fault = Flip(self._chance(number).randrange(_BITS))
        strike = _Strike(position, fault)
        self._untold.append(strike)
        if isinstance(fault, Flip):
            self._flips.append((fault.bit or 0, strike))
        elif isinstance(fault, Drop):
            count = math.inf if fault.count is None else fault.count
            self._drop_until = max(self._drop_until, position + count)
            self._drops.append(strike)
        elif isinstance(fault, Truncate):
            self._drop_frame = True
            self._drops.append(strike)
        elif isinstance(fault, Duplicate):
            self._copies.append(_Copy(position + fault.count, bytearray(), strike))
        elif isinstance(fault, Merge):
            self._hold_until = max(self._hold_until, position + fault.count)
            self._holds.append(strike)
        elif isinstance(fault, Dribble):
            self._dribble, self._in_piece, self._new_piece = strike, 0, True
            self._dribble_until = math.inf if fault.count is None else position + fault.count
        elif isinstance(fault, Split | Delay):
            self._part(fault, strike, steps)
        else:
            self._end_by(fault, strike, steps)

    def _part(self, fault: Split | Delay, strike: _Strike, steps: _Steps) -> None:
        if isinstance(fault, Split):
            self._new_piece = True
            parts = self._has_given  # else there is nothing to be split from
        elif parts := fault.seconds > 0:
            steps.append(Pause(fault.seconds))
        if parts:
            self._before_next.append(strike)

    def _end_by(self, fault: Stall | Reset | EndOfFile, strike: _Strike, steps: _Steps) -> None:
        self._release(steps)
        if not isinstance(fault, Stall):
            self._touch_delays()
        steps.append(fault)
        self.ended_by, self._ending = fault, strike

    def _touch(self, strike: _Strike) -> None:
        if strike in self._untold:
            self._untold.remove(strike)
            self._hit(*strike)

    def _touch_delays(self) -> None:
        """Tell of those that hold up the end."""
        self._touch_all([strike for strike in self._before_next if isinstance(strike.fault, Delay)])

    def _touch_all(self, strikes: list[_Strike]) -> None:
        for strike in strikes:
            self._touch(strike)
        strikes.clear()

    # --- What comes out ---

    def _release(self, steps: _Steps) -> None:
        """Give out what is kept back, and the second half of what is doubled, as no more will come."""
        for copied in self._copies:
            self._emit(bytes(copied.data), steps)
        self._copies = []
        self._released(steps)

    def _released(self, steps: _Steps) -> None:
        held, self._held, self._hold_until = self._held, bytearray(), 0
        self._holds.clear()
        if held:
            self._new_piece = True
            self._append(bytes(held), steps)
            self._new_piece = True

    def _emit(self, data: bytes, steps: _Steps) -> None:
        if not data:
            return
        self._touch_all(self._before_next)
        if self._hold_until:
            self._touch_all(self._holds)
            self._held += data
            return
        at = 0
        while self._dribble is not None and at < len(data):
            if self._has_given and self._in_piece == 0:
                self._touch(self._dribble)  # a piece begins that need not have begun
            part = data[at : at + self._piece_size - self._in_piece]
            at += len(part)
            self._append(part, steps)
            self._in_piece = (self._in_piece + len(part)) % self._piece_size
            if self._in_piece == 0:
                self._end_piece(steps)
        if at < len(data):
            self._append(data[at:], steps)

    def _end_piece(self, steps: _Steps) -> None:
        self._new_piece = True
        if self._dribble is not None and isinstance(self._dribble.fault, Dribble):
            seconds = self._dribble.fault.seconds
            if seconds:
                steps.append(Pause(seconds))

    @property
    def _piece_size(self) -> int:
        fault = None if self._dribble is None else self._dribble.fault
        return fault.size if isinstance(fault, Dribble) else 1

    def _append(self, data: bytes, steps: _Steps) -> None:
        self._has_given = True
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
