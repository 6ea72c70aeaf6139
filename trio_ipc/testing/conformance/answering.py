"""What every play of a server builds on: the judgement of each request, and good responses to it.

This module must never send anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from trio_ipc.config import AUTO, Crc32Variant, IpcConfig
from trio_ipc.contract import Contract, encode
from trio_ipc.errors import MessageEmptyError, UndecodableMessageError
from trio_ipc.testing.checking import returned_message

from .frames import End, Frame, RawConnection, framed, padded
from .rules import Notes

#: What a good response says where the contract has a failure and nobody gave a better one.
_SAID = "trio-ipc check answers everything like this"


@attrs.frozen
class Asked:
    """A request that came.

    Attributes:
        request: the message.
        variant: the checksum variant of its frame, in which it is answered.
        first: whether it is the first one of its connection.
    """

    request: Any
    variant: Crc32Variant
    first: bool

    def framed(self, payload: bytes) -> bytes:
        """Return the frame of a response to it."""
        return framed(payload, self.variant)


class Answering:
    """A server by hand, for one client or several.

    Args:
        contract: the message types.
        config: the limits and deadlines that the client is said to have.
        patience: seconds in which it has to close where it must.
        wait: seconds in which it may ask again.
        answer: makes a good response, None for the contract's failure.
        notes: where findings go.

    Attributes:
        contract, config, patience, wait, notes: as given.
        answer_within: seconds in which a response can be handed over.
        stays: whether some client was seen to ask more than once on a connection.
    """

    def __init__(
        self,
        contract: Contract[Any, Any],
        config: IpcConfig,
        *,
        patience: float,
        wait: float,
        answer: Callable[[Any], Any] | None,
        notes: Notes,
    ) -> None:
        self.contract = contract
        self.config = config
        self.patience = patience
        self.wait = wait
        self.notes = notes
        self.answer_within = config.read_timeout_ms / 1000
        self.stays = False
        self._answer = answer

    def response_to(self, request: Any) -> bytes:
        """Return the payload of a good response; to None, of one to a request that could not be read.

        Raises:
            MessageEmptyError: the given ``answer`` made a message of no bytes.
            TypeError: it made no response of the contract.
        """
        if self._answer is not None and request is not None:
            response = returned_message("answer", self._answer(request), self.contract.response_type)
            payload = encode(response)
            if not payload:
                raise MessageEmptyError(
                    "the response encodes to no bytes, which no frame can carry", hint="set a field in it"
                )
            return payload
        failed = self.contract.failed_response(request, _SAID)
        payload = b"" if failed is None else encode(failed)
        # Of a message without a field at all, one that a decoder skips.
        return payload or padded(b"", 8) or b""

    def judge(self, frame: Frame, connection_variant: Crc32Variant | None) -> Asked | None:
        """Note what a request shows of C1 to C4; None where it cannot be answered.

        Args:
            frame: the request.
            connection_variant: that of the requests before it, None for the first.
        """
        notes = self.notes
        problem = frame.problem_of_length
        if problem is not None:
            notes.broken("C1", f"{problem}; the limit max_frame_bytes is {self.config.max_frame_bytes:,}")
            return None
        notes.kept("C1", f"a request of {frame.length:,} bytes")
        problem = frame.problem_of_checksum
        if problem is not None:
            notes.broken("C2", problem)
        else:
            notes.kept("C2", f"the checksum is right, as {frame.variant}")
        variant = self._judge_variant(frame, connection_variant)
        try:
            request = self.contract.decode_request(frame.payload)
        except UndecodableMessageError as exc:
            notes.broken("C4", exc.message)
            return None
        notes.kept("C4", f"it is a {self.contract.request_type.DESCRIPTOR.full_name}")
        return Asked(request, variant, connection_variant is None)

    def _judge_variant(self, frame: Frame, before: Crc32Variant | None) -> Crc32Variant:
        notes, setting = self.notes, self.config.crc32_variant
        variant = frame.variant
        if variant is None:
            return before or (Crc32Variant.IEEE if setting == AUTO else setting)
        if before is not None and variant is not before:
            notes.broken("C3", f"a request in {variant} came after one in {before}")
        elif setting not in {AUTO, variant}:
            notes.broken("C3", f"it speaks {variant}, the setting crc32_variant is {setting}")
        else:
            notes.kept("C3", f"it speaks {variant}")
        return variant

    def judge_end(self, end: End, connection: RawConnection, *, first: bool) -> None:
        """Note what it shows of C1 that a connection ended where a request was due."""
        if end is End.PART or (end is End.CUT and first):
            self.notes.broken("C1", f"there came {connection.partial}, and then {end.value}")
