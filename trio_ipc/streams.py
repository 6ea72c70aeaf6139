"""The standard streams of a program: what is done to them before the first line and after the last one.

The command and services share it. This module must never know what is written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class ReaderGoneError(Exception):
    """The reader of standard output has closed it, as ``head`` does."""


class OutputError(Exception):
    """Standard output cannot be written, though a reader may still wait for it."""


def prepare() -> None:
    """Have writing to the standard streams cost no more than what was written. Before the first line."""
    if not _takes_anything(sys.stderr):
        # print and argparse would take standard output in place of one that is closed, and argparse up to
        # Python 3.11.2 fails by one that is open for reading alone.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the program runs
    # Another encoding than UTF-8 is no reason to fail: what it lacks becomes an escape.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _takes_anything(stream: TextIO | None) -> bool:
    """Return whether a stream is there, and is not known to be open for reading alone (write(2), EBADF)."""
    if stream is None:
        return False
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return True  # it is none of the system's
    try:
        # It writes nothing, and fails where the descriptor is for reading alone.
        os.write(descriptor, b"")
    except OSError as exc:
        return exc.errno != errno.EBADF
    return True


@contextlib.contextmanager
def writing() -> Iterator[TextIO]:
    """Give standard output, and say what is wrong where it takes nothing.

    Raises:
        ReaderGoneError: nobody reads any longer.
        OutputError: it takes nothing, or there is none.
    """
    if is_closed(sys.stdout):
        raise OutputError("standard output is closed")
    try:
        yield sys.stdout
    except OSError as exc:
        if reader_is_gone(exc):
            raise ReaderGoneError from exc
        raise OutputError(f"standard output: {exc.strerror}") from exc


def tell(text: str) -> None:
    """Write lines to standard error, if that can be done: there is nobody else to tell that it cannot."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def flush() -> None:
    """Hand over what was written to standard output, if there is one. Raises as :func:`writing` does."""
    if not is_closed(sys.stdout):
        with writing() as stream:
            stream.flush()


def discard_what_is_stuck() -> None:
    """Give up on what the streams do not take: Python flushes them as it ends, and would fail by that."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if not is_closed(stream):
                stream.flush()
        except OSError:
            discard(stream)


def discard(stream: TextIO) -> None:
    """Give up on a stream that takes nothing, and on what is stuck in it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def reader_is_gone(error: OSError) -> bool:
    """Return whether an error of writing says that nobody reads any longer."""
    if isinstance(error, BrokenPipeError):
        return True
    from trio_ipc.transports.host import READER_GONE  # noqa: PLC0415 - it loads Trio, which few need here

    return READER_GONE is not None and error.errno == READER_GONE


def is_closed(stream: TextIO | None) -> bool:
    """Return whether the program was started without a stream, or has closed it since."""
    return stream is None or getattr(stream, "closed", False)
