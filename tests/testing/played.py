"""What scripts of faults make of bytes, for the tests of what they do and of what they tell."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support import frame, task
from trio_ipc.testing import Fault, Rule
from trio_ipc.testing.faultscript import FaultScript, Step


def played(
    data: bytes,
    *rules: Rule,
    sizes: Iterable[int] = (),
    key: str = "k",
    hits: list[tuple[int, Fault]] | None = None,
    delimiter: bytes | None = None,
) -> list[Step]:
    """The steps that a script makes of these bytes, which come in slices of these sizes and then at once.

    All that comes out is given out at once.
    """

    def hit(at: int, fault: Fault) -> None:
        if hits is not None:
            hits.append((at, fault))

    script = FaultScript(rules, key, hit, delimiter=delimiter)
    steps = script.start()
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        steps += _given(script, script.feed(piece)[0])
    return steps + _given(script, script.end())


def _given(script: FaultScript, steps: list[Step]) -> list[Step]:
    script.given(sum(len(step) for step in steps if isinstance(step, bytes)))
    return steps


def merged(steps: list[Step]) -> list[Step]:
    """Without the borders of pieces."""
    found: list[Step] = []
    for step in steps:
        last = found[-1] if found else None
        if isinstance(step, bytes) and isinstance(last, bytes):
            found[-1] = last + step
        else:
            found.append(step)
    return found


TWO = frame(task("one")) + frame(task("two"))
SECOND = len(frame(task("one")))
