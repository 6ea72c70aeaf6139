"""Whether a connection is still good is looked at once for each call, which is a system call of its own."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.support import success, task
from trio_ipc import FramedChannel

from .support import FakeServer, calling


async def test_a_call_looks_once_whether_its_connection_is_good(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = FramedChannel.is_reusable

    def counted(self: FramedChannel) -> bool:
        looks.append(self)
        return look(self)

    server = FakeServer("a")
    async with calling(server) as client:
        await client.call(task("1"))
        monkeypatch.setattr(FramedChannel, "is_reusable", counted)
        await client.call(task("2"))
        assert len(looks) == 1
        server.drop_connections()
        assert await client.call(task("3")) == success("3"), "and sees that it is not"
        assert server.connections.total == 2
