"""What goes back to a client: the payload of a handler's response, or of the failure that stands for it.

A contract's functions are users' code and are fenced here. This module must never raise anything of theirs,
and never send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Generic

from trio_ipc.channel import Channel
from trio_ipc.contract import RESPONSE_TOO_LARGE, Contract, RequestT, ResponseT, encode
from trio_ipc.errors import MessageEmptyError, MessageError, MessageTooLargeError, ends_the_program
from trio_ipc.logs import LimitedLog

#: Characters of an exception that go to the client; the whole of it is in the log.
_LONGEST_REASON: Final = 1_000


class UnsendableError(Exception):
    """A response cannot be sent, for the reason that is its text. Never leaves the server."""


class Responses(Generic[RequestT, ResponseT]):
    """Makes payloads for one connection.

    Args:
        contract: the message types, and what a failure becomes.
        channel: where they go, which says what fits into a frame.
        failures: where to log what could not be made.
        fields: of its log entries.
    """

    def __init__(
        self,
        contract: Contract[RequestT, ResponseT],
        channel: Channel,
        failures: LimitedLog,
        fields: Mapping[str, object],
    ) -> None:
        self._contract = contract
        self._kind = contract.response_type
        self._check = channel.check
        self._largest = channel.max_frame_bytes
        self._log = failures
        self._fields = fields

    def payload(self, response: object) -> bytes:
        """Return the payload of what a handler returned.

        Raises:
            UnsendableError: it cannot be sent.
            TypeError: it is no response.
        """
        if not isinstance(response, self._kind):
            raise TypeError(f"the handler returned {type(response).__name__}, must be {self._kind.__name__}")
        try:
            payload = encode(response)
            if not 0 < len(payload) <= self._largest:
                self._check(payload)  # says what is wrong with it
            return payload
        except MessageTooLargeError as exc:
            reason = f"{RESPONSE_TOO_LARGE}: {exc.size} bytes, the limit max_frame_bytes is {exc.limit}"
            exc.__traceback__ = None  # the frame that made the error knows it, and would keep the response
        except MessageEmptyError:
            reason = "the handler's response encodes to no bytes, which the wire cannot carry"
        except MessageError as exc:
            reason = f"the handler's response cannot be sent: {exc.message}"
        # Outside of the block: the error's frames would keep the response.
        raise UnsendableError(reason)

    def failure(self, request: RequestT | None, reason: str) -> bytes | None:
        """Return the payload that reports a failure, or None where there can be none; why not is logged.

        Args:
            request: what could not be answered, None where it could not be read.
            reason: for people.
        """
        # An exception's text may hold what is no Unicode (a file name of arbitrary bytes); protobuf
        # would refuse that.
        reason = reason[:_LONGEST_REASON].encode("utf-8", "replace").decode()
        try:
            response = self._contract.failed_response(request, reason)
            if response is None:
                return None
            payload = encode(response)
            self._check(payload)
            return payload
        except MessageError as exc:
            self._log.write("a failed response cannot be sent: %s", exc.message, extra=self._fields)
        except BaseException as exc:
            if ends_the_program(exc) is not None:
                raise
            said = "the contract made no failed response of: %s"
            self._log.write(said, reason, extra=self._fields, exc_info=exc)
        return None
