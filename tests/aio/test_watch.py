"""How a task waits for a connection in its own event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from tests.adapters import check_counts, served
from tests.platforms import unix_only
from tests.support import success, task
from trio_ipc import IpcConfig, TransportType
from trio_ipc.aio.watch import Watch
from trio_ipc.channel import Spin

from .support import AioClient, run, run_alone

pytestmark = unix_only  # a pipe is waited for by Trio alone

#: More passes of an event loop than fit into the time that looking again may take.
MANY = 10_000


def test_a_loop_with_a_coarse_clock_looks_no_longer_than_others() -> None:
    passes = 0

    class Loop(asyncio.SelectorEventLoop):
        """One whose clock stands still, as uvloop's does for a millisecond at a time."""

        def time(self) -> float:
            return 0.0

    def look() -> bool:
        raise AssertionError("nothing comes")

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    async def main() -> None:
        one, other = socket.socketpair()
        watch = Watch(one, look, Spin(MANY), asyncio.get_running_loop())
        counting = asyncio.create_task(count())
        with other:
            assert not await watch.wait(0)
            watch.close()
        counting.cancel()

    run(main, Loop)
    assert 0 < passes < MANY


@pytest.mark.parametrize("transport", [TransportType.INTERPROCESS], indirect=True)
def test_a_loop_that_has_no_room_for_a_socket_leaves_the_wait_to_the_trio_thread(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        watch: Any = client._direct._watch  # type: ignore[union-attr]
        loop: Any = asyncio.get_running_loop()
        add_reader = loop.add_reader

        def no_room(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "no room")

        watch._stop()
        loop.add_reader = no_room
        assert await client.call(task("1")) == success("1")
        assert not watch._watching
        loop.add_reader = add_reader
        assert await client.call(task("2")) == success("2")
        assert watch._watching
        check_counts(client)

    with served(config):
        run_alone(config, test)
