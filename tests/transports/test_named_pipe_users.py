"""Named pipes: who may connect, who may serve, and who it is."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402
from ctypes import wintypes  # noqa: E402

from tests.platforms import fails_under_wine  # noqa: E402
from tests.support import succeed  # noqa: E402
from tests.transports.pipes import (  # noqa: E402
    connected_to,
    dacl_of,
    entries_of,
    no_handle_left,
    pair,
    refuse_all,
)
from trio_ipc import (  # noqa: E402
    ConfigError,
    EndpointError,
    EndpointPermissionError,
    IpcConfig,
    serve,
)
from trio_ipc.daemoneye import DETECTION  # noqa: E402
from trio_ipc.transports import PeerPolicy, credentials, policy  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    listen,
    open_named_pipe,
    open_named_pipe_listener,
)


async def test_each_side_knows_the_other_ones_process_and_user() -> None:
    async with pair() as (client, server):
        for stream in (client, server):
            assert stream.peer.pid == os.getpid()
            assert stream.peer.sid == credentials.user_of(win32.current_process())
            assert PeerPolicy.own_user_and_root().allows(stream.peer)
            assert not PeerPolicy.users({"S-1-5-18"}).allows(stream.peer)


async def test_names_are_in_full_on_both_sides(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        client, server = await connected_to(listener)
        async with client, server:
            assert listener.endpoint == client.endpoint == server.endpoint == rf"\\.\pipe\{name}"


@pytest.mark.parametrize("name", ["", r"\\server\pipe\x", "a/b", "x" * 248])
async def test_a_wrong_name_is_refused_by_both_sides(name: str) -> None:
    with pytest.raises(ConfigError):
        await open_named_pipe(name)
    with pytest.raises(ConfigError):
        await open_named_pipe_listener(name)


async def test_the_owner_and_system_may_connect_and_nobody_else() -> None:
    user = credentials.user_of(win32.current_process())
    async with pair() as (_, server):
        found = dacl_of(server)
    assert found.startswith("D:P")
    assert entries_of(found) == {"S-1-5-18": "FA", user: "FA"}


USER, GUEST = "S-1-5-21-1004336348-1177238915-682003330-1001", "S-1-5-21-1004336348-1177238915-682003330-501"


async def test_whom_a_policy_allows_may_connect_and_not_serve(name: str) -> None:
    me = credentials.user_of(win32.current_process())
    own = {"S-1-5-18": "FA", me: "FA"}
    for peers, expected in (
        (PeerPolicy.own_user_and_root(), own),
        (PeerPolicy.users([]), own),
        (PeerPolicy.users([USER, me, GUEST]), {**own, USER: "0x12019b", GUEST: "0x12019b"}),
        (PeerPolicy.anyone(), {**own, "S-1-5-11": "0x12019b"}),
    ):
        async with await listen(name, peers) as listener:
            client, server = await connected_to(listener)
            async with client, server:
                found = dacl_of(server)
                assert found.startswith("D:P")
                assert entries_of(found) == expected
                with client._end.in_use() as handle:
                    assert win32.owner(handle) == me


async def test_a_server_gives_its_pipe_the_policy_that_it_was_given(name: str) -> None:
    config = IpcConfig(endpoint_path=name)
    for peers, also in (
        (None, set()),
        (PeerPolicy.users([USER]), {USER}),
        (PeerPolicy.anyone(), {"S-1-5-11"}),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, succeed, DETECTION, config, peers=peers))
            async with await open_named_pipe(name) as client:
                assert entries_of(dacl_of(client)).keys() == {
                    "S-1-5-18",
                    credentials.user_of(win32.current_process()),
                    *also,
                }
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("user", [7, "BU", "somebody", f"{USER})(A;;GA;;;WD", f"{USER}\n", ""])
async def test_a_user_who_is_no_security_identifier_is_refused(name: str, user: int | str) -> None:
    with pytest.raises(ConfigError, match="which is no security identifier"):
        await listen(name, PeerPolicy.users([user]))


@pytest.mark.parametrize("group", ["S-1-1-0", "S-1-5-11", "S-1-5-32-544", "S-1-5-32-545"])
def test_a_groups_identifier_is_refused_at_once(group: str) -> None:
    """Everyone, who has logged on, administrators, users: no process runs as any of them."""
    with pytest.raises(ConfigError, match=f"allows {group}, which is a .*group.* and no user; name its mem"):
        PeerPolicy.users([group])


def test_users_services_and_whom_the_system_cannot_place_are_users() -> None:
    me = credentials.user_of(win32.current_process())
    users = [me, USER, GUEST, "S-1-5-18", "S-1-5-19", "S-1-5-20", "S-1-5-80-1-2-3-4-5"]
    assert PeerPolicy.users(users).allowed == frozenset(users)


def test_a_single_string_and_a_group_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="must be a list of users"):
        PeerPolicy.users("S-1-5-18")
    with pytest.raises(ConfigError, match="groups are judged on Unix only; name the users"):
        PeerPolicy.group("S-1-5-32-544")
    with pytest.raises(ConfigError, match="socket_group is 'users', must be left out on Windows"):
        IpcConfig(socket_group="users")


async def test_a_process_that_may_not_be_looked_into_is_known_by_what_it_lends_or_owns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_all(monkeypatch, "open_process")
    async with pair() as (client, server):
        assert PeerPolicy.own_user_and_root().allows(client.peer)
        assert PeerPolicy.own_user_and_root().allows(server.peer)
        assert server.peer.sid == credentials.user_of(win32.current_process())


async def test_a_client_that_lends_nothing_is_known_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_all(monkeypatch, "open_client_token")
    async with pair() as (_, server):
        assert server.peer.sid == credentials.user_of(win32.current_process())
    refuse_all(monkeypatch, "open_process")
    async with pair() as (_, server):
        assert server.peer.sid is None
        assert not PeerPolicy.own_user_and_root().allows(server.peer)


async def test_a_clients_token_is_put_off_again_at_once() -> None:
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.GetCurrentThread.restype = wintypes.HANDLE
    token_query, no_token = 0x8, 1008
    async with pair() as (client, server), no_handle_left():
        with server._end.in_use() as handle:
            win32.close_handle(win32.open_client_token(handle))
        thread, token = wintypes.HANDLE(kernel32.GetCurrentThread()), wintypes.HANDLE()
        assert not advapi32.OpenThreadToken(thread, token_query, True, ctypes.byref(token))
        assert ctypes.get_last_error() == no_token
        assert gc.isenabled()
        with client._end.in_use() as handle, pytest.raises(OSError, match=r"."):
            win32.open_client_token(handle)  # a client's end is lent nothing
        assert gc.isenabled()


async def test_of_the_administrators_pipes_the_process_tells_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(win32, "owner", lambda _: "S-1-5-32-544")
    async with pair() as (client, _):
        assert client.peer.sid == credentials.user_of(win32.current_process())
    refuse_all(monkeypatch, "open_process")
    async with pair() as (client, _):
        assert client.peer.sid == "S-1-5-32-544"


async def test_the_descriptor_can_be_chosen(name: str) -> None:
    chosen = policy.descriptor_for(PeerPolicy.own_user_and_root()) + "(A;;GRGW;;;BU)"
    async with await open_named_pipe_listener(name, sddl=chosen) as listener:
        client, server = await connected_to(listener)
        async with client, server:
            assert ";;;BU)" in dacl_of(server)


async def test_a_descriptor_without_meaning_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="'everyone, please'"):
        await open_named_pipe_listener(name, sddl="everyone, please")


@fails_under_wine("a pipe's access list is kept and not enforced", versions=[8, 10])
async def test_a_user_whom_the_descriptor_does_not_name_cannot_connect(name: str) -> None:
    async with await open_named_pipe_listener(name, sddl="D:P(A;;GA;;;SY)"):
        with pytest.raises(EndpointPermissionError):
            async with await open_named_pipe(name):
                pass


@fails_under_wine("a pipe's access list is kept and not enforced", versions=[8, 10])
async def test_who_may_connect_need_not_be_able_to_serve(name: str) -> None:
    # All that GENERIC_READ and GENERIC_WRITE mean, less FILE_CREATE_PIPE_INSTANCE.
    sddl = f"D:P(A;;0x12019b;;;{credentials.user_of(win32.current_process())})"
    async with await open_named_pipe_listener(name, sddl=sddl) as listener, await open_named_pipe(name):
        with pytest.raises(EndpointError, match="further instance"):
            async with await listener.accept():
                pass


@fails_under_wine("the level of impersonation that a client allows is ignored", versions=[8, 10])
async def test_a_server_learns_who_the_client_is_and_cannot_act_for_it() -> None:
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.GetCurrentThread.restype = wintypes.HANDLE
    token_query, level_of_impersonation, identification = 0x8, 9, 1
    async with pair() as (client, server):
        await client.send_all(b"x")
        await server.receive_some()
        token, level, size = wintypes.HANDLE(), wintypes.DWORD(), wintypes.DWORD()
        with server._end.in_use() as handle:
            assert advapi32.ImpersonateNamedPipeClient(wintypes.HANDLE(handle))
        try:
            thread = wintypes.HANDLE(kernel32.GetCurrentThread())
            assert advapi32.OpenThreadToken(thread, token_query, True, ctypes.byref(token))
        finally:
            assert advapi32.RevertToSelf()
        assert token.value is not None
        assert advapi32.GetTokenInformation(
            token, level_of_impersonation, ctypes.byref(level), ctypes.sizeof(level), ctypes.byref(size)
        )
        win32.close_handle(token.value)
        assert level.value == identification
