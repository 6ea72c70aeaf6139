"""``python -m trio_ipc.testing show FILE``: a recording, as people read it.

Exit status 0 for a whole recording, 1 for one that is damaged or ends early, 2 for a mistake of the user's.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from trio_ipc.contract import Contract
from trio_ipc.daemoneye import DETECTION

from .recording import Recording, read_recording


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        contract = None if options.contract is None else _contract(options.contract)
        recording = _read(options.file)
        if contract is None and recording.contract == DETECTION.name:
            contract = DETECTION
        for line in recording.lines(contract):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError, TypeError) as exc:
        print(f"{_PROGRAM}: {exc}", file=sys.stderr)
        return 2
    return 0 if recording.damage is None else 1


_PROGRAM = "python -m trio_ipc.testing"


def _read(file: str) -> Recording:
    try:
        return read_recording(file)
    except OSError as exc:
        raise ValueError(f"cannot read {file}: {exc.strerror}") from exc


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Look at what was recorded.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser("show", help="show a recording as text, with errors marked by !!")
    show.add_argument("file", metavar="FILE", help="made by trio_ipc.testing.Recorder")
    show.add_argument(
        "--contract",
        metavar="MODULE:NAME",
        help="the Contract that it speaks; without it, payloads of others than DaemonEye are shown as bytes",
    )
    return parser


def _contract(name: str) -> Contract[Any, Any]:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"--contract is {name!r}, must be MODULE:NAME")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as exc:  # a module of the user's raises anything
        raise ValueError(
            f"--contract is {name!r}, which cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(found, Contract):
        raise TypeError(f"--contract {name} is no Contract but a {type(found).__name__}")
    return found


if __name__ == "__main__":
    sys.exit(main())
