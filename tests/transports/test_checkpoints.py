"""What is tried again and again without a wait lets others have their turn, and can be cancelled."""

from __future__ import annotations

import errno
import os
import sys

import pytest
import trio
import trio.testing

from tests.platforms import refuse_to_accept
from tests.support import Beside
from trio_ipc import Channel, IpcConfig, PeerPolicy, TransportType
from trio_ipc.transports import DetachableListener, LocalStream

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc import legacy  # noqa: E402
from trio_ipc.transports import unix_lock  # noqa: E402
from trio_ipc.transports.unix_listener import listen_unix  # noqa: E402


async def listening(config: IpcConfig) -> DetachableListener[LocalStream] | DetachableListener[Channel]:
    if config.transport is TransportType.LEGACY:
        return await legacy.listen(config, PeerPolicy.own_user_and_root())
    return await listen_unix(config.endpoint_path)


async def test_clients_that_leave_one_after_another_keep_nobody_from_their_turn(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Beside()
    async with await listening(config) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        before = beside.turns
        refuse_to_accept(monkeypatch, errno.ECONNABORTED, times=100)
        async with await trio.open_unix_socket(config.endpoint_path):
            await (await listener.accept()).aclose()
        assert beside.turns - before >= 90
        nursery.cancel_scope.cancel()


async def test_accepting_can_be_cancelled_while_they_do(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listening(config) as listener:
        refuse_to_accept(monkeypatch, errno.ECONNABORTED, times=10_000)
        async with await trio.open_unix_socket(config.endpoint_path), trio.open_nursery() as nursery:
            accepted = []

            async def accept() -> None:
                accepted.append(await listener.accept())

            nursery.start_soon(accept)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert accepted == []


async def test_a_lock_that_nobody_has_is_taken_after_a_checkpoint(directory: str) -> None:
    directory_fd = os.open(directory, os.O_RDONLY)
    try:
        with trio.testing.assert_checkpoints():
            async with unix_lock.locked(directory_fd, f"{directory}/test.sock"):
                pass
    finally:
        os.close(directory_fd)


async def test_who_is_cancelled_before_takes_no_lock(directory: str) -> None:
    entered = False
    directory_fd = os.open(directory, os.O_RDONLY)
    try:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with unix_lock.locked(directory_fd, f"{directory}/test.sock"):
                entered = True
    finally:
        os.close(directory_fd)
    assert scope.cancelled_caught
    assert not entered
    assert os.listdir(directory) == []


async def test_accepting_who_is_there_is_a_checkpoint_and_takes_nobody_where_it_is_cancelled(
    config: IpcConfig,
) -> None:
    async with await listening(config) as listener:
        async with await trio.open_unix_socket(config.endpoint_path):
            with trio.CancelScope() as scope:
                scope.cancel()
                await listener.accept()
            assert scope.cancelled_caught
            with trio.testing.assert_checkpoints():
                accepted = await listener.accept()
            await accepted.aclose()
        with trio.testing.assert_checkpoints():
            await listener.aclose()
