"""Where the command begins: before anything that may be missing is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

#: What the extra ``cli`` brings.
_NEEDED: Final = {"click", "rich"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows the program's name; None for those of this process.

    Returns:
        The exit status: a :class:`~trio_ipc.cli.ending.Status`, or 128 and the number of a signal.
    """
    try:
        from .program import run  # noqa: PLC0415 - it may be that click is not there

        return run(arguments)
    except ModuleNotFoundError as exc:
        if exc.name not in _NEEDED:
            raise
        print(
            f"trio-ipc: {exc.name} is not installed; run: python -m pip install 'trio-ipc[cli]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:  # while modules were loaded
        return 130
