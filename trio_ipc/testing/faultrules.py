"""Which faults there are, and how it is said where they hit.

Everything here is data, checked when it is made: what could only fail while a test runs is refused at once.
This module must never know how a fault is done.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import attrs

from trio_ipc.errors import shown

from .checking import check_bool, check_seconds, check_whole

_BITS: Final = 8


def _whole_number(least: int, most: float = math.inf, *, optional: bool = False) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        check_whole(field.name, value, least, most, optional=optional)

    return check


def _number_of_seconds(_: object, field: attrs.Attribute[Any], value: object) -> None:
    check_seconds(field.name, value)


# --- Faults -------------------------------------------------------------------------------------------------


@attrs.frozen
class Delay:
    """Holds the byte up, and all behind it: in sending before it goes, in receiving after it has come.

    Attributes:
        seconds: for how long.
    """

    seconds: float = attrs.field(validator=_number_of_seconds)


@attrs.frozen
class Stall:
    """Lets nothing more through. A sender waits until the peer is gone, a receiver until it closes.

    Where nothing else is left that could go on, the wait ends by a :exc:`RuntimeError` that says so.
    """


@attrs.frozen
class Flip:
    """Turns round one bit of the byte. Attributes: ``bit`` from 0 (the lowest), None for any."""

    bit: int | None = attrs.field(default=None, validator=_whole_number(0, _BITS - 1, optional=True))


@attrs.frozen
class Drop:
    """Loses bytes from this one on. Attributes: ``count``, None for all the rest."""

    count: int | None = attrs.field(default=1, validator=_whole_number(1, optional=True))


@attrs.frozen
class Duplicate:
    """Gives bytes from this one on twice, the second time after the last of them. Attributes: ``count``."""

    count: int = attrs.field(default=1, validator=_whole_number(1))


@attrs.frozen
class Truncate:
    """Loses the bytes from this one to the end of its frame."""


@attrs.frozen
class Reset:
    """Breaks the connection before the byte, as soon as all before it is through: for both sides at once.

    In receiving, a local stream is looked at before each send, too, and again after each wait of a send. Any
    other is so only by reading: what is sent before the next read goes out.
    """


@attrs.frozen
class EndOfFile:
    """Ends this direction before the byte, as a half-close does. What comes after it is lost."""


@attrs.frozen
class Split:
    """Splits the stream before the byte: one read or write ends there, and the next one begins with it."""


@attrs.frozen
class Dribble:
    """Gives the bytes from this one on in small pieces. Without a pause, in sending, those are short writes.

    One that begins within another takes its place; where it ends, the other goes on if it is not over.

    Attributes:
        size: bytes to a piece.
        seconds: for how long each further piece is held up, as by :class:`Delay`.
        count: of how many bytes, None for all the rest.
    """

    size: int = attrs.field(default=1, validator=_whole_number(1))
    seconds: float = attrs.field(default=0.0, validator=_number_of_seconds)
    count: int | None = attrs.field(default=None, validator=_whole_number(1, optional=True))


@attrs.frozen
class Merge:
    """Keeps bytes from this one on back until all are there, or the end; then they come as one piece.

    In sending, the end is ``send_eof()`` or the close. At a close, only what the stream takes without a wait
    is sent: one that is not local takes nothing, and the bytes are lost.

    Attributes:
        count: how many.
    """

    count: int = attrs.field(validator=_whole_number(1))


#: What happens to the bytes of a stream, or to the stream itself.
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
        offset: at this byte of the frame, from 0; a payload of this package's begins at 8. A frame that is
            shorter is spared.
        probability: how likely a byte, or a frame, is hit.
    """

    fault: Fault = attrs.field()
    byte: int | None = attrs.field(default=None, validator=_whole_number(0, optional=True))
    frame: int | None = attrs.field(default=None, validator=_whole_number(1, optional=True))
    each_frame: bool = attrs.field(default=False)
    offset: int = attrs.field(default=0, validator=_whole_number(0))
    probability: float = attrs.field(default=1.0)

    @fault.validator
    def _is_a_fault(self, _: object, value: object) -> None:
        if not isinstance(value, Fault):
            raise TypeError(f"fault is {shown(value)}, must be a fault, such as Flip()")

    @each_frame.validator
    def _is_one_place(self, _: object, value: bool) -> None:
        check_bool("each_frame", value)
        if (self.byte is not None) + (self.frame is not None) + value > 1:
            raise ValueError("a rule has one place: byte, frame or each_frame, and no two of them")
        if self.offset and self.frame is None and not value:
            raise ValueError("offset is of a frame: place the fault in frame or each_frame")
        if self.probability != 1 and (self.byte is not None or self.frame is not None):
            raise ValueError("probability is not of one byte or frame: use at_random() or at_each_frame()")

    @probability.validator
    def _is_a_probability(self, _: object, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"probability is {shown(value)}, must be a number")
        if not 0 < value <= 1:
            raise ValueError(f"probability is {shown(value)}, must be above 0 and at most 1")

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
    check_whole("byte", byte, 0)
    return Rule(fault, byte=byte)


def at_frame(frame: int, fault: Fault, *, offset: int = 0) -> Rule:
    """Let a fault hit this frame of the stream, from 1, at this byte of it, from 0."""
    check_whole("frame", frame, 1)
    return Rule(fault, frame=frame, offset=offset)


def at_each_frame(fault: Fault, *, offset: int = 0, probability: float = 1.0) -> Rule:
    """Let a fault hit every frame of the stream, or each with this probability."""
    return Rule(fault, each_frame=True, offset=offset, probability=probability)


def at_random(probability: float, fault: Fault) -> Rule:
    """Let a fault hit each byte of the stream with this probability, as the seed will have it."""
    return Rule(fault, probability=probability)
