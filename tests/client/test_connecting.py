"""How a client connects, and whom it trusts."""

from __future__ import annotations

import os
import socket
import sys

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.platforms import NOBODY, unix_only
from tests.support import ME, serving, succeed, success, task
from trio_ipc import (
    ChannelClosedError,
    ConnectTimeoutError,
    IpcConfig,
    PeerNotAllowedError,
    PeerPolicy,
    ServerNotFoundError,
    ServerRefusedError,
    open_client,
)
from trio_ipc.daemoneye import DETECTION


@unix_only
async def test_no_server_and_a_dead_one_are_told_apart(config: IpcConfig) -> None:
    with pytest.raises(ServerNotFoundError):
        async with open_client(DETECTION, config):
            raise AssertionError("unreachable")
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(config.endpoint_path)
    with pytest.raises(ServerRefusedError):
        async with open_client(DETECTION, config):
            raise AssertionError("unreachable")


@unix_only
async def test_connecting_has_a_deadline(config: IpcConfig, autojump_clock: MockClock) -> None:
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(config.endpoint_path)
        server.listen(0)
        async with open_client(DETECTION, config):
            with pytest.raises(
                ConnectTimeoutError, match="did not take the connection.*accept_timeout_ms is 5000"
            ):
                async with open_client(DETECTION, config):
                    raise AssertionError("unreachable")
    assert trio.current_time() == pytest.approx(5)


async def test_the_client_checks_the_server_too(config: IpcConfig) -> None:
    async with serving(succeed, config):
        with pytest.raises(
            PeerNotAllowedError, match=f"not trusted .process {os.getpid()}.*allowed is user {NOBODY}"
        ):
            async with open_client(DETECTION, config, peers=PeerPolicy.users([NOBODY])):
                raise AssertionError("unreachable")


async def test_a_policy_that_is_none_is_refused_before_anything_happens(config: IpcConfig) -> None:
    with pytest.raises(TypeError, match="peers is a set, must be a PeerPolicy"):
        async with open_client(DETECTION, config, peers={0}):  # type: ignore[arg-type]
            raise AssertionError("unreachable")


async def test_the_client_knows_where_it_leads_and_to_whom(config: IpcConfig) -> None:
    async with serving(succeed, config), open_client(DETECTION, config) as client:
        assert (client.endpoint, client.peer) == (config.endpoint_path, ME)
        assert client.snapshot().transport == config.transport


@unix_only
async def test_a_process_that_was_stopped_while_it_connected_has_its_time_anew(
    config: IpcConfig, mock_clock: MockClock
) -> None:
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(config.endpoint_path)
        server.listen(0)
        async with open_client(DETECTION, config), trio.open_nursery() as nursery:

            async def connect() -> None:
                async with open_client(DETECTION, config):
                    connected.set()

            connected = trio.Event()
            nursery.start_soon(connect)
            await wait_all_tasks_blocked()
            mock_clock.jump(100)
            await wait_all_tasks_blocked()
            server.accept()[0].close()
            mock_clock.jump(1)
            await connected.wait()


@pytest.mark.parametrize("max_in_flight", [1, 3])
@pytest.mark.parametrize("variant", ["ieee", "auto"])
async def test_a_client_knows_that_it_was_closed_as_its_block_ended(
    config: IpcConfig, variant: str, max_in_flight: int
) -> None:
    async with serving(succeed, config):
        config = config.replace(crc32_variant=variant)
        async with open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
            assert await client.call(task()) == success()
            assert not client.is_broken
        assert client.is_broken
        assert not client.is_reusable()
        for _ in range(2):
            with pytest.raises(
                ChannelClosedError, match="this connection was closed; open a new client"
            ) as caught:
                await client.call(task())
            assert caught.value.endpoint == config.endpoint_path
