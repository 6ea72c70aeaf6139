"""A pair is a server and a client as programs have them, and leaves nothing behind."""

from __future__ import annotations

import os
import sys

import attrs
import pytest
import trio
import trio.testing

from tests.platforms import exists
from tests.support import succeed, success, task
from trio_ipc import (
    Call,
    ConfigError,
    ConnectTimeoutError,
    Contract,
    EndpointError,
    IpcConfig,
    MessageTooLargeError,
    PeerPolicy,
    TransportType,
)
from trio_ipc.daemoneye import HashCheck, HashResult
from trio_ipc.testing import (
    Faults,
    IpcEndpoint,
    MemoryEndpoint,
    OpenClient,
    StartServer,
    SystemEndpoint,
    open_client_at,
    open_pair,
    open_server,
    temporary_endpoint,
)
from trio_ipc.transports import LocalStream


def has(transport: str) -> bool:
    try:
        IpcConfig(transport=transport)
    except ConfigError:
        return False
    return True


OVER = ["memory", *(str(transport) for transport in TransportType if has(transport))]


@pytest.mark.parametrize("over", OVER)
async def test_it_answers_over_every_kind_of_endpoint_there_is(over: str) -> None:
    async with open_pair(succeed, over=over) as (client, server):
        assert await client.call(task("1")) == success("1")
        assert server.snapshot().requests == 1
        path = server.endpoint
    assert over == "memory" or not exists(path)


@pytest.mark.ipc_transport("memory", "interprocess", "legacy")
async def test_the_fixtures_give_the_same(
    ipc_endpoint: IpcEndpoint, ipc_server: StartServer, ipc_client: OpenClient
) -> None:
    server = await ipc_server(succeed, read_timeout_ms=1_000)
    clients = [await ipc_client(), await ipc_client(read_timeout_ms=2_000)]
    for client in clients:
        assert await client.call(task()) == success()
    assert server.snapshot().connections_active == 2
    assert client.endpoint == server.endpoint == ipc_endpoint.path


async def test_settings_are_those_of_both_sides() -> None:
    base = IpcConfig(max_frame_bytes=500, endpoint_path=MemoryEndpoint("ignored").path)
    async with open_pair(succeed, base, read_timeout_ms=123) as (client, server):
        assert server.endpoint == MemoryEndpoint().path
        with pytest.raises(MessageTooLargeError, match="max_frame_bytes is 500"):
            await client.call(task("x" * 501))
        assert server._config.read_timeout_ms == client._turns._read_timeout_ms == 123
    with pytest.raises(ConfigError, match="there is no setting 'read_timeout'"):
        async with open_pair(succeed, read_timeout=1):
            raise AssertionError("it opened")


async def test_it_speaks_any_contract() -> None:
    contract = Contract(name="hashes", request_type=HashCheck, response_type=HashResult)

    async def hash_it(request: HashCheck, _: Call) -> HashResult:
        return HashResult(file_path=request.executable_path, success=True)

    async with open_pair(hash_it, contract=contract) as (client, _):
        result = await client.call(HashCheck(executable_path="/bin/true"))
        assert result.file_path == "/bin/true"


@pytest.mark.parametrize("over", ["memory", "interprocess"])
async def test_an_exception_of_the_block_comes_out_as_it_is(over: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_pair(succeed, over=over):
            _ = 1 / 0


async def test_several_exceptions_come_out_together() -> None:
    async def fail_twice() -> None:
        async with open_server(succeed, MemoryEndpoint()):
            async with trio.open_nursery() as nursery:
                for error in (KeyError("a"), ValueError("b")):
                    nursery.start_soon(raise_it, error)

    async def raise_it(error: Exception) -> None:
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        await fail_twice()
    assert caught.group_contains(KeyError)
    assert caught.group_contains(ValueError)


async def test_a_cancellation_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_pair(succeed):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_server_that_stops_working_ends_the_block() -> None:
    endpoint = MemoryEndpoint()
    with pytest.raises(EndpointError, match="the listener failed"):  # noqa: PT012 - a block
        async with open_server(succeed, endpoint):
            endpoint.fail_accept(OSError(5, "Input/output error"))
            await trio.sleep_forever()


@pytest.mark.parametrize("over", ["pigeon", "Memory", ""])
async def test_what_is_no_transport_is_refused(over: str) -> None:
    with pytest.raises(ConfigError, match="transport is"):
        async with open_pair(succeed, over=over):
            raise AssertionError("it opened")


async def test_policies_hold_on_both_sides() -> None:
    async with open_pair(succeed, peers=PeerPolicy.anyone()) as (client, _):
        assert await client.call(task()) == success()


def test_a_temporary_endpoint_is_nobody_elses_and_leaves_nothing() -> None:
    with temporary_endpoint() as one, temporary_endpoint() as other:
        assert one.path != other.path
        directory = os.path.dirname(one.path)
        assert repr(one) == f"SystemEndpoint({one.path!r}, 'interprocess')"
    assert sys.platform == "win32" or not os.path.exists(directory)


@pytest.mark.skipif(sys.platform == "win32", reason="speaks of a socket's path")
def test_a_temporary_directory_that_leaves_no_room_is_told(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    deep = tmp_path_factory.mktemp("x" * 100)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigError, match="set TMPDIR to a shorter path"), temporary_endpoint():
        raise AssertionError("it was made")
    assert list(deep.iterdir()) == []


async def test_a_transport_without_streams_is_not_wrapped() -> None:
    with temporary_endpoint() as endpoint:
        config = attrs.evolve(endpoint.config())
        object.__setattr__(config, "transport", TransportType.LEGACY)
        with pytest.raises(ValueError, match="put a relay in between"):
            await endpoint.open_channel(config, wrap=Faults().wrap)


async def test_a_wrapped_client_of_a_real_endpoint_is_told_when_nobody_takes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class HangingEndpoint(SystemEndpoint):
        async def connect(self) -> LocalStream:
            await trio.sleep_forever()
            raise AssertionError("unreachable")

    endpoint = HangingEndpoint(MemoryEndpoint("nowhere").path)
    with pytest.raises(ConnectTimeoutError, match="accept_timeout_ms is 50"):
        async with open_client_at(endpoint, wrap=Faults().wrap, accept_timeout_ms=50):
            raise AssertionError("it connected")
