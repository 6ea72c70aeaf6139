"""What is a legacy listener's own on Windows; what both transports must do is tested for both elsewhere."""

from __future__ import annotations

import errno
import os
import sys

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402

from tests.legacy.pipes import OWN, blocked, connected_to  # noqa: E402
from tests.platforms import fails_under_wine, open_handles  # noqa: E402
from tests.transports.pipes import (  # noqa: E402
    accepted_or_kept,
    dacl_of,
    entries_of,
    refuse_first_instances,
)
from trio_ipc import (  # noqa: E402
    ConfigError,
    EndpointError,
    EndpointInUseError,
    IpcConfig,
    PeerClosedError,
    PeerPolicy,
    ServerNotFoundError,
)
from trio_ipc.legacy import connect, listen, pipe_listener  # noqa: E402
from trio_ipc.legacy.pipe_listener import PipeListener  # noqa: E402
from trio_ipc.transports.windows import pipe as named_pipe  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402

# --- Accepting ----------------------------------------------------------------------------------------------


async def test_a_cancelled_accept_loses_no_client(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await blocked(listener.accept, nursery)
                    scope.cancel()
            client, server = await connected_to(listener, config)
            async with client, server:
                await client.send(b"x")
                assert await server.receive() == b"x"


async def test_an_accept_that_is_cancelled_as_a_client_comes_returns_it_or_leaves_it(
    config: IpcConfig,
) -> None:
    async with await listen(config, OWN) as listener:
        for _ in range(20):
            client, server = await accepted_or_kept(listener.accept, lambda: connect(config))
            async with client, server:
                await client.send(b"x")
                assert await server.receive() == b"x"


async def test_closing_wakes_a_task_that_accepts_and_frees_the_name(config: IpcConfig) -> None:
    for _ in range(10):
        listener = await listen(config, OWN)

        async def accept(listener: PipeListener = listener) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            await blocked(accept, nursery)
            with pytest.raises(trio.BusyResourceError):
                await listener.accept()
            with pytest.raises(trio.BusyResourceError):
                listener.detach()
            await listener.aclose()
        with pytest.raises(ServerNotFoundError, match="does not exist"):
            await connect(config)


async def test_a_client_that_left_before_it_was_accepted_is_still_read(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:
        async with await connect(config) as client:
            await client.send(b"farewell")
        async with await listener.accept() as server:
            assert await server.receive() == b"farewell"
            with pytest.raises(PeerClosedError):
                await server.receive()


async def test_a_client_is_kept_while_no_further_instance_can_be_made(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    async with await listen(config, OWN) as listener, await connect(config) as client:
        await client.send(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(pipe_listener, "_create_instance", fail)
            for _ in range(2):
                with pytest.raises(OSError, match=r".") as caught:
                    await listener.accept()
                assert caught.value.errno == errno.ENOBUFS
        async with await listener.accept() as server:
            assert await server.receive() == b"x"


async def test_an_event_that_cannot_be_made_costs_neither_client_nor_handle(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = win32.create_event

    async with await listen(config, OWN) as listener, await connect(config) as client:
        await client.send(b"x")
        with trio.move_on_after(0.05):  # notices the client, and is cancelled then or is not
            served = await listener.accept()
            await served.aclose()
        async with await connect(config) as second:
            await second.send(b"y")
            before = open_handles()
            for fails_at in range(3):
                calls = 0

                def fail_once(fails_at: int = fails_at) -> int:
                    nonlocal calls
                    calls += 1
                    if calls > fails_at:
                        raise OSError(errno.ENOMEM, "no memory")
                    return create()

                with monkeypatch.context() as patch:
                    patch.setattr(win32, "create_event", fail_once)
                    with pytest.raises(OSError, match="no memory"):
                        await listener.accept()
                assert open_handles() <= before
            async with await listener.accept() as server:
                assert await server.receive() == b"y"


# --- Who may, and who does ----------------------------------------------------------------------------------


async def test_the_access_list_is_the_default_transports(config: IpcConfig) -> None:
    user = "S-1-5-21-1004336348-1177238915-682003330-1001"
    for policy in (OWN, PeerPolicy.users([user]), PeerPolicy.anyone()):
        found = []
        async with await named_pipe.listen(config.endpoint_path, policy) as theirs:
            async with await named_pipe.open_named_pipe(config.endpoint_path) as client:
                async with await theirs.accept():
                    found.append(entries_of(dacl_of(client)))
        async with await listen(config, policy) as ours:
            async with await named_pipe.open_named_pipe(config.endpoint_path) as client:
                async with await ours.accept() as server:
                    found.append(entries_of(dacl_of(client)))
                    assert server.peer == client.peer
                    assert server.peer is not None
                    assert server.peer.pid == os.getpid()
        assert found[0] == found[1]


@pytest.mark.parametrize("user", [7, "somebody", "S-1-5-18\n"])
async def test_a_user_who_is_no_security_identifier_is_refused(config: IpcConfig, user: int | str) -> None:
    with pytest.raises(ConfigError, match="which is no security identifier"):
        await listen(config, PeerPolicy.users([user]))


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored", versions=[8, 10])
async def test_a_name_that_is_served_is_refused_and_says_by_whom(config: IpcConfig) -> None:
    async with await listen(config, OWN):
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}"):
            async with await listen(config, OWN):
                pass


async def test_a_refused_name_that_is_served_is_in_use(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(config, OWN):
        refuse_first_instances(monkeypatch, times=1)
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}") as caught:
            await listen(config, OWN)
        assert caught.value.pid == os.getpid()


async def test_a_name_that_only_clients_held_on_to_is_had_once_they_let_go(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_first_instances(monkeypatch, times=3)
    async with await listen(config, OWN) as listener:
        for channel in await connected_to(listener, config):
            await channel.aclose()


async def test_a_refused_name_that_nobody_serves_is_given_up_in_the_end(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    refuse_first_instances(monkeypatch, times=float("inf"))
    with pytest.raises(EndpointError, match="nobody listens") as caught:
        await listen(config, OWN)
    assert not isinstance(caught.value, EndpointInUseError)
    assert 1 <= autojump_clock.current_time() < 1.1


# --- Changing hands -----------------------------------------------------------------------------------------


async def test_an_instance_and_its_client_change_hands_again_and_again(config: IpcConfig) -> None:
    ours = await listen(config, OWN)
    client = await connect(config)
    await client.send(b"early")
    for _ in range(5):
        theirs = named_pipe.adopt(ours.detach())
        ours.release()
        again = pipe_listener.adopt(theirs.detach(), config)
        theirs.release()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.accept()
        await theirs.aclose()
        await ours.aclose()
        ours = again
    async with client, await ours.accept() as server:
        assert await server.receive() == b"early"
    async with await connect(config), await ours.accept():
        pass
    await ours.aclose()
    with pytest.raises(ServerNotFoundError):
        await connect(config)


async def test_a_port_that_refuses_the_handle_changes_nothing(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EINVAL, "refused")

    async with await listen(config, OWN) as listener:
        with monkeypatch.context() as patch:
            patch.setattr(trio.lowlevel, "register_with_iocp", refuse)
            with pytest.raises(OSError, match="refused"):
                named_pipe.adopt(listener.detach())
        for channel in await connected_to(listener, config):
            assert PeerPolicy.own_user_and_root().allows(channel.peer)
            await channel.aclose()
