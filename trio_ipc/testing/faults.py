"""Faults around a stream, as a script and a seed will have them.

:class:`Faults` is the plan, and :meth:`Faults.wrap` puts it around any :class:`trio.abc.Stream`, on either
side of a connection. This module must never hide which faults have hit, or how to repeat them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar, cast

import trio

from trio_ipc.errors import shown

from .checking import check_whole, checked_all
from .faultrules import Fault, Rule
from .faultscript import FaultScript
from .faultystream import FaultyStream

_StreamT = TypeVar("_StreamT", bound=trio.abc.Stream)

#: Faults that are listed one by one in a report.
_LISTED: Final = 50

_RULES: Final = "rules only: place a fault by at_frame() or its like"


class Wrap(Protocol):
    """The type of what puts faults around streams."""

    def __call__(self, stream: _StreamT, /) -> _StreamT:
        """Return a stream of the same kinds around this one."""


class Faults:
    r"""A plan of faults for one or several streams.

    As a context manager it adds itself, with the seed, to whatever exception leaves the block; and it begins
    anew, as if it had not been used before::

        with Faults(seed=7, receiving=[at_random(0.01, Flip())]) as faults:
            async with open_pair(handler, CONTRACT, wrap=faults.wrap) as (client, server):
                ...

    Args:
        seed: what chance is drawn from; None for a new one, which the report tells.
        sending: what hits the bytes that the wrapped side sends.
        receiving: what hits the bytes that it receives.
        streams: how many streams are hit, in the order in which they are wrapped; later ones are left alone.
            None for all. Those of each name of :meth:`wrap_as` count for themselves.
        delimiter: what ends a frame, such as ``b"\n"`` for a protocol of lines; None for frames of this
            package.

    Raises:
        TypeError, ValueError: an argument can't be.

    Attributes:
        seed: as given or drawn.
        hits: every fault that took effect, as text: told when the wrapped side was given, or has sent, what
            it changed. One that changed nothing is none.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        sending: Sequence[Rule] = (),
        receiving: Sequence[Rule] = (),
        streams: int | None = None,
        delimiter: bytes | None = None,
    ) -> None:
        check_whole("streams", streams, 0, optional=True)
        if seed is not None:
            check_whole("seed", seed, -(2**63))
        if delimiter is not None:
            _check_delimiter(delimiter)
        # A seed is drawn from the system: random's own state may have been set by the test.
        self.seed: int = random.SystemRandom().randrange(2**32) if seed is None else seed
        self.hits: list[str] = []
        self._sending = checked_all("sending", sending, Rule, _RULES)
        self._receiving = checked_all("receiving", receiving, Rule, _RULES)
        self._streams = streams
        self._delimiter = delimiter
        self._wrapped: Counter[str | None] = Counter()

    def wrap(self, stream: _StreamT) -> _StreamT:
        """Return a stream around this one that has the faults. It owns the one inside.

        Of a :class:`~trio_ipc.transports.LocalStream` it makes one, of a stream that can be half closed one
        that can be. Where the inner one can't, :class:`EndOfFile` in sending closes it whole.

        Chance is drawn from the seed and from how many were wrapped before; where several tasks wrap at the
        same time, :meth:`wrap_as` lets a seed repeat what it did.
        """
        return self._around(None, stream)

    def wrap_as(self, name: str) -> Wrap:
        """Return what wraps as :meth:`wrap` does, and draws from the name instead of from the others' order.

        ::

            async with open_client_at(CONTRACT, endpoint, wrap=faults.wrap_as("first")) as client:

        Args:
            name: whose streams they are; the report has it.

        Raises:
            TypeError: it is no str.
        """
        if not isinstance(name, str):
            raise TypeError(f"name is {shown(name)}, must be a str")
        return partial(self._around, name)

    def report(self) -> str:
        """Return the plan and what came of it, for people."""
        more = len(self.hits) - _LISTED
        lines = [repr(self), *self.hits[:_LISTED], *([f"... and {more} more"] if more > 0 else [])]
        return "\n  ".join(lines if self.hits else [*lines, "none of them has hit"])

    def _around(self, name: str | None, stream: _StreamT) -> _StreamT:
        self._wrapped[name] += 1
        number = self._wrapped[name]
        where = f"stream {number}" if name is None else f"stream {name!r} {number}"
        spared = self._streams is not None and number > self._streams
        scripts = [
            self._script(f"{where} sending", () if spared else self._sending),
            self._script(f"{where} receiving", () if spared else self._receiving),
        ]
        return cast(_StreamT, FaultyStream.around(stream, *scripts))

    def _script(self, where: str, rules: Sequence[Rule]) -> FaultScript:
        hits = self.hits  # of this use of the plan, though it may be used again

        def hit(position: int, fault: Fault) -> None:
            hits.append(f"{where} byte {position}: {fault}")

        return FaultScript(rules, f"{self.seed}/{where}", hit, delimiter=self._delimiter)

    def __repr__(self) -> str:
        """Give the call that makes it, with the seed."""
        parts = [f"seed={self.seed}"]
        for name, rules in (("sending", self._sending), ("receiving", self._receiving)):
            if rules:
                parts.append(f"{name}=[{', '.join(map(str, rules))}]")
        if self._streams is not None:
            parts.append(f"streams={self._streams}")
        if self._delimiter is not None:
            parts.append(f"delimiter={self._delimiter!r}")
        return f"Faults({', '.join(parts)})"

    def __enter__(self) -> Self:
        """Begin a block whose failures tell of these faults."""
        self.hits = []
        self._wrapped.clear()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Add the report to the exception that leaves the block."""
        if exc is not None:
            exc.add_note(f"faults were injected: {self.report()}")


def _check_delimiter(delimiter: object) -> None:
    if not isinstance(delimiter, bytes):
        raise TypeError(f"delimiter is {shown(delimiter)}, must be bytes or None")
    if not delimiter:
        raise ValueError("delimiter is empty, must have at least one byte")
