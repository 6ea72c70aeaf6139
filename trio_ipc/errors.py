"""The exceptions of this package.

Callers catch :class:`IpcError` or the precise subclass. Every message says what happened, where (the
endpoint), the value and the limit where there is one, and what to do next; the exception that caused it
is chained. This module imports nothing of the project and must never do any I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final


class IpcError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: what happened, with the value and the limit where there is one.
        endpoint: the socket path or pipe name it happened at, if it is known.
        hint: what the reader can do about it.

    Attributes:
        message, endpoint, hint: as given. ``endpoint`` may be filled in later by a layer that knows it
            (the wire codec, for one, never does); ``str(error)`` puts the three together.
        responses: the responses before the error, if it ended a :meth:`Client.call_many`.
    """

    def __init__(self, message: str, *, endpoint: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.endpoint = endpoint
        self.hint = hint
        self.responses: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Give ``endpoint: message; hint``, leaving out what is not known."""
        where = f"{self.endpoint}: " if self.endpoint else ""
        advice = f"; {self.hint}" if self.hint else ""
        return writable(f"{where}{self.message}{advice}")


class ConfigError(IpcError, ValueError):
    """A setting has a wrong value or an unknown name; nothing was started.

    Attributes:
        field: the setting with the wrong value, or None if the error is another.
    """

    field: str | None = None


class ContractError(IpcError, TypeError):
    """A function of a contract returned what it must not. This is a mistake of the program, and not of a
    server.

    If the response to a call causes it, the server has done the work. The connection is closed.
    """


# --- Setting up an endpoint (server side) ---------------------------------------------------------------


class EndpointError(IpcError):
    """The server cannot listen at this endpoint."""


class EndpointInUseError(EndpointError):
    """Another live server owns the endpoint. It is left alone.

    Attributes:
        pid: the process that listens there, or None where the system does not tell.
    """

    pid: int | None = None


class EndpointUnsafeError(EndpointError):
    """The path is something that must not be touched or trusted.

    A file that is no socket, a symbolic link, or a directory that others can write.
    """


# --- Connecting (client side) -----------------------------------------------------------------------------


class ConnectError(IpcError):
    """No connection could be made; nothing was sent."""


class ServerNotFoundError(ConnectError):
    """Nothing exists at the endpoint."""


class ServerRefusedError(ConnectError):
    """The endpoint exists, but nobody listens there (a server that crashed, for one)."""


class EndpointPermissionError(ConnectError):
    """The system forbids this process to connect."""


class OutOfResourcesError(ConnectError):
    """This process or system has too few descriptors or handles, or too little memory, for a connection.

    It is no failure of the server.
    """


class ConnectTimeoutError(ConnectError):
    """The server did not take the connection within ``accept_timeout_ms``."""


class PeerNotAllowedError(ConnectError):
    """The process at the other end runs as a user that the peer policy does not allow."""


# --- An open connection ----------------------------------------------------------------------------


class ChannelError(IpcError):
    """A connection ended early. It is closed."""


class PeerClosedError(ChannelError):
    """The peer closed the connection between two frames."""


class ChannelClosedError(ChannelError):
    """This side closed the connection earlier; open a new one."""


class ReadTimeoutError(ChannelError):
    """No whole frame came within ``read_timeout_ms``."""


class WriteTimeoutError(ChannelError):
    """A frame could not be handed over within ``write_timeout_ms``."""


class TurnTimeoutError(IpcError):
    """The calls ahead on the same client took longer than ``read_timeout_ms``; nothing was sent."""


# --- The protocol ------------------------------------------------------------------------------------------


class ProtocolError(IpcError):
    """The peer broke the wire protocol; its byte stream cannot be trusted any longer."""


class InvalidLengthError(ProtocolError):
    """A header announced a payload of no bytes."""


class FrameTooLargeError(ProtocolError):
    """A header announced more than ``max_frame_bytes``. Judged from the header alone."""


class ChecksumMismatchError(ProtocolError):
    """A payload does not have the checksum that its header promised.

    Attributes:
        peer_variant: the ``crc32_variant`` by which it does, where it is the first frame of its connection:
            the peer is set to that one. None for damage.
    """

    peer_variant: str | None = None


class TruncatedFrameError(ProtocolError):
    """The peer closed inside a frame."""


class UndecodableMessageError(ProtocolError):
    """A payload is not a message of the contract's type."""


class ResponseMismatchError(ProtocolError):
    """A response answers another request than the one that was made."""


class UnsolicitedResponseError(ProtocolError):
    """The server sent an unsolicited response; otherwise later responses would go to the wrong calls.

    The client notices it before it sends a request, or with the response to the last one. The message quotes
    a response that is complete.
    """


# --- A message that cannot be sent -------------------------------------------------------------------------


class MessageError(IpcError):
    """A message cannot go into a frame. Nothing was sent and the connection is still good."""


class MessageEmptyError(MessageError):
    """The message encodes to no bytes, and a frame of no bytes is invalid on the wire."""


class MessageTooLargeError(MessageError):
    """The message is larger than ``max_frame_bytes``.

    Attributes:
        size: bytes that it encodes to.
        limit: the ``max_frame_bytes`` in force.
    """

    size: int = 0
    limit: int = 0


# --- A call ------------------------------------------------------------------------------------------------


class CallError(IpcError):
    """A call has no response, for one reason or several.

    Attributes:
        attempts: the errors of a resilient client's attempts, in order. Empty if there was none.
    """

    attempts: tuple[IpcError, ...] = ()


class AttemptsFailedError(CallError):
    """All attempts failed. Their errors are in ``attempts``; their cause is an :exc:`ExceptionGroup`."""


class CallTimeoutError(CallError):
    """The ``timeout`` of a call passed. Whether a server did the work is not known, unless it says so.

    The message says what the call was waiting for. That of a resilient client says how long each step took,
    and ``endpoint`` is the one that took longest.
    """


class CircuitOpenError(CallError):
    """The circuit breakers of all servers are open, because of recent failures; nothing was sent.

    Attributes:
        retry_after: seconds until another call may succeed; always more than 0. While one call tries the
            server for all others, it lasts until that call's deadline, at most ``breaker_reset_ms``.
    """

    retry_after: float = 0.0


class NoEndpointError(CallError):
    """The client has no endpoint to ask; nothing was sent."""


class PoolTimeoutError(CallError):
    """No connection became free in time; the limits allow no further one. Nothing was sent."""


# --- Values in messages ------------------------------------------------------------------------------------


#: Characters of a wrong value that a message shows: more than the longest path of a socket.
_LONGEST_VALUE: Final = 150


#: Characters of an argument that an error shows whole.
_LONGEST_ARGUMENT: Final = 80


def shown(value: object) -> str:
    """Return a value as Python writes it, for an error that says what is wrong with it.

    What is long is cut. What can't be written at all is told by its kind: Python refuses to write out a
    number of more than 4,300 digits, and a value of somebody else's class may raise anything.
    """
    if isinstance(value, int) and value.bit_length() > 4 * _LONGEST_VALUE:
        return f"a number of about {value.bit_length() * 3 // 10:,} digits"  # log10(2) is 0.301
    try:
        text = repr(value)
    except BaseException as broken:  # a class of the caller's
        if ends_the_program(broken) is not None:
            raise
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text):,} characters)"


def shown_argument(value: object) -> str:
    """Return a wrong argument for an error: as Python writes it if that is short, else only its kind.

    Arguments in the wrong order are whole objects: a page of settings would hide what is wrong with them.
    """
    text = shown(value)
    if len(text) <= _LONGEST_ARGUMENT:
        return text
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def plural(number: int, noun: str) -> str:
    """Return a noun as it stands behind this number."""
    return noun if number == 1 else f"{noun}s"


# --- What other people's code raises ---------------------------------------------------------------------


def leaves(exc: BaseException) -> list[BaseException]:
    """Return the exceptions of a group, however deep, in their order; an exception by itself is its own."""
    found, left = [], [exc]
    while left:  # and not by recursion: a group may be deeper than Python's stack
        one = left.pop()
        inner = _exceptions_in(one)
        if inner is None:
            found.append(one)
        else:
            left += reversed(inner)
    return found


def _exceptions_in(exc: BaseException) -> Sequence[BaseException] | None:
    """Return what a group holds; None of what is none, or is of a user's class that refuses to tell."""
    try:
        return exc.exceptions if isinstance(exc, BaseExceptionGroup) else None
    except Exception:  # noqa: BLE001 - as said
        return None


def ends_the_program(exc: BaseException) -> BaseException | None:
    """Return the exception in this one that nobody but the program may catch, or None.

    KeyboardInterrupt is the user's wish to end it, SystemExit its own. Other code's failures need be no
    :exc:`Exception`: PyO3's panic is none, nor is asyncio's ``CancelledError``. A function that awaits such
    code has to let Trio's ``Cancelled`` pass as well.
    """
    wanted = (KeyboardInterrupt, SystemExit)
    return next((leaf for leaf in leaves(exc) if isinstance(leaf, wanted)), None)


# --- Names of files ---------------------------------------------------------------------------------------


def writable(text: str) -> str:
    r"""Return a text that can be written as UTF-8, with bytes of a path that are none as ``\udcff``.

    Python keeps such bytes as lone surrogates (PEP 383), which no file, socket or terminal takes.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# --- A peer's own words -----------------------------------------------------------------------------------
#
# They may be shown on a terminal: they must not colour it, move its cursor, begin a line of their
# own, or turn the order of what stands around them (Unicode's bidirectional controls).


#: Characters of a line that a command writes to standard error.
_LONGEST_LINE: Final = 4_000


def escape(text: str, longest: int) -> str:
    r"""Return a text on one line, cut, with what is not printable as ``\n``, ``\x1b`` or ``\u202e``.

    Quotes and backslashes stay as they are.

    Args:
        text: what a peer sent.
        longest: characters of it to keep. Each that is escaped takes up to ten.
    """
    kept = text if len(text) <= longest else f"{text[:longest]} ..."
    if kept.isprintable():
        return kept
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in kept)


def one_line(text: str) -> str:
    """Return a text from elsewhere on one line, cut, without what could steer a terminal."""
    return escape(writable(text), _LONGEST_LINE)


def quote(text: str, longest: int) -> str:
    """Return a text like :func:`escape`, as Python would write it: in quotes, which no text can leave."""
    return repr(text if len(text) <= longest else f"{text[:longest]}...")
