"""A contract: which protobuf messages two processes speak, and what an error becomes.

The transport is generic; what is particular to a protocol is data here. This module must never know a
transport, and nothing in it may block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import attrs
from google.protobuf.message import EncodeError, Message

from .errors import MessageError, ResponseMismatchError, UndecodableMessageError

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
_MessageT = TypeVar("_MessageT", bound=Message)

#: How the failed response begins that stands for one which did not fit into a frame. Clients may look
#: for it, and ask for less at a time.
RESPONSE_TOO_LARGE: Final = "response too large"


def _never_mismatched(_request: Message, _response: Message) -> str | None:
    return None


@attrs.frozen(kw_only=True)
class Negotiation(Generic[RequestT, ResponseT]):
    """How a client asks a server what it can do, in messages of the contract itself.

    Attributes:
        ask: makes the request that asks; a new one each time.
        learn: reads the capabilities from the response. It must understand every response, also that of
            a server which does not know what it was asked.
        can_do: says whether a server of these capabilities can answer a request.
    """

    ask: Callable[[], RequestT]
    learn: Callable[[ResponseT], Any]
    can_do: Callable[[Any, RequestT], bool]


@attrs.frozen(kw_only=True)
class Contract(Generic[RequestT, ResponseT]):
    """One request type, one response type, and the rules between them.

    Attributes:
        name: what logs and counters call it.
        request_type: the protobuf class that clients send.
        response_type: the protobuf class that servers send.
        failure: makes the response that reports an error to the client, from the request (None where it
            could not be read) and a message for people. None if the protocol has no such response: the
            connection is closed instead.
        mismatch: says why a response does not answer a request, or None where it does. By default every
            response does.
        repeatable: whether a request that may have reached a server does no harm if it is made again;
            True, False, or a function that says so of a request.
        negotiation: how servers are asked what they can do, None if they can't be.
    """

    name: str
    request_type: type[RequestT]
    response_type: type[ResponseT]
    failure: Callable[[RequestT | None, str], ResponseT] | None = None
    mismatch: Callable[[RequestT, ResponseT], str | None] = _never_mismatched
    repeatable: bool | Callable[[RequestT], bool] = False
    negotiation: Negotiation[RequestT, ResponseT] | None = None

    def may_repeat(self, request: RequestT) -> bool:
        """Return whether it does no harm to make this request again."""
        return self.repeatable if isinstance(self.repeatable, bool) else self.repeatable(request)

    def decode_request(self, payload: bytes | bytearray) -> RequestT:
        """Return the request in a payload.

        Raises:
            UndecodableMessageError: the payload is no such message.
        """
        return _decode(self.request_type, payload)

    def decode_response(self, payload: bytes | bytearray) -> ResponseT:
        """Return the response in a payload.

        Raises:
            UndecodableMessageError: the payload is no such message.
        """
        return _decode(self.response_type, payload)

    def decode_answer(self, request: RequestT, payload: bytes | bytearray) -> ResponseT:
        """Return the response in a payload, if it answers this request.

        Raises:
            UndecodableMessageError: the payload is no such message.
            ResponseMismatchError: it answers another request, as far as :attr:`mismatch` can tell.
        """
        response = _decode(self.response_type, payload)
        mismatch = self.mismatch(request, response)
        if mismatch is not None:
            raise ResponseMismatchError(mismatch, hint="the connection was closed: open a new one")
        return response

    def check_request(self, request: object) -> None:
        """Raise :exc:`TypeError` if this is no message of :attr:`request_type`."""
        if not isinstance(request, self.request_type):
            wanted = self.request_type.__name__
            raise TypeError(f"the request is a {type(request).__name__}, must be a {wanted}")


def contract_of(given: object) -> Contract[Any, Any]:
    """Return the contract that a caller gave.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, Contract):
        raise TypeError(
            f"contract is {given!r}, must be a Contract: the message types and what a failure becomes"
        )
    return given


def encode(message: Message) -> bytes:
    """Return the payload of a message.

    Raises:
        MessageError: a field that the message requires (proto2) is not set.
    """
    try:
        return message.SerializeToString()
    except EncodeError as exc:
        raise MessageError(
            f"the {type(message).__name__} cannot be encoded: {exc}", hint="set the missing fields"
        ) from exc


def _decode(kind: type[_MessageT], payload: bytes | bytearray) -> _MessageT:
    try:
        return kind.FromString(payload)  # type: ignore[arg-type]  # upb takes any buffer, its stub says bytes
    except Exception as exc:  # a decoder in Python raises more than DecodeError, such as UnicodeDecodeError
        raise UndecodableMessageError(
            f"a payload of {len(payload)} bytes does not decode as {kind.DESCRIPTOR.full_name}: {exc}",
            hint="the two sides disagree on the contract",
        ) from exc
