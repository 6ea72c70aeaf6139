"""What the tests of channels share."""

from __future__ import annotations

import trio

from tests.support import IN_MEMORY, ME, frame, task
from trio_ipc import (
    FramedChannel,
    IpcConfig,
)
from trio_ipc.transports import LocalStream, PeerState

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, max_frame_bytes=1_000)

PAYLOAD = task().SerializeToString()

FRAME = frame(task())


def over(stream: trio.abc.Stream, config: IpcConfig = CONFIG) -> FramedChannel:
    return FramedChannel(stream, config, endpoint="memory", peer=ME)


class Watched(LocalStream):
    """A stream that counts how often somebody looked, and has something at the ``nth`` look."""

    def __init__(self) -> None:
        super().__init__("watched", ME)
        self.looks = 0
        self.slept = 0
        self.nth = 0
        self._woken = False

    def read(self, _max_bytes: int) -> bytes | None:
        if self._woken:
            self._woken = False
            return FRAME
        self.looks += 1
        return FRAME if self.looks == self.nth else None

    async def wait_readable(self) -> None:
        self.slept += 1
        await trio.sleep(1)
        self._woken = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    async def wait_send_all_might_not_block(self) -> None: ...

    def peer_state(self) -> PeerState:
        return PeerState.OPEN

    def close(self) -> bool:
        return True
