"""``python -m tests.examples.patient_demo [WORD]``: the demonstration, on a machine that may be slow.

It has far more time than it gives itself. With a word it waits without end once one of its programs has
printed a line that has it, so that it cannot be over before somebody interrupts it.
"""

from __future__ import annotations

import sys
from typing import Final

import trio

from examples import demo

#: Seconds; the tests here wait no longer for anything.
_TIME_LIMIT: Final = 60.0


class _Program(demo.Program):
    async def line_with(self, *words: str) -> None:
        await super().line_with(*words)
        if words[0] in sys.argv[1:]:
            await trio.sleep_forever()


if __name__ == "__main__":
    demo._TIME_LIMIT = _TIME_LIMIT  # type: ignore[misc]
    demo.Program = _Program  # type: ignore[misc]
    sys.exit(demo.main())
