"""A program that serves nobody, such as an agent: its signals, its standard output, and its end.

This module must never show a traceback of what a user or the system did, nor lose one of a defect.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TextIO

import trio

from trio_ipc import streams
from trio_ipc.client.nursery import nursery_of_our_own
from trio_ipc.errors import IpcError, leaves, shown
from trio_ipc.functions import is_ordinary

from .console import Console, program_name
from .signals import caught_stops


def run_program(body: Callable[[], int | None], *, name: str | None = None) -> int:
    """Run a program that is no service to its end: ``sys.exit(run_program(main))``.

    For services there is :func:`run_service`. What ends the body becomes an exit status and, on standard
    error, one line for each cause.

    Args:
        body: all that the program does, an ordinary function; it runs Trio, if it needs it.
        name: what the program is called in its lines; None for its file's name.

    Returns:
        What the body returned, 0 for None; 0 where the reader of standard output has seen enough, or Ctrl-C
        came before :func:`until_stopped`; 1 after an :class:`IpcError`, an :class:`OSError`, or where
        standard output takes nothing.

    Raises:
        TypeError: the body is async, or no function.
        BaseException: whatever else the body raises, such as SystemExit, or a defect.
    """
    if not is_ordinary(body):
        raise TypeError(
            f"body is {shown(body)}, must be an ordinary function without arguments, such as "
            "lambda: trio.run(main)"
        )
    streams.prepare()
    status = 1
    try:
        status = _flushed(body) or 0
    except* (streams.ReaderGoneError, KeyboardInterrupt):
        status = 0
    except* (IpcError, streams.OutputError, OSError) as group:
        status = 1
        console = Console(program_name() if name is None else name, "text")
        for line in dict.fromkeys(str(problem) for problem in leaves(group)):
            console.say(line)
    finally:
        streams.discard_what_is_stuck()
    return status


def _flushed(body: Callable[[], int | None]) -> int | None:
    """Run a body, and hand over what it wrote. Where both fail, what the body raised is not lost.

    At the interpreter's own flush it would be too late for a line of ours.
    """
    try:
        status = body()
    except BaseException as exc:
        with contextlib.suppress(streams.ReaderGoneError):
            try:
                streams.flush()
            except streams.OutputError as stuck:
                if isinstance(exc, SystemExit):  # of a parser that has written its help
                    raise
                raise BaseExceptionGroup("a program failed, and its output is stuck", [exc, stuck]) from None
        raise
    streams.flush()
    return status


@contextlib.asynccontextmanager
async def until_stopped() -> AsyncIterator[trio.CancelScope]:
    """Cancel an ``async with`` block at the first signal that asks a program to end.

    Those are SIGINT and SIGTERM, on Windows Ctrl-C and Ctrl-Break. To be used once, in the main thread,
    around all that a program does: after the block they are ignored, so that nothing hurries what is left.

    Yields:
        The block's scope. Once the block is left, its ``cancelled_caught`` says whether a signal ended it.

    What the block raises comes out as it is. A cancellation from outside goes through it.
    """
    with caught_stops() as stops:
        async with nursery_of_our_own() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_at_first, stops, scope)
                yield scope


async def _cancel_at_first(stops: AsyncIterator[object], scope: trio.CancelScope) -> None:
    await anext(stops)
    scope.cancel()


@contextlib.contextmanager
def standard_output() -> Iterator[TextIO]:
    """Give standard output for a ``with`` block that writes to it.

    What goes wrong there is told apart from all else that may, so that :func:`run_program` says it rightly:
    nobody reads any longer, which is no failure, or it takes nothing, as on a full disk.
    """
    with streams.writing() as file:
        yield file
