"""How a client sees that its server speaks the other checksum variant, and what its user is told.

Words and judgements only. This module must never connect, or call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from trio_ipc.config import Crc32Variant
from trio_ipc.contract import OTHER_VARIANT, Contract
from trio_ipc.errors import ChecksumMismatchError, IpcError, PeerClosedError, ResponseMismatchError

from .failures import CLOSED_BEFORE, SAID


def means_other_variant(exc: IpcError, *, answered: bool) -> bool:
    """Return whether a call may have ended by this because of its frame's checksum.

    Args:
        exc: what it ended by.
        answered: whether the server had answered anything on the connection.
    """
    if answered:
        return False
    if isinstance(exc, ChecksumMismatchError):
        return exc.peer_variant is not None
    if isinstance(exc, ResponseMismatchError):
        return OTHER_VARIANT in exc.message
    if not isinstance(exc, PeerClosedError) or exc.message.startswith(CLOSED_BEFORE):
        return False
    return SAID not in exc.message or OTHER_VARIANT in exc.message


def says_other_variant(response: Message) -> bool:
    """Return whether a response is the refusal of a server that is set to the other variant."""
    # A server's own words stand in whichever field the contract has for them.
    return OTHER_VARIANT.encode() in response.SerializePartialToString()


def notices_refusal(contract: Contract[Any, Any]) -> Callable[[Any, Any], str | None]:
    """Return a contract's ``mismatch`` that refuses such a refusal as a response, if it comes first."""
    is_first = True

    def mismatch(request: Any, response: Any) -> str | None:
        nonlocal is_first
        was_first, is_first = is_first, False
        if was_first and says_other_variant(response):
            return f"the server refuses: {OTHER_VARIANT} not its own"
        return contract.mismatch(request, response)

    return mismatch


def both_failed(hint: str) -> str:
    """Return the hint of a call that was tried in both variants.

    Args:
        hint: what is known besides.
    """
    return f"ieee and castagnoli were both tried, as crc32_variant is auto: {hint}"


def untried(variant: Crc32Variant) -> str:
    """Return the hint of a call that must not be made again.

    Args:
        variant: the one that it was made in.
    """
    return (
        f"the server may speak the {variant.other} variant: crc32_variant is auto, and no request is known "
        f"to do no harm if it is tried twice, so that only {variant} was tried; set crc32_variant to the "
        "server's"
    )
