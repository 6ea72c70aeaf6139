"""Which faults hit a stream of bytes, and where: bytes in, steps out.

A :class:`FaultScript` sees one direction of one stream. What it decides depends on the rules, the seed and
the position of a byte in the stream, and never on how the bytes were sliced on their way or on any clock:
the same seed and the same bytes meet the same faults. This module must never do I/O.
"""

from __future__ import annotations

import copy
import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from trio_ipc.wire import HEADER_BYTES

_LENGTH: Final = struct.Struct("<I")
_BITS: Final = 8

#: Bytes; more than any stream has.
_LONGEST_GAP: Final = 2**63

# --- Faults -------------------------------------------------------------------------------------------------


def _at_least(least: float) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: float | None) -> None:
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{field.name} is {value!r}, must be at least {least}")

    return check


@attrs.frozen
class Delay:
    """Waits before the byte. Attributes: ``seconds``."""

    seconds: float = attrs.field(validator=_at_least(0))


@attrs.frozen
class Stall:
    """Lets nothing more through, ever; the connection stays open."""


@attrs.frozen
class Flip:
    """Turns round one bit of the byte. Attributes: ``bit`` from 0 (the lowest), None for any."""

    bit: int | None = attrs.field(default=None)

    @bit.validator
    def _one_of_eight(self, _: object, bit: int | None) -> None:
        if bit is not None and not 0 <= bit < _BITS:
            raise ValueError(f"bit is {bit}, must be from 0 to 7")


@attrs.frozen
class Drop:
    """Loses bytes from this one on. Attributes: ``count``, None for all the rest."""

    count: int | None = attrs.field(default=1, validator=_at_least(1))


@attrs.frozen
class Duplicate:
    """Gives bytes from this one on twice, the second time after the last of them. Attributes: ``count``."""

    count: int = attrs.field(default=1, validator=_at_least(1))


@attrs.frozen
class Truncate:
    """Loses the bytes from this one to the end of its frame."""


@attrs.frozen
class Reset:
    """Breaks the connection before the byte: both directions, for both sides."""


@attrs.frozen
class EndOfFile:
    """Ends this direction before the byte, as a half-close does. What comes after it is lost."""


@attrs.frozen
class Split:
    """Ends a piece before the byte: no read or write has bytes from both sides of it."""


@attrs.frozen
class Dribble:
    """Gives the bytes from this one on in small pieces. Without a pause, in sending, those are short writes.

    Attributes:
        size: bytes to a piece.
        seconds: the pause after each piece.
        count: of how many bytes, None for all the rest.
    """

    size: int = attrs.field(default=1, validator=_at_least(1))
    seconds: float = attrs.field(default=0.0, validator=_at_least(0))
    count: int | None = attrs.field(default=None, validator=_at_least(1))


@attrs.frozen
class Merge:
    """Keeps bytes from this one on back until all are there, or the end; then they come as one piece.

    Attributes:
        count: how many.
    """

    count: int = attrs.field(validator=_at_least(1))


Fault: TypeAlias = (
    Delay | Stall | Flip | Drop | Duplicate | Truncate | Reset | EndOfFile | Split | Dribble | Merge
)

# --- Places -------------------------------------------------------------------------------------------------


@attrs.frozen
class Rule:
    """A fault, and where it hits. Made by :func:`at_byte`, :func:`at_frame` and the like.

    Attributes:
        fault: what happens.
        byte: at this byte of the stream, from 0.
        frame: in this frame, from 1.
        each_frame: in every frame.
        offset: at this byte of the frame, from 0; its payload begins at 8. A frame that is shorter is spared.
        probability: how likely a byte, or a frame, is hit.
    """

    fault: Fault
    byte: int | None = attrs.field(default=None, validator=_at_least(0))
    frame: int | None = attrs.field(default=None, validator=_at_least(1))
    each_frame: bool = False
    offset: int = attrs.field(default=0, validator=_at_least(0))
    probability: float = attrs.field(default=1.0)

    @probability.validator
    def _is_one(self, _: object, value: float) -> None:
        if not 0 < value <= 1:
            raise ValueError(f"probability is {value!r}, must be above 0 and at most 1")

    def __str__(self) -> str:
        """Give the call that makes it."""
        if self.byte is not None:
            return f"at_byte({self.byte}, {self.fault})"
        offset = f", offset={self.offset}" if self.offset else ""
        if self.frame is not None:
            return f"at_frame({self.frame}, {self.fault}{offset})"
        if self.each_frame:
            return f"at_each_frame({self.fault}{offset}, probability={self.probability})"
        return f"at_random({self.probability}, {self.fault})"


def at_byte(byte: int, fault: Fault) -> Rule:
    """Let a fault hit this byte of the stream, from 0, where it is known that everything before came."""
    return Rule(fault, byte=byte)


def at_frame(frame: int, fault: Fault, *, offset: int = 0) -> Rule:
    """Let a fault hit this frame of the stream, from 1, at this byte of it, from 0."""
    return Rule(fault, frame=frame, offset=offset)


def at_each_frame(fault: Fault, *, offset: int = 0, probability: float = 1.0) -> Rule:
    """Let a fault hit every frame of the stream, or each with this probability."""
    return Rule(fault, each_frame=True, offset=offset, probability=probability)


def at_random(probability: float, fault: Fault) -> Rule:
    """Let a fault hit each byte of the stream with this probability, as the seed will have it."""
    return Rule(fault, probability=probability)


# --- The script ---------------------------------------------------------------------------------------------


@attrs.frozen
class Pause:
    """A step: wait. Attributes: ``seconds``."""

    seconds: float


#: A step: bytes that come in one piece; a wait; or the fault that ends it all.
Step: TypeAlias = bytes | Pause | Stall | Reset | EndOfFile


class FaultScript:
    """One direction of one stream: takes the bytes that go in, gives the steps that come out.

    What is to happen before a byte happens as soon as the bytes before it are through, so that a connection
    can break right after a request.

    Args:
        rules: the faults, and where.
        key: what chance is drawn from, together with the rule's number.
        hit: told of every hit, with the position.
    """

    def __init__(
        self, rules: Sequence[Rule], key: str, hit: Callable[[int, Fault], None] = lambda _at, _fault: None
    ) -> None:
        self._rules = tuple(rules)
        self._key = key
        self._hit = hit
        self._position = 0
        self._draws = [0] * len(self._rules)
        self._next = [self._first_hit(number) for number in range(len(self._rules))]
        # The frame that the position is in. Where it ends is known after its header.
        self._frame = 0
        self._header = b""
        self._frame_end: float = 0
        # What is happening to the bytes now.
        self._flip = 0
        self._drop_until: float = 0
        self._drop_frame = False
        self._copies: list[tuple[int, bytes]] = []
        self._hold_until = 0
        self._held = b""
        self._dribble: Dribble | None = None
        self._dribble_until: float = 0
        self._in_piece = 0
        self._new_piece = False
        self.ended_by: Stall | Reset | EndOfFile | None = None

    def start(self) -> list[Step]:
        """Return what is to happen before the first byte. To be called once, before all else."""
        steps: list[Step] = []
        self._arrive(steps)
        return steps

    def feed(self, data: bytes | bytearray | memoryview) -> tuple[list[Step], int]:
        """Hand over the next bytes.

        Returns:
            The steps, and how many of the bytes went in. It is fewer than all only after an end.
        """
        steps: list[Step] = []
        at = 0
        while at < len(data) and self.ended_by is None:
            run = self._run(len(data) - at)
            self._take(bytes(data[at : at + run]), steps)
            self._arrive(steps)
            at += run
        return steps, at

    def end(self) -> list[Step]:
        """Say that no more bytes will come; return what was kept back."""
        steps: list[Step] = []
        if self.ended_by is None:
            self._release(steps)
        return steps

    def untouched(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many of these bytes would go through as one piece and without a fault among them."""
        trial = copy.copy(self)
        trial._hit = lambda _at, _fault: None
        trial._next, trial._draws, trial._copies = [*self._next], [*self._draws], [*self._copies]
        count = 0
        while count < len(data) and not trial._is_altering:
            run = trial._run(len(data) - count)
            steps: list[Step] = []
            trial._take(bytes(data[count : count + run]), steps)
            trial._arrive(steps)
            count += run
            if trial.ended_by is not None:
                return count - 1  # the end needs somebody who can wait
            if len(steps) > 1 or trial._new_piece:
                break
        return count

    @property
    def _is_altering(self) -> bool:
        dropping = self._drop_frame or self._position < self._drop_until
        return bool(dropping or self._flip or self._copies or self._hold_until or self.ended_by)

    def _run(self, most: int) -> int:
        """Return how many bytes from here on meet the same fate."""
        if self._flip:
            return 1
        ends = [*self._next, self._frame_end, self._drop_until, self._dribble_until, self._hold_until]
        ends += [until for until, _ in self._copies]
        if self._frame_end == math.inf:
            ends.append(self._position + HEADER_BYTES - len(self._header))
        if self._dribble is not None:
            ends.append(self._position + self._dribble.size - self._in_piece)
        return int(min([most, *(end - self._position for end in ends if end > self._position)]))

    def _take(self, data: bytes, steps: list[Step]) -> None:
        """Let bytes of the same fate through."""
        if len(self._header) < HEADER_BYTES:
            self._header += data
            if len(self._header) == HEADER_BYTES:
                (length,) = _LENGTH.unpack_from(self._header)
                self._frame_end = self._position + len(data) + length
        if not (self._drop_frame or self._position < self._drop_until):
            if self._flip:
                data = bytes([data[0] ^ self._flip])
            self._copies = [(until, copied + data) for until, copied in self._copies]
            self._emit(data, steps)
        self._flip = 0
        self._position += len(data)

    def _arrive(self, steps: list[Step]) -> None:
        """Come to a byte: end what ends before it, begin what begins with it."""
        done = [copied for until, copied in self._copies if until == self._position]
        self._copies = [(until, copied) for until, copied in self._copies if until != self._position]
        for copied in done:
            self._emit(copied, steps)
        if self._hold_until == self._position:
            self._let_go(steps)
        if self._dribble_until == self._position:
            self._dribble = None
        if self._frame_end == self._position:
            self._begin_frame()
        for number, rule in enumerate(self._rules):
            if self._next[number] == self._position and self.ended_by is None:
                self._next[number] = self._later_hit(number)
                self._strike(rule.fault, number, steps)

    def _begin_frame(self) -> None:
        self._frame += 1
        self._header, self._frame_end = b"", math.inf
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

    def _strike(self, fault: Fault, number: int, steps: list[Step]) -> None:
        position = self._position
        if isinstance(fault, Flip):
            bit = self._chance(number).randrange(_BITS) if fault.bit is None else fault.bit
            self._flip ^= 1 << bit
            fault = Flip(bit)
        elif isinstance(fault, Drop):
            self._drop_until = max(
                self._drop_until, math.inf if fault.count is None else position + fault.count
            )
        elif isinstance(fault, Duplicate):
            self._copies.append((position + fault.count, b""))
        elif isinstance(fault, Truncate):
            self._drop_frame = True
        elif isinstance(fault, Merge):
            self._hold_until = max(self._hold_until, position + fault.count)
        elif isinstance(fault, Dribble):
            self._dribble, self._in_piece = fault, 0
            self._dribble_until = math.inf if fault.count is None else position + fault.count
            self._new_piece = True
        elif isinstance(fault, Split):
            self._new_piece = True
        elif isinstance(fault, Delay):
            steps.append(Pause(fault.seconds))
        else:
            self._release(steps)
            steps.append(fault)
            self.ended_by = fault
        self._hit(position, fault)

    def _release(self, steps: list[Step]) -> None:
        """Give out what is kept back, and the second half of what is doubled, as no more will come."""
        for _, copied in self._copies:
            self._emit(copied, steps)
        self._copies = []
        self._let_go(steps)

    def _let_go(self, steps: list[Step]) -> None:
        held, self._held, self._hold_until = self._held, b"", 0
        if held:
            self._new_piece = True
            self._append(held, steps)
            self._new_piece = True

    def _emit(self, data: bytes, steps: list[Step]) -> None:
        if self._hold_until:
            self._held += data
            return
        dribble = self._dribble
        while dribble is not None and data:
            part, data = data[: dribble.size - self._in_piece], data[dribble.size - self._in_piece :]
            self._append(part, steps)
            self._in_piece = (self._in_piece + len(part)) % dribble.size
            if self._in_piece == 0:
                self._new_piece = True
                if dribble.seconds:
                    steps.append(Pause(dribble.seconds))
        if data:
            self._append(data, steps)

    def _append(self, data: bytes, steps: list[Step]) -> None:
        last = steps[-1] if steps else None
        if isinstance(last, bytes) and not self._new_piece:
            steps[-1] = last + data
        else:
            steps.append(data)
        self._new_piece = False
