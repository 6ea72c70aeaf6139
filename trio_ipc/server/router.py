"""Several operations in one contract: which field of a ``oneof`` a request has set decides who answers it.

This module must never decide what a failure means for the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic

from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import ProtocolError, shown_argument

from .handling import Call, Handler, check_handler


class Router(Generic[RequestT, ResponseT]):
    """A handler that gives each request to the handler of its operation: the field that it has set.

    Serve it: ``serve(Router(CONTRACT, {"get": get, "put": put}), CONTRACT)``. Each of the handlers gets
    the whole request and returns the whole response, so that each can be wrapped, and served by itself, like
    any other.

    A request that has no operation set, or one that this program's schema does not know yet, is answered by
    the contract's failure, or by ``default``.

    Args:
        contract: whose request type has the ``oneof``.
        handlers: by the names of its fields; every one of them, unless there is a ``default``.
        oneof: its name; None where the request type has only one.
        default: answers all other requests.

    Raises:
        TypeError: there is no such ``oneof`` or field, one has no handler, or a handler is not async.

    Attributes:
        oneof: the name of the ``oneof``.
        operations: those that have handlers, in the order of the schema.
    """

    def __init__(
        self,
        contract: Contract[RequestT, ResponseT],
        handlers: Mapping[str, Handler[RequestT, ResponseT]],
        *,
        oneof: str | None = None,
        default: Handler[RequestT, ResponseT] | None = None,
    ) -> None:
        contract_of(contract)
        self._contract = contract
        if not isinstance(handlers, Mapping):
            raise TypeError(f"handlers is {shown_argument(handlers)}, must be a mapping of names to handlers")
        self.oneof: str
        self.oneof, fields = _oneof_of(contract.request_type.DESCRIPTOR, oneof)
        unknown = [str(name) for name in handlers if name not in fields]
        if unknown:
            raise TypeError(
                f"handlers has {', '.join(unknown)}, and {self._where()} has {', '.join(fields)} alone"
            )
        missing = [name for name in fields if name not in handlers]
        if missing and default is None:
            raise TypeError(
                f"handlers lacks {', '.join(missing)} of {self._where()}: add them, or give a default handler"
            )
        for name, handler in handlers.items():
            try:
                check_handler(handler)
            except TypeError as exc:
                raise TypeError(f"for {name} the {exc}") from None
        if default is not None:
            check_handler(default)
        self.operations: tuple[str, ...] = tuple(name for name in fields if name in handlers)
        self._handlers = dict(handlers)
        self._default = default

    async def __call__(self, request: RequestT, call: Call) -> ResponseT:
        """Answer one request; what its handler raises comes out.

        Raises:
            ProtocolError: it has no operation that is known here, and the contract no failure to say so.
        """
        operation: str | None = request.WhichOneof(self.oneof)
        handler = self._default if operation is None else self._handlers.get(operation, self._default)
        if handler is not None:
            return await handler(request, call)
        reason = (
            f"the request has no operation that this server knows: set one of {', '.join(self.operations)}"
        )
        response = self._contract.failed_response(request, reason)
        if response is None:
            raise ProtocolError(reason)
        return response

    def _where(self) -> str:
        return f"the oneof {self.oneof} of {self._contract.request_type.DESCRIPTOR.full_name}"


def _oneof_of(message: Any, wanted: str | None) -> tuple[str, list[str]]:
    """Return a oneof's name and the names of its fields."""
    # An optional field of proto3 is in a oneof of its own, which nobody has written ("_" and its name).
    found = {
        oneof.name: [field.name for field in oneof.fields]
        for oneof in message.oneofs
        if not (len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}")
    }
    if wanted is None and len(found) == 1:
        return next(iter(found.items()))
    if wanted is not None and wanted in found:
        return wanted, found[wanted]
    has = f"has {', '.join(found)}" if found else "has none"
    if wanted is None:
        raise TypeError(f"a Router needs the name of a oneof, oneof=: {message.full_name} {has}")
    raise TypeError(f"oneof is {shown_argument(wanted)}, and {message.full_name} {has}")
