"""CRC-32C (Castagnoli), by the best library that is there.

Both transports take it from here; IEEE, the default variant, is in the standard library and needs nothing of
this. docs/compatibility.md says what each platform has. This module must never prefer its own code to a
library's: it computes itself only where there is none, and says so.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Final, TypeAlias

#: ``crc32c(data, before=0)``: the checksum of ``data``, going on from ``before``.
Crc32c: TypeAlias = Callable[..., int]

#: 0x1EDC6F41 (RFC 3720, 12.1) with its bits in reverse, as the least significant bit of a byte comes first.
_POLYNOMIAL: Final = 0x82F63B78

_SLOW: Final = (
    "CRC-32C is computed in Python, which takes about 0.2 s for each MiB and keeps every other task waiting "
    "meanwhile: fastcrc cannot be imported, nor google-crc32c with its C part. Install one of them, or set "
    'crc32_variant to "ieee" on both sides.'
)


@functools.cache  # to find that a library is missing takes longer than the checksum of a small message
def crc32c() -> Crc32c:
    """Return the function that computes CRC-32C. Warns once, where it has to be Python's own.

    Returns:
        A function ``(data: bytes, before: int = 0) -> int``; check value ``e3069283`` (RFC 3720, B.4).
    """
    for find in (_by_fastcrc, _by_google):
        found = find()
        if found is not None:
            return found
    warnings.warn(_SLOW, RuntimeWarning, stacklevel=2)
    return _in_python(_table())


def _by_google() -> Crc32c | None:
    with warnings.catch_warnings():
        # It warns where it has no C part; it is then slower than what is below.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            import google_crc32c  # noqa: PLC0415
        except ImportError:
            return None
    if google_crc32c.implementation != "c":
        return None
    extend = google_crc32c.extend

    def by_google(data: bytes, before: int = 0) -> int:
        crc: int = extend(before, data)
        return crc

    return by_google


def _by_fastcrc() -> Crc32c | None:
    try:
        from fastcrc.crc32 import iscsi  # noqa: PLC0415
    except ImportError:
        return None
    return iscsi


def _in_python(table: list[int]) -> Crc32c:
    def in_python(data: bytes, before: int = 0) -> int:
        crc = before ^ 0xFFFF_FFFF
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
        return crc ^ 0xFFFF_FFFF

    return in_python


def _table() -> list[int]:
    """Return the remainder of each byte."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)  # noqa: PLW2901
        table.append(crc)
    return table
