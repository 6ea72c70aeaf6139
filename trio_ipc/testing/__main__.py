"""``python -m trio_ipc.testing show FILE``: a recording, as people read it.

Exit status 0 for a whole recording, 1 for one that is damaged or ends early, 2 for a mistake of the user's.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from trio_ipc import streams
from trio_ipc.contract import Contract
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import one_line, writable

from .recording import Recording, read_recording


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    streams.prepare()
    try:
        try:
            status = _show(_parser().parse_args(arguments))
        finally:  # also of help, after which argparse ends the program
            streams.flush()
    except streams.ReaderGoneError:
        status = 0
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except (streams.OutputError, OSError, ValueError, TypeError) as exc:
        streams.tell(f"{_PROGRAM}: {one_line(str(exc))}")
        status = 2
    finally:
        streams.discard_what_is_stuck()
    return status


def _show(options: argparse.Namespace) -> int:
    contract = None if options.contract is None else _contract(options.contract)
    recording = _read(options.file)
    if contract is None and recording.contract == DETECTION.name:
        contract = DETECTION
    for line in recording.lines(contract):
        with streams.writing() as file:
            print(writable(line), file=file)
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
    except (Exception, SystemExit) as exc:  # a module of the user's raises anything
        raise ValueError(
            f"--contract is {name!r}, which cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(found, Contract):
        raise TypeError(f"--contract {name} is no Contract but a {type(found).__name__}")
    return found


if __name__ == "__main__":
    sys.exit(main())
