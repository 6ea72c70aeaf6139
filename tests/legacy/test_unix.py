"""What is the legacy transport's own on Unix; what both must do is tested for both elsewhere."""

from __future__ import annotations

import logging
import socket
import sys
from unittest.mock import Mock

import pytest
import trio
import trio.testing

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from tests.hardening.record import Attack  # noqa: E402
from tests.support import cancelled_once_begun  # noqa: E402
from trio_ipc import ChannelClosedError, IpcConfig, PeerClosedError, PeerCredentials, PeerPolicy  # noqa: E402
from trio_ipc.legacy import connect, listen  # noqa: E402
from trio_ipc.legacy import unix as legacy_unix  # noqa: E402
from trio_ipc.legacy.unix import SocketChannel  # noqa: E402
from trio_ipc.transports import directories  # noqa: E402

ANYONE = PeerPolicy.anyone()


@pytest.fixture
def config(directory: str) -> IpcConfig:
    return IpcConfig(endpoint_path=f"{directory}/test.sock", transport="legacy", max_frame_bytes=4_000_000)


def pair(config: IpcConfig) -> tuple[SocketChannel, SocketChannel]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return (
        SocketChannel(left, config, endpoint="left", peer=None),
        SocketChannel(right, config, endpoint="right", peer=None),
    )


async def test_a_listener_counts_its_own_open_connections(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ipc")
    async with await listen(config, ANYONE) as listener:
        served = []
        for expected in range(1, 6):
            async with await connect(config):
                served.append(await listener.accept())
                assert listener.connections.open == expected
        for channel in served[:2]:
            await channel.aclose()
            await channel.aclose()
        assert listener.connections.open == 3
    for channel in served:
        await channel.aclose()
    assert "accepts no more; 3 of its connections are open" in caplog.text


async def test_what_came_with_a_cancellation_is_not_lost(config: IpcConfig) -> None:
    async with await listen(config, ANYONE) as listener:
        for _ in range(20):  # the two tasks run in either order
            async with await connect(config) as client:
                accepted = await cancelled_once_begun(listener.accept)
                assert accepted is not None
                async with accepted as served:
                    await client.send(b"x")
                    assert await served.receive() == b"x"


async def test_a_client_that_nobody_can_ask_who_it_is_costs_no_other(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(config, ANYONE) as listener, await connect(config) as lost:
        async with await connect(config):
            ask = Mock(side_effect=[OSError(22, "Invalid argument"), PeerCredentials(uid=7)])
            monkeypatch.setattr(legacy_unix, "peer_credentials", ask)
            async with await listener.accept() as served:
                assert served.peer == PeerCredentials(uid=7)
            with pytest.raises(PeerClosedError):
                await lost.receive()


async def test_a_message_larger_than_every_buffer_is_sent_in_parts(config: IpcConfig) -> None:
    left, right = pair(config)
    payload = bytes(range(256)) * 12_000
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(left.send_many, [payload, b"and this"])
        assert await right.receive() == payload
        assert await right.receive() == b"and this"


async def test_a_second_sender_is_told_so_before_it_mixes_two_messages(config: IpcConfig) -> None:
    left, right = pair(config)
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(left.send, bytes(3_000_000))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await left.send(b"x")
        assert await right.receive() == bytes(3_000_000)
        await left.send(b"x")
        assert await right.receive() == b"x"


@pytest.mark.parametrize("direction", ["receive", "send", "watch"])
async def test_closing_in_the_step_in_which_a_task_wakes_is_closing(
    config: IpcConfig, direction: str
) -> None:
    for _ in range(20):  # the two tasks run in either order
        left, right = pair(config)
        done: list[object] = []

        async def work(channel: SocketChannel = left, done: list[object] = done) -> None:
            try:
                if direction == "receive":
                    await channel.receive()
                elif direction == "send":
                    await channel.send(bytes(400_000))
                else:
                    await channel.wait_peer_gone()
                done.append("done")
            except ChannelClosedError as exc:
                done.append(exc)

        async with right, trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            if direction != "send":
                right._sock.send(b"x")  # a part, so that it would have to go on waiting
            else:
                right._sock.recv(300_000)
            await trio.lowlevel.checkpoint()
            await left.aclose()
        assert len(done) == 1


async def test_more_payloads_than_the_system_takes_parts_are_sent_all_the_same(config: IpcConfig) -> None:
    left, right = pair(config)
    payloads = [b"%d" % number for number in range(3_000)]  # IOV_MAX is 1,024
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(left.send_many, payloads)
        assert [await right.receive() for _ in payloads] == payloads


async def test_both_kinds_of_starters_wait_at_one_lock(
    config: IpcConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with directories.claimed(config.endpoint_path):
        with trio.move_on_after(1) as waiting:
            await listen(config, ANYONE)
        assert waiting.cancelled_caught
    async with await listen(config, ANYONE):
        pass


async def test_a_deadly_sigpipe_of_the_host_program_kills_nobody(attack: Attack) -> None:
    code = (
        "import signal, socket, trio; from trio_ipc import IpcConfig, PeerClosedError\n"
        "from trio_ipc.legacy.unix import SocketChannel\n"
        "async def main():\n"
        "    signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "    left, right = socket.socketpair(); right.close(); left.setblocking(False)\n"
        "    try: await SocketChannel(left, IpcConfig(), endpoint='x', peer=None).send(b'x')\n"
        "    except PeerClosedError: print('closed, not dead')\n"
        "trio.run(main)"
    )
    run = await trio.run_process([sys.executable, "-W", "ignore", "-c", code], capture_stdout=True)
    assert run.stdout.strip() == b"closed, not dead"
    attack(
        "a host program with SIGPIPE's deadly default, and a peer that is gone",
        tried=1,
        outcome="an error, and nobody dies",
    )
