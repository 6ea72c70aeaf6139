"""Where the command begins: before anything that may be missing is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trio_ipc import streams

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
        problem = missing_library(exc)
        if problem is None:
            raise
        streams.prepare()
        streams.tell(f"trio-ipc: {problem}")
        return 2
    except KeyboardInterrupt:  # while modules were loaded
        return 130


def missing_library(exc: BaseException) -> str | None:
    """Say what to install, None where no library of the extra ``cli`` is missing. Commands load some late."""
    name = (exc.name or "").partition(".")[0] if isinstance(exc, ModuleNotFoundError) else ""
    if name in _NEEDED:
        return f"{name} is not installed; run: python -m pip install 'trio-ipc[cli]'"
    return None
