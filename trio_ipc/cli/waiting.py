"""Showing a person that something is in progress, where standard error is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from rich.status import Status


class Waiting:
    """A line on the terminal that says what is waited for; it gives way to results.

    Args:
        status: rich's line; None where there is nobody to see it.
    """

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def say(self, what: str) -> None:
        """Say what is waited for now."""
        if self._status is not None:
            from rich.text import Text  # noqa: PLC0415 - slow to load

            self._status.update(Text(output.one_line(what)))
            self._status.start()

    def give_way(self) -> None:
        """Clear the line, for a result that follows. :meth:`say` brings it back."""
        if self._status is not None and output.on_terminal():
            self._status.stop()


@contextlib.contextmanager
def waiting(what: str) -> Iterator[Waiting]:
    """Show for the length of a block what is waited for."""
    if not sys.stderr.isatty():
        yield Waiting(None)
        return
    from rich.text import Text  # noqa: PLC0415 - slow to load

    with output.talk_console().status(Text(output.one_line(what))) as status:
        yield Waiting(status)
