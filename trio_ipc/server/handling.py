"""Users' handlers: how one is run, what may come of it, and how its failure is told.

A handler is started by hand, one step, before anyone watches it: most are done by then, and one that does not
wait need not be waited for. Each runs in a context of its own. This module must never decide what a failure
means for the connection.
"""

from __future__ import annotations

import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import trio

from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import ends_the_program, leaves, shown_argument
from trio_ipc.functions import is_async
from trio_ipc.transports import PeerCredentials

_ResultT = TypeVar("_ResultT")

#: Runs a function in a context: :meth:`contextvars.Context.run`.
RunIn: TypeAlias = Callable[..., Any]

#: Exceptions of a group that are told to a client. All of them are in the log.
_LEAVES_TOLD: Final = 4


@attrs.define  # to freeze it would take each request 0.3 µs, and only its handler reads it
class Call:
    """The context of a request, for its handler.

    Attributes:
        peer: the client's process and user, as the system reported them.
        deadline: when the handler is cancelled, on :func:`trio.current_time`'s clock, in seconds.
        connection: the number of the connection on this server, from 1.
    """

    peer: PeerCredentials | None
    deadline: float
    connection: int


#: ``async def handler(request, call) -> response``.
Handler: TypeAlias = Callable[[RequestT, Call], Awaitable[ResponseT]]


def check_handler(handler: object) -> None:
    """Raise :exc:`TypeError` if this is no async function, nor a partial, method or object that is one."""
    if is_async(handler):
        return
    what = "which is not async" if callable(handler) else "which cannot be called"
    raise TypeError(
        f"handler is {shown_argument(handler)}, {what}: it must be an async function, "
        "async def handler(request, call)"
    )


def begin(
    handler: Handler[RequestT, ResponseT], request: RequestT, call: Call
) -> tuple[Coroutine[Any, Any, ResponseT] | None, Any]:
    """Call a handler, and take the first step of what it returned. To be run in a context of its own.

    Returns:
        The coroutine, and what it waits for; :func:`resume` goes on with both. Or None, and the result of a
        handler that is done already.
    """
    awaitable = handler(request, call)
    coroutine = awaitable if isinstance(awaitable, types.CoroutineType) else _awaiting(awaitable)
    try:
        return coroutine, coroutine.send(None)
    except StopIteration as done:
        return None, done.value


async def _awaiting(awaitable: Awaitable[_ResultT]) -> _ResultT:
    return await awaitable


@types.coroutine
def resume(
    coroutine: Coroutine[Any, Any, _ResultT], waits_for: Any, run: RunIn
) -> Generator[Any, Any, _ResultT]:
    """Wait for the rest of a handler that :func:`begin` has begun, and return its result.

    What ``await`` does (PEP 380), but from its second step on, and each step in the handler's own context.
    """
    while True:
        step: Callable[[Any], Any]
        try:
            argument = yield waits_for
            step = coroutine.send
        except BaseException as exc:  # noqa: BLE001 - it is raised where the handler waits
            step, argument = coroutine.throw, exc
        try:
            waits_for = run(step, argument)
        except StopIteration as done:
            result: _ResultT = done.value
            return result
        finally:
            # It is, or holds, the exception that may be on its way, whose traceback knows this frame: the two
            # would keep each other, and the request, until the garbage collector comes.
            del argument, step


def describe(exc: BaseException) -> str:
    """Return what an exception says, in one line for people; of a group, what its leaves say."""
    found = leaves(exc)
    told = "; ".join(_describe_one(leaf) for leaf in found[:_LEAVES_TOLD])
    return told if len(found) <= _LEAVES_TOLD else f"{told}; and {len(found) - _LEAVES_TOLD} more"


def _describe_one(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except BaseException as broken:
        if ends_the_program(broken) is not None:
            raise
        return f"{type(exc).__name__} (its text cannot be made)"


def ends_the_server(exc: BaseException) -> BaseException | None:
    """Return the exception in this one that no response may stand for, plain, or None.

    KeyboardInterrupt and SystemExit end the program. A GeneratorExit comes where the run itself is torn down;
    while it runs, one that a handler raises is the handler's own, from a generator of its own.
    """
    fatal = ends_the_program(exc)
    if fatal is None and not trio.lowlevel.in_trio_task():
        fatal = next((leaf for leaf in leaves(exc) if isinstance(leaf, GeneratorExit)), None)
    return fatal


def forget_traceback(exc: BaseException) -> None:
    """Take the traceback off an exception that was logged, and off those in it.

    A handler may raise the same object each time, such as the error of a future. Its traceback would grow by
    each of them, keep every request, and take longer and longer to write.
    """
    left = [exc]
    while left:
        one = left.pop()
        with suppress(Exception):  # a class of the user's may refuse it
            one.__traceback__ = None
            if isinstance(one, BaseExceptionGroup):
                left += one.exceptions


def is_cancelled_here() -> bool:
    """Return whether a scope around this task is cancelled, so that a Cancelled may be its own."""
    return trio.current_effective_deadline() == -math.inf
