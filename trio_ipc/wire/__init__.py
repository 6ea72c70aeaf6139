"""The frame format, sans-I/O: bytes in, payloads out.

Nothing in this package imports trio, opens anything or knows a clock; a test of it needs bytes alone.
"""

from .checksum import Checksum, check_libraries, checksum_for
from .framing import HEADER_BYTES, FrameDecoder, FrameEncoder

__all__ = ["HEADER_BYTES", "Checksum", "FrameDecoder", "FrameEncoder", "check_libraries", "checksum_for"]
