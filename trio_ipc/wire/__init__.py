"""The frame format, sans-I/O: bytes in, payloads out.

Nothing in this package imports trio, opens anything or knows a clock; a test of it needs bytes alone.
"""

from .checksum import Checksum, checksum_for, load_libraries
from .framing import HEADER_BYTES, FrameDecoder, FrameEncoder

__all__ = ["HEADER_BYTES", "Checksum", "FrameDecoder", "FrameEncoder", "checksum_for", "load_libraries"]
