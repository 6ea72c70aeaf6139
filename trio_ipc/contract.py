"""A contract: which protobuf messages two processes speak, and what an error becomes.

The transport is generic; what is particular to a protocol is data here. This module must never know a
transport, and nothing in it may block.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, NoReturn, TypeVar

import attrs
from google.protobuf.message import EncodeError, Message

from .errors import (
    ContractError,
    MessageError,
    ResponseMismatchError,
    UndecodableMessageError,
    ends_the_program,
    plural,
    shown,
    shown_argument,
)
from .functions import dismiss, is_ordinary

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
_MessageT = TypeVar("_MessageT", bound=Message)

#: How the failed response begins that stands for one which did not fit into a frame. Clients may look
#: for it, and ask for less at a time.
RESPONSE_TOO_LARGE: Final = "response too large"

#: What a failed response says of a request whose frame has the other checksum variant, before the name of
#: that one. A client that is set to ``auto`` looks for it.
OTHER_VARIANT: Final = "the crc32_variant of this frame is"


def _never_mismatched(_request: Message, _response: Message) -> str | None:
    return None


def _function(owner: object, field: attrs.Attribute[Any], value: object) -> None:
    """Refuse what is no ordinary function: nothing here may wait."""
    if is_ordinary(value) or (value is None and field.default is None):
        return
    other = {bool: "a bool or ", type(None): "None or "}.get(type(field.default), "")
    what = "is async: it must be " if callable(value) else f"cannot be called: it must be {other}"
    whose = f"the contract {owner.name}" if isinstance(owner, Contract) else f"a {type(owner).__name__}"
    raise TypeError(f"{field.name} of {whose} is {shown(value)}, which {what}an ordinary function")


def _message_type(owner: Contract[Any, Any], field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, type) or not issubclass(value, Message):
        raise TypeError(
            f"{field.name} of the contract {owner.name} is {shown(value)}, must be a class of protobuf "
            "messages"
        )


def _name(owner: Contract[Any, Any], field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{field.name} of the contract is {shown_argument(value)}, must be a str")


def _part(owner: Contract[Any, Any], field: attrs.Attribute[Any], value: object) -> None:
    kind = Negotiation if field.name == "negotiation" else HealthCheck
    if value is not None and not isinstance(value, kind):
        given = shown_argument(value)
        raise TypeError(
            f"{field.name} of the contract {owner.name} is {given}, must be a {kind.__name__} or None"
        )


def _yes_no_or_function(owner: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        _function(owner, field, value)


@attrs.frozen(kw_only=True)
class Negotiation(Generic[RequestT, ResponseT]):
    """How a client asks a server what it can do, in messages of the contract itself.

    Raises:
        TypeError: one of these is async, or no function.

    Attributes:
        ask: makes the request that asks; a new one each time.
        learn: reads the capabilities from the response. It must understand every response, also that of
            a server which does not know what it was asked.
        can_do: says whether a server of these capabilities can answer a request.
        probe: makes a request that costs a server almost nothing, whatever it answers; a new one
            each time. A client that opens a further connection sees by it whether the server has a place
            for it.
            None to use ``ask`` for each place; do so if ``ask`` is as cheap.
    """

    ask: Callable[[], RequestT] = attrs.field(validator=_function)
    learn: Callable[[ResponseT], Any] = attrs.field(validator=_function)
    can_do: Callable[[Any, RequestT], bool] = attrs.field(validator=_function)
    probe: Callable[[], RequestT] | None = attrs.field(default=None, validator=_function)


@attrs.frozen(kw_only=True)
class HealthCheck(Generic[RequestT, ResponseT]):
    """How a client asks a server whether it is well, in messages of the contract itself.

    Raises:
        TypeError: one of these is async, or no function; or there is ``is_asked`` without ``answer``.

    Attributes:
        ask: makes the request that asks; a new one each time. It must do no harm.
        says_well: says whether a response means that the server is well. It must understand every response,
            also that of a server which does not know what it was asked.
        is_asked: says whether a request is that question, for :func:`answering_health`; None where the
            program's own handlers answer it.
        answer: makes the response, from the request and whether the server is well; likewise.
    """

    ask: Callable[[], RequestT] = attrs.field(validator=_function)
    says_well: Callable[[ResponseT], bool] = attrs.field(validator=_function)
    is_asked: Callable[[RequestT], bool] | None = attrs.field(default=None, validator=_function)
    answer: Callable[[RequestT, bool], ResponseT] | None = attrs.field(default=None, validator=_function)

    def __attrs_post_init__(self) -> None:
        if (self.is_asked is None) is not (self.answer is None):
            raise TypeError("a HealthCheck has both is_asked and answer, or neither of them")

    @property
    def is_answered_here(self) -> bool:
        """Whether :func:`answering_health` can answer it."""
        return self.answer is not None


@attrs.frozen(kw_only=True)
class Contract(Generic[RequestT, ResponseT]):
    """One request type, one response type, and the rules between them.

    The values that its functions return are checked at each use: a wrong type is a
    :exc:`~trio_ipc.ContractError` that names the contract.

    Raises:
        TypeError: a field has the wrong type, or a function is async.

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
        health: how servers are asked whether they are well, None if they can't be.
    """

    name: str = attrs.field(validator=_name)
    request_type: type[RequestT] = attrs.field(validator=_message_type)
    response_type: type[ResponseT] = attrs.field(validator=_message_type)
    failure: Callable[[RequestT | None, str], ResponseT] | None = attrs.field(
        default=None, validator=_function
    )
    mismatch: Callable[[RequestT, ResponseT], str | None] = attrs.field(
        default=_never_mismatched, validator=_function
    )
    repeatable: bool | Callable[[RequestT], bool] = attrs.field(default=False, validator=_yes_no_or_function)
    negotiation: Negotiation[RequestT, ResponseT] | None = attrs.field(default=None, validator=_part)
    health: HealthCheck[RequestT, ResponseT] | None = attrs.field(default=None, validator=_part)

    def may_repeat(self, request: RequestT) -> bool:
        """Return whether it does no harm to make this request again.

        Raises:
            ContractError: :attr:`repeatable` returned no bool.
        """
        if isinstance(self.repeatable, bool):
            return self.repeatable
        return self._said("repeatable", self.repeatable(request))

    def failed_response(self, request: RequestT | None, reason: str) -> ResponseT | None:
        """Return the response that reports a failure, None if the protocol has none.

        Args:
            request: what could not be answered, None where it could not be read.
            reason: for people.

        Raises:
            ContractError: :attr:`failure` returned no response.
        """
        if self.failure is None:
            return None
        return self._made("failure", self.failure(request, reason), self.response_type)

    def capabilities_request(self) -> RequestT:
        """Return a request that asks what a server can do. There must be a :attr:`negotiation`.

        Raises:
            ContractError: its ``ask`` returned no request.
        """
        return self._made("ask", self._negotiation.ask(), self.request_type)

    @property
    def has_probe(self) -> bool:
        """Whether there is a request that only shows whether a connection has a place."""
        return self.negotiation is not None and self.negotiation.probe is not None

    def probe_request(self) -> RequestT:
        """Return a request that only shows whether a connection has a place. There must be a probe.

        Raises:
            ContractError: the negotiation's ``probe`` returned no request.
        """
        probe = self._negotiation.probe
        if probe is None:
            raise TypeError(f"the negotiation of the contract {self.name} has no probe")
        return self._made("probe", probe(), self.request_type)

    def capabilities_in(self, response: ResponseT) -> Any:
        """Return the capabilities in a response. There must be a :attr:`negotiation`.

        Raises:
            ContractError: its ``learn`` returned what is to be awaited.
        """
        learnt = self._negotiation.learn(response)
        if inspect.isawaitable(learnt):
            self._refuse("learn", learnt, "the capabilities themselves")
        return learnt

    def can_do(self, capabilities: Any, request: RequestT) -> bool:
        """Return whether a server can answer a request. There must be a :attr:`negotiation`.

        Raises:
            ContractError: its ``can_do`` returned no bool.
        """
        return self._said("can_do", self._negotiation.can_do(capabilities, request))

    def health_request(self) -> RequestT:
        """Return a request that asks whether a server is well. There must be a :attr:`health`.

        Raises:
            ContractError: its ``ask`` returned no request.
        """
        return self._made("ask", self._health.ask(), self.request_type)

    def says_well(self, response: ResponseT) -> bool:
        """Return whether a response means that the server is well. There must be a :attr:`health`.

        Raises:
            ContractError: its ``says_well`` raised something, or returned no bool.
        """
        try:
            said = self._health.says_well(response)
        except BaseException as exc:
            if ends_the_program(exc) is not None:
                raise
            raise ContractError(
                f"says_well of the contract {self.name} raised {shown(exc)}",
                hint="mend that function: it must understand every response",
            ) from exc
        return self._said("says_well", said)

    def asks_for_health(self, request: RequestT) -> bool:
        """Return whether a request asks that. There must be a :attr:`health` with an ``is_asked``.

        Raises:
            ContractError: that returned no bool.
        """
        is_asked = self._health.is_asked
        return self._said("is_asked", None if is_asked is None else is_asked(request))

    def health_response(self, request: RequestT, well: bool) -> ResponseT:
        """Return the response to that. There must be a :attr:`health` with an ``answer``.

        Raises:
            ContractError: that returned no response.
        """
        made = None if self._health.answer is None else self._health.answer(request, well)
        return self._made("answer", made, self.response_type)

    @property
    def _health(self) -> HealthCheck[RequestT, ResponseT]:
        if self.health is None:
            raise TypeError(f"the contract {self.name} has no health")
        return self.health

    @property
    def _negotiation(self) -> Negotiation[RequestT, ResponseT]:
        if self.negotiation is None:
            raise TypeError(f"the contract {self.name} has no negotiation")
        return self.negotiation

    def _made(self, function: str, returned: object, kind: type[_MessageT]) -> _MessageT:
        """Return the message that a function of the contract returned."""
        return returned if isinstance(returned, kind) else self._refuse(function, returned, kind.__name__)

    def _said(self, function: str, returned: object) -> bool:
        """Return what a function of the contract said."""
        return returned if isinstance(returned, bool) else self._refuse(function, returned, "a bool")

    def _refuse(self, function: str, returned: object, wanted: str) -> NoReturn:
        dismiss(returned)
        raise ContractError(
            f"{function} of the contract {self.name} returned {type(returned).__name__}, must be {wanted}",
            hint="mend that function",
        )

    def decode_request(self, payload: bytes | bytearray) -> RequestT:
        """Return the request in a payload.

        Raises:
            UndecodableMessageError: the payload is no such message.
        """
        try:
            return self.request_type.FromString(payload)  # type: ignore[arg-type]  # the stub says bytes
        except Exception as exc:  # noqa: BLE001 - judged there
            return _decoded_after(exc, self.request_type, payload)

    def decode_response(self, payload: bytes | bytearray) -> ResponseT:
        """Return the response in a payload.

        Raises:
            UndecodableMessageError: the payload is no such message.
        """
        try:
            return self.response_type.FromString(payload)  # type: ignore[arg-type]  # the stub says bytes
        except Exception as exc:  # noqa: BLE001 - judged there
            return _decoded_after(exc, self.response_type, payload)

    def decode_answer(self, request: RequestT, payload: bytes | bytearray) -> ResponseT:
        """Return the response in a payload, if it answers this request.

        Raises:
            UndecodableMessageError: the payload is no such message.
            ResponseMismatchError: it answers another request, as far as :attr:`mismatch` can tell.
            ContractError: :attr:`mismatch` returned neither a str nor None.
        """
        response = self.decode_response(payload)
        try:
            mismatch = self.mismatch(request, response)
        except StopIteration as exc:  # which a loop over responses would take for its own end
            raise RuntimeError(f"mismatch of the contract {self.name} raised StopIteration") from exc
        if mismatch is not None:
            if not isinstance(mismatch, str):
                self._refuse("mismatch", mismatch, "a str that says why, or None")
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
            f"contract is {shown_argument(given)}, must be a Contract: the message types and what a failure "
            "becomes"
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


def _decoded_after(exc: Exception, kind: type[_MessageT], payload: bytes | bytearray) -> _MessageT:
    """Return the message that this exception kept from being read, or raise what says why there is none."""
    if not isinstance(payload, bytes):  # as channels give; runtimes before 5.27 refuse a bytearray
        with suppress(Exception):
            return kind.FromString(bytes(payload))
    # A decoder in Python raises more than DecodeError, such as UnicodeDecodeError.
    raise UndecodableMessageError(
        f"a payload of {len(payload)} {plural(len(payload), 'byte')} does not decode as "
        f"{kind.DESCRIPTOR.full_name}: {exc}",
        hint="the two sides disagree on the contract",
    ) from exc
