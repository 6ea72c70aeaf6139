"""Named pipes: what the system refuses, and the error that becomes of it."""

from __future__ import annotations

import os
import sys

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402

from tests.platforms import fails_under_wine  # noqa: E402
from tests.transports.pipes import (  # noqa: E402
    connected_to,
    each_refusal_of_a_client,
    pair,
    refuse_all,
    refuse_clients,
    refuse_first_instances,
)
from trio_ipc import (  # noqa: E402
    ConnectError,
    EndpointError,
    EndpointInUseError,
)
from trio_ipc.transports import PeerPolicy  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    open_named_pipe,
    open_named_pipe_listener,
)


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored", versions=[8, 10])
async def test_a_name_that_is_served_is_refused_and_says_by_whom(name: str) -> None:
    async with await open_named_pipe_listener(name):
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}") as caught:
            async with await open_named_pipe_listener(name):
                pass
        assert caught.value.pid == os.getpid()


# The same once more with Windows' answers played to it, so that what is made of them is tested under Wine.


async def test_a_refused_name_that_is_served_is_in_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_named_pipe_listener(name):
        refuse_first_instances(monkeypatch, times=1)
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}") as caught:
            await open_named_pipe_listener(name)
        assert caught.value.pid == os.getpid()


async def test_a_refused_name_that_is_served_and_busy_is_in_use(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_named_pipe_listener(name), await open_named_pipe(name):
        refuse_first_instances(monkeypatch, times=1)
        with pytest.raises(EndpointInUseError, match="in use by another process") as caught:
            await open_named_pipe_listener(name)
        assert caught.value.pid is None


async def test_a_name_that_only_clients_held_on_to_is_had_once_they_let_go(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_first_instances(monkeypatch, times=3)
    async with await open_named_pipe_listener(name) as listener:
        client, server = await connected_to(listener)
        await client.aclose()
        await server.aclose()


async def test_a_refused_name_that_nobody_serves_is_given_up_in_the_end(
    name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    refuse_first_instances(monkeypatch, times=float("inf"))
    with pytest.raises(EndpointError, match="nobody listens") as caught:
        await open_named_pipe_listener(name)
    assert not isinstance(caught.value, EndpointInUseError)
    assert 1 <= autojump_clock.current_time() < 1.1


@each_refusal_of_a_client
async def test_what_the_system_says_to_a_client_becomes_the_precise_error(
    name: str, winerror: int, error: type[ConnectError], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_clients(monkeypatch, winerror)
    with pytest.raises(ConnectError) as caught:
        await open_named_pipe(name)
    assert type(caught.value) is error
    assert caught.value.endpoint == rf"\\.\pipe\{name}"
    assert isinstance(caught.value.__cause__, OSError)


async def test_another_failure_to_listen_says_its_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    monkeypatch.setattr(win32, "create_named_pipe", refuse)
    with pytest.raises(EndpointError, match="error 1450"):
        await open_named_pipe_listener(name)


async def test_a_system_that_does_not_tell_who_the_peer_is_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_all(monkeypatch, "owner", "open_client_token", "open_process")
    for call in (None, "server_process_id"):
        if call is not None:
            refuse_all(monkeypatch, call)
        async with pair() as (client, _):
            assert client.peer.sid is None
            assert (client.peer.pid is None) == (call == "server_process_id")
            assert not PeerPolicy.own_user_and_root().allows(client.peer)
            assert PeerPolicy.anyone().allows(client.peer)
