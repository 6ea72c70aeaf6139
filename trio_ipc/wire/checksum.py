"""The two CRC-32 variants of the wire, each by the quickest that is there.

docs/compatibility.md has what each platform has, and what it costs. This module must never implement a
polynomial itself.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import TypeAlias

from trio_ipc.castagnoli import crc32c
from trio_ipc.config import AUTO, Crc32Setting, Crc32Variant

#: ``checksum(data, value=0)``: the CRC-32 of ``data``, going on from ``value``.
#: ``data`` is ``bytes``; google-crc32c takes nothing else.
Checksum: TypeAlias = Callable[..., int]


@functools.cache  # to find that a library is missing takes longer than the checksum of a small message
def checksum_for(variant: Crc32Variant) -> Checksum:
    """Return the checksum function of a variant.

    Args:
        variant: IEEE (polynomial 0x04C11DB7, check value ``cbf43926``) or Castagnoli (0x1EDC6F41,
            check value ``e3069283``); RFC 3720 appendix B.4 gives the latter.

    Returns:
        A function ``(data: bytes, value: int = 0) -> int``, where ``value`` is the checksum of what
        came before.
    """
    # Each library is imported only where it is asked for: an agent needs one of them.
    if variant is Crc32Variant.CASTAGNOLI:
        return crc32c()
    try:
        from fastcrc.crc32 import iso_hdlc  # noqa: PLC0415
    except ImportError:
        return zlib.crc32
    return iso_hdlc


def first_guess(setting: Crc32Setting) -> Crc32Variant:
    """Return the variant to begin with: of ``auto`` the ADR's default."""
    return Crc32Variant.IEEE if setting == AUTO else setting


def load_libraries(setting: Crc32Setting) -> None:
    """Load what a setting needs, so that no connection has to wait for it."""
    for variant in Crc32Variant if setting == AUTO else (setting,):
        checksum_for(variant)
