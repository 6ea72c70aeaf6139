from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_ipc import ConfigError, IpcConfig, PeerCredentials, PeerPolicy
from trio_ipc.transports import Executable
from trio_ipc.transports.policy import Verdict

if sys.platform == "win32":
    pytest.skip("Unix names its users by numbers", allow_module_level=True)
assert sys.platform != "win32"

import pwd  # noqa: E402

from trio_ipc.transports import accounts  # noqa: E402
from trio_ipc.transports.credentials import peer_credentials  # noqa: E402

ME = os.geteuid()
MY_NAME = pwd.getpwuid(ME).pw_name

#: More digits than Python writes out.
HUGE = pytest.param(10**5000, id="a number of 5,001 digits")


# --- Users --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [0, "0", "root", "00"])
def test_a_user_is_a_number_digits_or_a_name(user: int | str) -> None:
    policy = PeerPolicy.users([user])
    assert policy.allowed == frozenset({0})
    assert policy.allows(PeerCredentials(uid=0))
    assert not policy.allows(PeerCredentials(uid=1))
    assert str(policy) == "user 0"


def test_a_name_means_the_number_that_it_has_now() -> None:
    assert PeerPolicy.users((MY_NAME, str(ME), ME)).allowed == frozenset({ME})


@pytest.mark.parametrize(
    "user",
    [
        "no such user", "", "ro\0ot", "\udcff", "-1", "+0", "0x0", " 0", "1e3", "\u0660", "\u00b2",
        "4294967295", -1, 2**32 - 1, 2**32, HUGE, True, False, None, 1.0, b"root", ("root",), "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_user_is_refused_by_one_error_that_names_it(user: object) -> None:
    with pytest.raises(ConfigError, match="is no user of this system; give a user's name or its number") as e:
        PeerPolicy.users([0, user])  # type: ignore[list-item]
    assert len(str(e.value)) < 300


@pytest.mark.parametrize("users", ["root", "0", b"root", 0, None])
def test_one_user_is_no_list_of_users(users: object) -> None:
    """A string would be read as a list of its letters."""
    with pytest.raises(ConfigError, match="users.. was given .*, must be a list of users; PeerPolicy.users"):
        PeerPolicy.users(users)  # type: ignore[arg-type]


def test_a_look_up_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(_: str) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(pwd, "getpwnam", out_of_descriptors)
    with pytest.raises(ConfigError, match="'root' is no user of this system .Too many open files."):
        PeerPolicy.users(["root"])


def test_no_user_at_all_may_be_allowed() -> None:
    assert not PeerPolicy.users([]).allows(PeerCredentials(uid=0))


# --- Groups -------------------------------------------------------------------------------------------------


def test_a_group_is_a_number_digits_or_a_name_and_adds_its_members_to_the_default() -> None:
    import grp

    name = grp.getgrgid(0).gr_name
    for group in (0, "0", name):
        policy = PeerPolicy.group(group)
        assert (policy.allowed, policy.groups) == (frozenset({ME, 0}), frozenset({0}))
    policy = PeerPolicy.group(4711)
    assert policy.judge(PeerCredentials(uid=ME, groups=frozenset({4711}))).by == f"user {ME}"
    assert policy.judge(PeerCredentials(uid=99, gid=99, groups=frozenset({99, 4711}))).by == "group 4711"
    assert not policy.allows(PeerCredentials(uid=99, gid=99, groups=frozenset({99})))
    assert not policy.allows(PeerCredentials(groups=frozenset({4711}))), "a user who is not known"
    assert str(policy) == f"user {' or '.join(sorted({str(ME), '0'}))} or group 4711"


@pytest.mark.parametrize("group", ["no such group", "", -1, True, None, 2**32])
def test_what_is_no_group_is_refused(group: object) -> None:
    with pytest.raises(ConfigError, match="is no group of this system; give a group's name or its number"):
        PeerPolicy.group(group)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        accounts.gid_of(group)


def test_the_servers_default_follows_its_socket_group() -> None:
    assert PeerPolicy.of(None) == PeerPolicy.own_user_and_root()
    assert PeerPolicy.of(None, group="4711") == PeerPolicy.group(4711)
    anyone = PeerPolicy.anyone()
    assert PeerPolicy.of(anyone, group="4711") is anyone


@pytest.mark.parametrize("group", [4711, "4711", "daemoneye"])
def test_a_configuration_names_the_group_by_name_or_number(group: int | str) -> None:
    assert IpcConfig(socket_group=group).socket_group == str(group)
    environ = {"TRIO_IPC_SOCKET_GROUP": str(group)}
    assert IpcConfig.load(environ=environ).socket_group == str(group)


def test_a_number_in_toml_is_a_group_too(tmp_path: Path) -> None:
    (tmp_path / "ipc.toml").write_text("[ipc]\nsocket_group = 4711\n")
    assert IpcConfig.load(tmp_path / "ipc.toml", environ={}).socket_group == "4711"


@pytest.mark.parametrize("group", ["", "-1", -1, True, "a\0b", 1.5, b"x"])
def test_a_configuration_refuses_what_names_no_group(group: object) -> None:
    with pytest.raises(ConfigError, match="socket_group is .*, must be the name or the number of a group"):
        IpcConfig(socket_group=group)


@pytest.mark.skipif(sys.platform != "linux" or ME != 0, reason="takes root on Linux: it takes on groups")
def test_the_groups_of_a_peer_are_the_kernels_as_they_were_when_it_connected() -> None:
    before = os.getgroups()
    os.setgroups([4711, 4712])
    left, right = socket.socketpair()
    with left, right:
        os.setgroups(before)
        assert peer_credentials(left).groups == {os.getegid(), 4711, 4712}


@pytest.mark.skipif(sys.platform != "linux" or ME != 0, reason="takes root on Linux: it takes on groups")
def test_more_groups_than_there_is_room_for_leave_the_first() -> None:
    before = os.getgroups()
    os.setgroups(range(1, 1001))
    left, right = socket.socketpair()
    os.setgroups(before)
    with left, right:
        assert peer_credentials(left).groups == {os.getegid()}


# --- Programs -----------------------------------------------------------------------------------------------


class _Runs:
    """In place of the kernel's process."""

    def __init__(self, program: Callable[[], Executable | None]) -> None:
        self._program = program

    def executable(self) -> Executable | None:
        return self._program()


def running(path: str | None, *, says: str | None = None) -> PeerCredentials:
    def program() -> Executable | None:
        if path is None:
            return None
        found = os.stat(path)
        return Executable(says or path, (found.st_dev, found.st_ino))

    return PeerCredentials(pid=7, uid=ME, gid=5, process=_Runs(program))  # type: ignore[arg-type]


def test_a_program_is_compared_as_a_file_and_not_by_the_path_that_it_shows(tmp_path: Path) -> None:
    agent, other = tmp_path / "agent", tmp_path / "other"
    for file in (agent, other):
        file.touch()
    (tmp_path / "link").symlink_to(agent)
    policy = PeerPolicy.own_user_and_root().running(agent, "/no/such/program")
    assert policy.judge(running(str(agent))) == Verdict(
        True, f"process 7, uid {ME}, gid 5, running {agent}", f"user {ME}"
    )
    assert policy.allows(running(str(agent), says="/somewhere/else"))
    assert policy.judge(running(str(other), says=str(agent))) == Verdict(
        False, f"process 7, uid {ME}, gid 5, running {agent}"
    )
    assert PeerPolicy.own_user_and_root().running(tmp_path / "link").allows(running(str(agent)))
    assert str(policy).endswith(f"running /no/such/program or {agent}")


def test_a_program_that_cannot_be_told_is_refused_even_of_anyone() -> None:
    policy = PeerPolicy.anyone().running(sys.executable)
    assert policy.judge(running(None)).peer == f"process 7, uid {ME}, gid 5, whose program cannot be told"
    assert not policy.allows(running(None))
    assert not policy.allows(PeerCredentials())
    assert not policy.allows(None)
    assert not PeerPolicy.anyone().running("/no/such/program").allows(running(None))


def test_the_right_program_of_the_wrong_user_is_refused() -> None:
    policy = PeerPolicy.users([ME + 1]).running(sys.executable)
    assert policy.judge(running(sys.executable)).by == ""


def test_a_programs_path_is_shown_so_that_it_can_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    said = (
        PeerPolicy.own_user_and_root().running("/bin/x").judge(running(str(tmp_path / "x"), says="/\x1b[m"))
    )
    assert said.peer.endswith(r"running /\x1b[m")


@pytest.mark.parametrize("paths", [(), ("agent",), ("/bin/sh", "./agent"), ("",)])
def test_programs_are_named_by_absolute_paths(paths: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="running.. was given .*, must be absolute paths of programs"):
        PeerPolicy.anyone().running(*paths)


def test_a_policy_stays_a_value() -> None:
    assert PeerPolicy.users([1]) == PeerPolicy.users(["1"])
    assert hash(PeerPolicy.group(1).running("/x")) == hash(PeerPolicy.group(1).running("/x"))
