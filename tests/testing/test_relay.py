"""A relay passes on what comes, and looks at nothing of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support import succeed, success, task
from trio_ipc import PeerClosedError
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    Faults,
    MemoryEndpoint,
    Recorder,
    open_client_at,
    open_server,
    read_recording,
    relay,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording"


@pytest.mark.parametrize("kind", ["memory", "interprocess"])
async def test_a_relay_records_two_who_open_their_own_connections(path: Path, kind: str) -> None:
    from trio_ipc.testing.pair import an_endpoint

    with an_endpoint(kind) as here, an_endpoint(kind) as there, Recorder(path, DETECTION) as recorder:
        async with open_server(succeed, DETECTION, there), relay(here, there, wrap=recorder.wrap):
            for _ in range(2):
                async with open_client_at(DETECTION, here) as client:
                    assert await client.call(task("a" * 100_000)) == success("a" * 100_000)
    assert [one.connection for one in read_recording(path).exchanges()] == [1, 2]


async def test_a_relay_closes_who_cannot_be_passed_on() -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")
    async with relay(here, there):
        async with open_client_at(DETECTION, here) as client:
            with pytest.raises(PeerClosedError):
                await client.call(task())


async def test_a_relay_passes_a_half_close_on() -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")
    async with await there.listen_streams() as listener, relay(here, there):
        client = await here.connect()
        server = await listener.accept()
        await client.send_all(b"question")
        await client.send_eof()
        assert await server.receive_some() == b"question"
        assert await server.receive_some() == b""
        await server.send_all(b"answer")
        await server.aclose()
        assert await client.receive_some() == b"answer"
        assert await client.receive_some() == b""


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_relay_passes_a_reset_on_as_one(who: str) -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")
    faults = Faults()
    async with await there.listen_streams() as listener, relay(here, there, wrap=faults.wrap):
        client = await here.connect()
        server = await listener.accept()
        one, other = (client, server) if who == "client" else (server, client)
        await other.send_all(b"never read")
        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()
        with pytest.raises(trio.BrokenResourceError, match="the peer closed with bytes unread"):
            await other.receive_some()


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_relay_passes_a_close_on_as_no_more_than_that(who: str) -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")
    async with await there.listen_streams() as listener, relay(here, there):
        client = await here.connect()
        server = await listener.accept()
        one, other = (client, server) if who == "client" else (server, client)
        await one.send_all(b"last words")
        await one.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await other.receive_some() == b"last words"
        assert await other.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await other.send_all(b"too late")


async def test_what_breaks_a_relay_comes_out_by_itself() -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")

    async def run() -> None:
        async with relay(here, there):
            here.fail_accept(OSError(errno.EIO, "the disk is on fire"))
            await trio.sleep_forever()

    with pytest.raises(OSError, match="the disk is on fire"):
        await run()


async def test_what_breaks_a_relay_comes_out_before_what_follows_from_it() -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")

    async def run() -> None:
        async with relay(here, there):
            here.fail_accept(OSError(errno.EIO, "the disk is on fire"))
            try:
                await trio.sleep_forever()
            finally:
                raise AssertionError("of the clean-up")

    with pytest.raises(OSError, match="the disk is on fire") as caught:
        await run()
    assert caught.value.__notes__ == ["afterwards failed: AssertionError: of the clean-up"]
