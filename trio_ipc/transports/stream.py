"""What the streams of all platforms have in common, beyond being a :class:`trio.abc.Stream`.

Code above the transports asks for nothing else, and so never for the platform. This module must never
import a transport.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from .credentials import PeerCredentials


class LocalStream(trio.abc.Stream):
    """A stream to another process of this machine.

    Attributes:
        endpoint: the path or name it was reached by.
        peer: who is at the other end.
    """

    endpoint: str
    peer: PeerCredentials

    async def receive_awaited(self, max_bytes: int) -> bytes | bytearray:
        """Receive like ``receive_some``, for a caller who knows that nothing has come yet.

        It waits before it looks, where looking in vain costs something.
        """
        return await self.receive_some(max_bytes)

    def receive_nowait(self, _max_bytes: int) -> bytes | None:
        """Return the bytes that are there (``b""`` at end of file), or None if that means to wait.

        Raises what ``receive_some`` raises. A stream that can't receive without a wait has nothing.
        """
        return None

    def send_nowait(self, _data: bytes | bytearray | memoryview) -> int:
        """Hand over what the system takes without a wait, and return how many bytes that was.

        Raises what ``send_all`` raises. A stream that can't send without a wait takes nothing.
        """
        return 0

    def send_parts_nowait(self, parts: Sequence[bytes | memoryview]) -> int:
        """Hand over several buffers, as :meth:`send_nowait` does for one, without putting them together."""
        return self.send_nowait(b"".join(parts))

    def is_quiet(self) -> bool:
        """Return whether nothing has come: no bytes, no end of file, no error.

        Takes nothing from the stream and does not block. A stream that can't tell is taken to be good.
        """
        return True

    def close_nowait(self) -> bool:
        """Close both directions without a wait, if this stream can; return whether it did. Idempotent.

        A task that waits in this stream wakes.
        """
        return False

    def peer_is_gone(self) -> bool:
        """Return whether the peer has closed both directions, so that nobody will read what is sent.

        To be asked after end of file. Where there is no half-closing, that has said it all.
        """
        return True
