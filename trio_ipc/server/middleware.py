"""What can be put around a handler: plain functions that take one and return one.

Each works on a whole handler, on a :class:`Router` and on one of its operations alike. This module must never
look into a request or a response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import PeerNotAllowedError, leaves, shown_argument
from trio_ipc.functions import is_ordinary
from trio_ipc.logs import LimitedLog, Log, time_here
from trio_ipc.transports import PeerPolicy

from .handling import Call, Handler, check_handler

_log = Log(__name__)


def timed(
    handler: Handler[RequestT, ResponseT], observe: Callable[[float], object]
) -> Handler[RequestT, ResponseT]:
    """Return a handler that tells how long each request took.

    Args:
        handler: what answers them.
        observe: an ordinary function that is called with the seconds, also of a request that failed or was
            cancelled. What it raises takes the response's place: count there, and do no more.

    Raises:
        TypeError: the handler is not async, or ``observe`` is.
    """
    check_handler(handler)
    _check_function("observe", observe)

    async def handle(request: RequestT, call: Call) -> ResponseT:
        began = time_here()
        try:
            return await handler(request, call)
        finally:
            observe(time_here() - began)

    return handle


def authorized(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    allow: PeerPolicy | Callable[[RequestT, Call], bool],
) -> Handler[RequestT, ResponseT]:
    """Return a handler that answers only those who may ask. All others get the contract's failure.

    The server's own policy (``peers=``) decides who may connect; this one decides about one operation, or
    about one request. At most ten refusals a second have a line each in the log; how many more there were is
    logged at a later request.

    Args:
        handler: what answers the allowed.
        contract: whose failure the others get. Where it has none, their connection is closed.
        allow: which users may ask; or an ordinary function of a request and its :class:`Call`.

    Raises:
        TypeError: the handler is not async, or ``allow`` neither a policy nor an ordinary function.
    """
    check_handler(handler)
    contract_of(contract)
    if not isinstance(allow, PeerPolicy):
        _check_function("allow", allow)
    refusals = LimitedLog(
        _log, logging.WARNING, "more requests were not allowed: %d", counted_as="refused", fields={}
    )

    async def handle(request: RequestT, call: Call) -> ResponseT:
        allowed = allow.allows(call.peer) if isinstance(allow, PeerPolicy) else allow(request, call)
        refusals.catch_up()
        if allowed is True:
            return await handler(request, call)
        refusals.write(
            "a request of connection %d was not allowed to %s",
            call.connection,
            call.peer,
            extra={"connection": call.connection, "peer": str(call.peer)},
        )
        reason = f"not allowed: {call.peer} may not ask this"
        response = contract.failed_response(request, reason)
        if response is None:
            raise PeerNotAllowedError(reason)
        return response

    return handle


def logged(
    handler: Handler[RequestT, ResponseT], operation: str = "request", *, level: int = logging.INFO
) -> Handler[RequestT, ResponseT]:
    """Return a handler with a line in the log for each request: who asked, how long it took, how it ended.

    Nothing of the request or the response is in it.

    Args:
        handler: what answers them.
        operation: what they are called.
        level: of the lines.

    Raises:
        TypeError: the handler is not async, ``operation`` is no str or ``level`` no int.
    """
    check_handler(handler)
    if not isinstance(operation, str):
        raise TypeError(f"operation is {shown_argument(operation)}, must be a str")
    if type(level) is bool or not isinstance(level, int):
        raise TypeError(f"level is {shown_argument(level)}, must be an int such as logging.INFO")

    async def handle(request: RequestT, call: Call) -> ResponseT:
        began = time_here()
        ended = "answered"
        try:
            return await handler(request, call)
        except BaseException as exc:
            # A handler with a nursery gives its cancellation as a group.
            was_cancelled = all(map(_is_cancellation, leaves(exc)))
            ended = "cancelled" if was_cancelled else f"failed ({type(exc).__name__})"
            raise
        finally:
            milliseconds = (time_here() - began) * 1000
            _log.log(
                level,
                "%s of connection %d, %s: %s after %.3f ms",
                operation,
                call.connection,
                call.peer,
                ended,
                milliseconds,
                extra={"connection": call.connection, "peer": str(call.peer), "operation": operation},
            )

    return handle


def _is_cancellation(exc: BaseException) -> bool:
    if trio.lowlevel.in_trio_run():
        return isinstance(exc, trio.Cancelled)
    return type(exc).__name__ == "CancelledError"  # asyncio's, which programs on Trio do not load


def _check_function(name: str, value: object) -> None:
    if not is_ordinary(value):
        raise TypeError(f"{name} is {shown_argument(value)}, must be an ordinary function")
