"""How calls fail: what it is called, what hint goes with it, and what a server said before it closed.

This module must never wait for a server: it takes what has come.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.contract import Contract
from trio_ipc.errors import (
    CallTimeoutError,
    ChannelClosedError,
    ChannelError,
    ChecksumMismatchError,
    IpcError,
    MessageError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    TurnTimeoutError,
    UnsolicitedResponseError,
    WriteTimeoutError,
    shown,
)
from trio_ipc.telemetry import CallFailure
from trio_ipc.transports import PeerState

_CLOSED_FIRST: Final = (
    "it may be over its connection limit or stopping, or refuse this user: see its log; or it does not "
    "understand: compare crc32_variant, max_frame_bytes and the contract of both sides"
)
_CLOSED_LATER: Final = (
    "it may be stopping or gone, or this client was idle for longer than its read_timeout_ms: "
    "open a new client"
)

_FAILURES: Final[tuple[tuple[type[BaseException], CallFailure], ...]] = (
    (MessageError, CallFailure.REQUEST_UNSENDABLE),
    (TurnTimeoutError, CallFailure.TURN_TIMEOUT),
    (CallTimeoutError, CallFailure.CALL_TIMEOUT),
    (WriteTimeoutError, CallFailure.WRITE_TIMEOUT),
    (ReadTimeoutError, CallFailure.READ_TIMEOUT),
    (PeerClosedError, CallFailure.PEER_CLOSED),
    (ProtocolError, CallFailure.PROTOCOL_ERROR),
    (ChannelClosedError, CallFailure.CLOSED),
    (trio.Cancelled, CallFailure.CANCELLED),
)

#: What to do where calls wait too long for their turn.
_TOO_MANY: Final = "open more clients, or make fewer calls at a time"

#: Stands in a call's error before its own limit.
_LIMIT: Final = "; the limit timeout is "

#: How the error begins of a call on a connection that was closed before anything was sent.
CLOSED_BEFORE: Final = "the server had closed the connection"

#: What stands in an error before a server's own words.
SAID: Final = "; it said: "

#: Characters of a peer's own words that go into an error.
_LONGEST_QUOTE: Final = 1_000


def kind_of(exc: BaseException) -> CallFailure:
    """Return what a call that ended by this exception counts as."""
    return next((kind for family, kind in _FAILURES if isinstance(exc, family)), CallFailure.OTHER)


def told(exc: BaseException) -> str:
    """Return the words of an exception for another one's message."""
    if isinstance(exc, trio.Cancelled):
        return "it was cancelled"
    return exc.message if isinstance(exc, IpcError) else shown(exc)


def why_closed(contract: Contract[Any, Any] | None, *, answered: bool) -> str:
    """Return a hint at why a server closed without a word, as other implementations do.

    Args:
        contract: by which a request was in flight, which may be why; None if there was none.
        answered: whether it had answered anything on this connection. What it means depends on that.
    """
    others = _CLOSED_LATER if answered else _CLOSED_FIRST
    if contract is None or contract.failure is not None:
        return others
    return (
        f"its handler may have failed, which its log tells: the contract {contract.name} has no failure, and "
        f"so the connection is closed instead; or {others}"
    )


def for_another(reason: BaseException, endpoint: str, *, unsent: bool) -> IpcError:
    """Return what a call is told on whose connection another one has met an error.

    Args:
        reason: what ended the connection.
        endpoint: where it leads.
        unsent: whether the server cannot have got this call's request.
    """
    note = "; the server did not get this request" if unsent else ""
    if isinstance(reason, ChannelError | UnsolicitedResponseError):
        # A new one each, for a traceback of its own.
        error: IpcError = type(reason)(reason.message + note, endpoint=endpoint, hint=reason.hint)
    else:
        said = f"a response ahead of this one could not be trusted: {told(reason)}{note}"
        hint = reason.hint if isinstance(reason, ProtocolError) else ""
        error = ChannelClosedError(said, endpoint=endpoint, hint=_and_open_a_new_client(hint))
    error.__cause__ = reason
    return error


def _and_open_a_new_client(hint: str) -> str:
    return f"{hint}; open a new client" if hint else "open a new client"


# --- The call's own deadline ---


def call_timed_out(doing: str, endpoint: str, *, hint: str = "") -> CallTimeoutError:
    """Return the error of a call whose deadline passed.

    Args:
        doing: what it was at.
        endpoint: where the connection leads.
        hint: what to do about it.
    """
    return CallTimeoutError(
        f"the call timed out {doing}",
        endpoint=endpoint,
        hint=hint or "see what the server does, or allow more time",
    )


def no_turn(endpoint: str, ahead: str, limit: float | None = None) -> IpcError:
    """Return the error of a call whose turn has not come.

    Args:
        endpoint: where the connection leads.
        ahead: which calls it was behind.
        limit: seconds that it had by ``read_timeout_ms``; None where its own deadline passed.
    """
    doing = f"waiting for a turn behind {ahead}"
    if limit is None:
        return call_timed_out(f"{doing}; nothing was sent", endpoint, hint=_TOO_MANY)
    return TurnTimeoutError(
        f"timed out {doing}, the limit read_timeout_ms is {limit * 1000:.0f}",
        endpoint=endpoint,
        hint=_TOO_MANY,
    )


def no_further_turn(endpoint: str, which: str) -> CallTimeoutError:
    """Return the error of many calls of which all were answered that had had their turn by the deadline."""
    return call_timed_out(f"waiting for a turn for {which}; it was not sent", endpoint, hint=_TOO_MANY)


def unsent_timed_out(endpoint: str, which: str = "the request") -> CallTimeoutError:
    """Return the error of a call whose deadline passed before its request was sent."""
    return call_timed_out(
        f"before {which} was sent", endpoint, hint="see whether the server is stuck: it does not read"
    )


def answer_timed_out(endpoint: str, which: str = "the response") -> CallTimeoutError:
    """Return the error of a call whose deadline passed after its request was sent."""
    return call_timed_out(f"waiting for {which}; whether the server did the work is not known", endpoint)


def sending_timed_out(endpoint: str, which: str = "the request") -> CallTimeoutError:
    """Return the error of a call whose deadline passed while its request was sent."""
    return call_timed_out(
        f"while {which} was sent", endpoint, hint="see whether the server is stuck: it does not read"
    )


def add_limit(exc: BaseException, timeout: float | None) -> None:
    """Say in a call's error which limit it was, where it was the call's own."""
    if isinstance(exc, CallTimeoutError) and timeout is not None:
        # A call that tries twice gives each try the rest of its own limit, which its caller knows.
        exc.message = f"{exc.message.partition(_LIMIT)[0]}{_LIMIT}{timeout:g} s"


# --- What a server said that nobody had asked for ---


async def closing_response(channel: Channel, contract: Contract[Any, Any]) -> str:
    """Return what a server that has closed said before that, for an error's message; ``""`` if nothing.

    A peer that refuses a frame half-way says why before it closes. That is worth more than the broken pipe.
    """
    try:
        return words(contract, await channel.receive(deadline=trio.current_time()))
    except ChecksumMismatchError as exc:
        return "" if exc.peer_variant is None else f"; what it said cannot be read: {exc.message}; {exc.hint}"
    except (IpcError, trio.TooSlowError):
        return ""


def words(contract: Contract[Any, Any], payload: bytes) -> str:
    """Return what a payload says, for an error's message; ``""`` if that cannot be read."""
    # Imported where they are used: rarely.
    from google.protobuf.text_format import MessageToString  # noqa: PLC0415

    from trio_ipc.errors import escape  # noqa: PLC0415

    try:
        message = contract.decode_response(payload)
    except ProtocolError:
        return ""
    return f"{SAID}{escape(MessageToString(message, as_one_line=True), _LONGEST_QUOTE)}"


def closed_while_sending(
    contract: Contract[Any, Any], closed: IpcError, said: str, *, answered: bool, which: str = ""
) -> PeerClosedError:
    """Return the error for a server that closed while something was sent to it.

    Args:
        contract: by which it was sent.
        closed: how the channel told it, for the endpoint.
        said: its :func:`closing_response`.
        answered: whether it had answered anything on this connection.
        which: what was sent, where that is not the request of one call.
    """
    error = PeerClosedError(
        f"the server closed the connection while {which or 'the request'} was sent{said}",
        endpoint=closed.endpoint,
        hint="open a new client" if said else why_closed(contract, answered=answered),
    )
    error.__cause__ = closed
    return error


async def not_reusable(
    channel: Channel, contract: Contract[Any, Any], *, answered: bool, unsent: str = "nothing was sent"
) -> IpcError:
    """Return what is wrong with a connection that is not reusable though no response is waited for.

    Args:
        channel: the connection. It cannot be used after this.
        contract: to read what has come.
        answered: whether the server had answered anything on it.
        unsent: what this leaves unsent.

    Returns:
        A :exc:`~trio_ipc.PeerClosedError` if the server has closed, with its final failed response if there
        was one; a :exc:`~trio_ipc.UnsolicitedResponseError` if it sent what nobody had asked for.
    """
    came = "an unsolicited response came before this request"
    try:
        payload = await channel.receive(deadline=trio.current_time())
    except PeerClosedError as exc:
        return _closed_before(channel, exc, "", unsent, answered=answered)
    except ProtocolError as exc:
        return _unsolicited(channel, came, f"; it cannot be read: {exc.message}", unsent, exc)
    except trio.TooSlowError:
        return _unsolicited(channel, came, "; it is not whole", unsent)
    except IpcError as exc:
        return exc
    return _answer_nobody_asked_for(channel, came, words(contract, payload), unsent)


def more_than_asked(channel: Channel, contract: Contract[Any, Any], *, unsent: str = "") -> IpcError:
    """Return what is wrong with a connection that has more in hand than the responses that were asked for.

    Takes and returns what :func:`not_reusable` does, without a wait.
    """
    came = "an unsolicited response came with the last one"
    try:
        payloads = channel.receive_nowait(1)
    except ProtocolError as exc:
        return _unsolicited(channel, came, f"; it cannot be read: {exc.message}", unsent, exc)
    if not payloads:
        return _unsolicited(channel, came, "; it is not whole", unsent)
    return _answer_nobody_asked_for(channel, came, words(contract, payloads[0]), unsent)


def _answer_nobody_asked_for(channel: Channel, came: str, said: str, unsent: str) -> IpcError:
    if channel.peer_state() in (PeerState.GONE, PeerState.HALF_CLOSED):
        return _closed_before(channel, None, said, unsent, answered=True)
    return _unsolicited(channel, came, said, unsent)


def _closed_before(
    channel: Channel, cause: Exception | None, said: str, unsent: str, *, answered: bool
) -> PeerClosedError:
    error = PeerClosedError(
        f"{CLOSED_BEFORE}{said}" + (f"; {unsent}" if unsent else ""),
        endpoint=channel.endpoint,
        hint="open a new client" if said else why_closed(None, answered=answered),
    )
    error.__cause__ = cause
    return error


def _unsolicited(
    channel: Channel, came: str, said: str, unsent: str, cause: Exception | None = None
) -> UnsolicitedResponseError:
    hint = "see whether the server answers some requests twice; open a new client"
    if isinstance(cause, ChecksumMismatchError):
        hint = _and_open_a_new_client(cause.hint)
    error = UnsolicitedResponseError(
        came + said + (f"; {unsent}" if unsent else ""), endpoint=channel.endpoint, hint=hint
    )
    error.__cause__ = cause
    return error
