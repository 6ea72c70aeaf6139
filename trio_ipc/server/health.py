"""A server's response to whether it is well, where its contract has such a question.

This module must never make a message that the contract did not give it.
"""

from __future__ import annotations

from collections.abc import Callable

from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import shown_argument
from trio_ipc.functions import is_ordinary

from .handling import Call, Handler, check_handler


def answering_health(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    is_well: Callable[[], bool] | None = None,
) -> Handler[RequestT, ResponseT]:
    """Return a handler that answers the contract's question for health itself, and gives all else to another.

    Args:
        handler: sees everything but that question.
        contract: its :attr:`~Contract.health` has ``is_asked`` and ``answer``.
        is_well: an ordinary function that says whether this server is well, such as whether its database
            answered of late; None for a server that is well as long as it answers. It must not block.

    Raises:
        TypeError: the handler is not async, ``is_well`` is, or the contract leaves the response to handlers.
    """
    check_handler(handler)
    contract_of(contract)
    if contract.health is None or not contract.health.is_answered_here:
        raise TypeError(
            f"the contract {contract.name} has no health with is_asked and answer: nothing can be answered"
        )
    if is_well is not None and not is_ordinary(is_well):
        raise TypeError(f"is_well is {shown_argument(is_well)}, must be an ordinary function")

    async def handle(request: RequestT, call: Call) -> ResponseT:
        if contract.asks_for_health(request):
            return contract.health_response(request, is_well is None or is_well() is True)
        return await handler(request, call)

    return handle
