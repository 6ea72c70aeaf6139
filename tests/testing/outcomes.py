"""What comes of an operation on a stream, where kinds of streams are compared."""

from __future__ import annotations

from typing import Any

import trio


async def outcome(operation: str, stream: Any) -> object:
    """What an operation says, in words that are the same for all kinds of stream."""
    try:
        if operation == "send":
            return stream.write(b"abc")
        if operation == "send nothing":
            return stream.write(b"")
        if operation == "receive":
            return stream.read(2)
        if operation == "state":
            return stream.peer_state()
        return await (stream.send_eof() if operation == "eof" else stream.aclose())
    except (trio.ClosedResourceError, trio.BrokenResourceError) as exc:
        return type(exc)
