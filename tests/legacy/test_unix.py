"""What is the legacy transport's own on Unix; what both must do is tested for both elsewhere."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import tracemalloc
from unittest.mock import Mock

import pytest
import trio
import trio.testing

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from tests.hardening.record import Attack  # noqa: E402
from tests.platforms import refuse_to_accept  # noqa: E402
from tests.support import cancelled_once_begun  # noqa: E402
from trio_ipc import (  # noqa: E402
    ChannelClosedError,
    Crc32Variant,
    IpcConfig,
    PeerClosedError,
    PeerCredentials,
    PeerPolicy,
    TruncatedFrameError,
    WriteTimeoutError,
)
from trio_ipc.legacy import connect, listen  # noqa: E402
from trio_ipc.legacy import unix as legacy_unix  # noqa: E402
from trio_ipc.legacy.frames import FrameWriter  # noqa: E402
from trio_ipc.legacy.unix import SocketChannel  # noqa: E402
from trio_ipc.transports import PeerState, unix_paths  # noqa: E402

ANYONE = PeerPolicy.anyone()


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
    assert "accepts no more, and leaves 3 of its connections open" in caplog.text


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


@pytest.mark.parametrize("direction", ["receive", "send"])
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
                else:
                    await channel.send(bytes(400_000))
                done.append("done")
            except ChannelClosedError as exc:
                done.append(exc)

        async with right, trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            if direction == "receive":
                right._sock.send(b"x")  # a part, so that it would have to go on waiting
            else:
                right._sock.recv(300_000)
            await trio.lowlevel.checkpoint()
            await left.aclose()
        assert len(done) == 1


async def test_payloads_by_the_thousand_go_together_and_come_in_order(config: IpcConfig) -> None:
    left, right = pair(config)
    payloads = [b"%d" % number for number in range(3_000)]
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(left.send_many, payloads)
        assert [await right.receive() for _ in payloads] == payloads


class Turns:
    """Counts how often another task has its turn."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.count = 0
        nursery.start_soon(self._take)

    async def _take(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


async def test_a_large_frame_that_is_all_there_keeps_nobody_from_their_turn(config: IpcConfig) -> None:
    size = 48 * 65_536
    whole = memoryview(FrameWriter(size, config.crc32_variant).frames([bytes(size)]))

    class AllThere(SocketChannel):
        rest = whole

        def _read_now(self, at_most: int) -> bytes:
            data, self.rest = self.rest[:at_most], self.rest[at_most:]
            return bytes(data)

    near, far = socket.socketpair()
    with near:
        async with AllThere(far, config, endpoint="there", peer=None) as channel:
            async with trio.open_nursery() as nursery:
                turns = Turns(nursery)
                assert await channel.receive() == bytes(size)
                assert turns.count >= 5, "one after eight reads"
                nursery.cancel_scope.cancel()


async def test_frames_that_are_all_there_keep_nobody_from_their_turn(config: IpcConfig) -> None:
    left, right = pair(config)
    async with left, right, trio.open_nursery() as nursery:
        assert left.send_nowait([b"x"] * 200)
        turns = Turns(nursery)
        for _ in range(200):
            await right.receive()
        assert turns.count > 190
        nursery.cancel_scope.cancel()


async def test_a_child_that_was_forked_does_not_keep_the_connection(config: IpcConfig) -> None:
    left, right = pair(config)
    with left._sock.dup():  # as a child has it
        await left.aclose()
        assert right.peer_state() is PeerState.GONE
        with pytest.raises(PeerClosedError):
            await right.receive()
        await right.aclose()


async def test_looking_after_the_peer_takes_nothing_and_tells_its_states_apart(config: IpcConfig) -> None:
    left, right = pair(config)
    async with right:
        assert right.peer_state() is PeerState.OPEN
        await left.send(b"x")
        for _ in range(3):
            assert right.peer_state() is PeerState.HAS_INPUT
        assert not right.is_reusable()
        assert await right.receive() == b"x"
        assert right.is_reusable()
        left._sock.shutdown(socket.SHUT_WR)
        assert right.peer_state() is PeerState.HALF_CLOSED
        assert not right.is_reusable()
        await right.send(b"answer")
        assert await left.receive() == b"answer"
        await left.aclose()
        assert right.peer_state() is PeerState.GONE
    assert right.peer_state() is PeerState.GONE


async def test_a_peer_that_closes_while_it_is_sent_to_may_have_had_its_reasons(config: IpcConfig) -> None:
    left, right = pair(config)

    async def send() -> None:
        with pytest.raises(PeerClosedError, match="left: .*before it took the whole message; it is over its"):
            await left.send(bytes(3_000_000))

    async with left, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await right.aclose()
    assert left.traffic.frames_sent == 0


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "too late"])
async def test_a_send_that_stops_part_way_closes_the_channel(
    config: IpcConfig, autojump_clock: trio.testing.MockClock, cancelled: bool
) -> None:
    left, right = pair(config)
    async with right:
        if cancelled:
            with trio.move_on_after(1):
                await left.send(bytes(3_000_000))
        else:
            with pytest.raises(WriteTimeoutError, match="left: .* the limit write_timeout_ms is 10000"):
                await left.send(bytes(3_000_000))
        assert trio.current_time() == pytest.approx(1 if cancelled else 10)
        for operation in (left.receive, left.flush):
            with pytest.raises(ChannelClosedError):
                await operation()
        with pytest.raises(TruncatedFrameError):
            await right.receive()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EPERM])
async def test_what_forbids_to_accept_is_the_callers_to_wait_out(
    config: IpcConfig, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(config, ANYONE) as listener, await connect(config):
        refuse_to_accept(monkeypatch, code, times=2)
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(code)):
                await listener.accept()
        await (await listener.accept()).aclose()


async def test_a_listener_whose_socket_a_fork_has_closed_is_closed(config: IpcConfig) -> None:
    async with await listen(config, ANYONE) as listener:
        listener._detached.socket.close()  # as transports/forks.py does in a child
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()


async def test_both_kinds_of_starters_wait_at_one_lock(
    config: IpcConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with unix_paths.claimed(config.endpoint_path):
        with trio.move_on_after(1) as waiting:
            await listen(config, ANYONE)
        assert waiting.cancelled_caught
    async with await listen(config, ANYONE):
        pass


async def test_an_announced_length_takes_no_memory(
    config: IpcConfig, autojump_clock: trio.testing.MockClock
) -> None:
    size = config.max_frame_bytes
    left, right = pair(config)
    async with left, right:
        whole = FrameWriter(size, Crc32Variant.IEEE).frames([bytes(size)])
        await left._stream.send_all(whole[:100])
        tracemalloc.start()
        try:
            with trio.move_on_after(1):
                await right.receive()
            assert tracemalloc.get_traced_memory()[1] < size / 4
        finally:
            tracemalloc.stop()


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
