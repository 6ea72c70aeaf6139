"""A directory that everyone can write and that is not sticky, such as a Kubernetes ``emptyDir`` volume.

Others can rename what is in it. So nothing there can be followed, and a directory right in it is good if it
is this user's alone.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hardening.record import ROOT, Attack
from trio_ipc import EndpointUnsafeError, IpcConfig, PeerPolicy, TransportType

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc import legacy  # noqa: E402
from trio_ipc.transports import DetachableListener, listen, unix_binding, unix_paths  # noqa: E402

STRANGER = 12_345
GROUP = 12_346

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it gives directories away")

Starts = Callable[[str], Awaitable[DetachableListener[Any]]]


@pytest.fixture
def start(transport: TransportType) -> Starts:
    """Listens at a path, by each transport."""

    async def start(path: str) -> DetachableListener[Any]:
        if transport is TransportType.LEGACY:
            return await legacy.listen(IpcConfig(endpoint_path=path), PeerPolicy.own_user_and_root())
        return await listen(path, PeerPolicy.own_user_and_root())

    return start


@pytest.fixture
def volume(directory: str) -> str:
    os.chmod(directory, 0o777)
    return directory


async def test_a_private_directory_right_in_it_is_made_and_good_and_the_log_says_what_remains(
    volume: str, start: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # made, and found
        async with await start(f"{volume}/private/test.sock"):
            assert stat.S_IMODE(os.stat(f"{volume}/private").st_mode) == 0o700
    said = f"anyone can rename {volume}/private in {volume}, and so take the endpoint away"
    assert [record.levelname for record in caplog.records if said in record.getMessage()] == ["WARNING"] * 2
    assert f"chmod +t {volume} prevents that" in caplog.text


async def test_what_the_warning_advises_ends_it(
    volume: str, start: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    os.chmod(volume, 0o1777)
    async with await start(f"{volume}/private/test.sock"):
        pass
    assert "can rename" not in caplog.text


async def test_in_a_volume_with_a_set_group_id_bit_the_directory_is_good_too(
    volume: str, start: Starts
) -> None:
    os.chmod(volume, 0o2777)  # what fsGroup makes of it
    async with await start(f"{volume}/private/test.sock"):
        assert stat.S_IMODE(os.stat(f"{volume}/private").st_mode) & 0o777 == 0o700


async def test_the_volume_itself_is_refused_with_a_hint_that_can_be_followed(
    volume: str, start: Starts
) -> None:
    advised = f"{volume}/private/test.sock"
    with pytest.raises(EndpointUnsafeError, match=rf"mode 0777.*use .* in it, such as {advised}; a missing"):
        await start(f"{volume}/test.sock")
    async with await start(advised):
        pass


@as_root
def test_another_user_can_follow_the_hint_in_a_volume_of_roots(volume: str) -> None:
    """As a container does that does not run as root."""
    program = (
        "import os, sys, trio\n"
        "from trio_ipc import EndpointUnsafeError\n"
        "from trio_ipc.transports import listen, PeerPolicy\n"
        f"os.setgid({STRANGER}); os.setuid({STRANGER})\n"
        "async def main():\n"
        "    try: await listen(sys.argv[1] + '/test.sock', PeerPolicy.own_user_and_root())\n"
        "    except EndpointUnsafeError as exc: print(exc)\n"
        "    async with await listen(sys.argv[1] + '/private/test.sock', PeerPolicy.own_user_and_root()):\n"
        "        print('listening')\n"
        "trio.run(main)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, volume], cwd=ROOT, capture_output=True, text=True, check=True
    )
    refusal, listening = run.stdout.splitlines()
    assert listening == "listening"
    # It is not the owner, and is not told to change a mode that it can't.
    assert "chmod" not in refusal
    assert f"such as {volume}/private/test.sock; a missing one is created" in refusal


async def test_a_directory_further_down_is_refused_and_nothing_is_made(volume: str, start: Starts) -> None:
    with pytest.raises(
        EndpointUnsafeError, match=f"anyone can replace.*right in it, such as {volume}/private"
    ):
        await start(f"{volume}/private/deeper/test.sock")
    assert os.listdir(volume) == []
    os.makedirs(f"{volume}/private/deeper", 0o700)
    with pytest.raises(EndpointUnsafeError, match="anyone can replace"):
        await start(f"{volume}/private/deeper/test.sock")


async def test_a_way_back_through_it_is_refused(volume: str, start: Starts) -> None:
    os.mkdir(f"{volume}/private", 0o700)
    with pytest.raises(EndpointUnsafeError, match="anyone can replace"):
        await start(f"{volume}/private/../test.sock")


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711, 0o704])
async def test_a_directory_in_it_that_others_can_pass_is_refused(
    volume: str, start: Starts, mode: int
) -> None:
    os.mkdir(f"{volume}/private")
    os.chmod(f"{volume}/private", mode)
    with pytest.raises(
        EndpointUnsafeError, match=rf"is not private to .*mode {mode:04o}.*chmod 700 {volume}/p"
    ):
        await start(f"{volume}/private/test.sock")


@as_root
async def test_a_directory_of_somebody_elses_in_it_is_refused(volume: str, start: Starts) -> None:
    os.mkdir(f"{volume}/private", 0o700)
    os.chown(f"{volume}/private", STRANGER, -1)
    with pytest.raises(EndpointUnsafeError, match=f"belongs to uid {STRANGER}"):
        await start(f"{volume}/private/test.sock")


@as_root
def test_a_directory_of_roots_in_it_is_none_of_another_users(
    volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{volume}/private", 0o700)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(
        EndpointUnsafeError, match=rf"not private to uid {STRANGER} .mode 0700, uid 0.*not exist"
    ):
        unix_paths._Way(f"{volume}/private/test.sock", None, others=False).opened()


async def test_a_link_in_it_is_refused(volume: str, start: Starts) -> None:
    os.mkdir(f"{volume}/real", 0o700)
    os.symlink(f"{volume}/real", f"{volume}/private")
    with pytest.raises(EndpointUnsafeError, match="private is a symbolic link"):
        await start(f"{volume}/private/test.sock")
    with pytest.raises(EndpointUnsafeError, match="anyone can replace"):
        await start(f"{volume}/private/deeper/test.sock")


@as_root
@pytest.mark.parametrize("mode", [0o775, 0o2770])
async def test_a_volume_that_a_group_can_write_is_alike(
    volume: str, start: Starts, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    os.chown(volume, -1, GROUP)
    os.chmod(volume, mode)
    async with await start(f"{volume}/private/test.sock"):
        assert f"group {GROUP} can rename {volume}/private" in caplog.text
    with pytest.raises(EndpointUnsafeError, match=f"group {GROUP} can replace"):
        await start(f"{volume}/private/deeper/test.sock")


@as_root
async def test_a_volume_of_another_users_is_refused(volume: str, start: Starts) -> None:
    os.chown(volume, STRANGER, -1)
    with pytest.raises(EndpointUnsafeError, match=f"uid {STRANGER} can replace"):
        await start(f"{volume}/private/test.sock")
    assert os.listdir(volume) == []


@as_root
async def test_a_group_of_users_takes_a_sticky_one(volume: str) -> None:
    """A directory that is widened must be the very one that was made."""
    path = f"{volume}/private/test.sock"
    with pytest.raises(
        EndpointUnsafeError, match=rf"anyone can replace .*; have its owner chmod \+t {volume}$"
    ):
        await unix_binding.listening(path, GROUP)
    assert os.listdir(volume) == []
    os.chmod(volume, 0o1777)
    detached = await unix_binding.listening(path, GROUP)
    assert stat.S_IMODE(os.stat(f"{volume}/private").st_mode) == 0o750
    unix_binding.remove(detached)
    detached.socket.close()


@contextmanager
def swapped_before_it_is_opened(
    directory: str, put: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """At the last moment somebody renames the directory that was found, and puts something in its place."""
    really = os.open

    def swap_and_open(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == directory and not os.path.lexists(f"{directory}-gone"):
            os.rename(directory, f"{directory}-gone")
            put(directory)
        return really(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", swap_and_open)
        yield
    assert os.path.lexists(f"{directory}-gone")


def a_strangers_directory(path: str) -> None:
    os.mkdir(path, 0o700)
    os.chown(path, STRANGER, STRANGER)


def an_open_directory(path: str) -> None:
    os.mkdir(path)
    os.chmod(path, 0o755)


def a_link_to_ours(path: str) -> None:
    os.mkdir(f"{path}-other", 0o700)
    os.symlink(f"{path}-other", path)


def a_file(path: str) -> None:
    Path(path).touch()


@as_root
@pytest.mark.parametrize("put", [a_strangers_directory, an_open_directory, a_link_to_ours, a_file])
async def test_what_somebody_puts_in_its_place_at_the_last_moment_is_refused(
    volume: str, start: Starts, put: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    private = f"{volume}/private"
    with swapped_before_it_is_opened(private, put, monkeypatch), pytest.raises(EndpointUnsafeError):
        await start(f"{private}/test.sock")
    made = [name for _, _, names in os.walk(volume) for name in names]
    assert made == (["private"] if put is a_file else [])
    attack(
        "in a volume that everyone can write, a server's directory swapped for a stranger's, an open one, a "
        "link or a file, between the look and the opening",
        tried=1,
        outcome="`EndpointUnsafeError`; nothing was made in it",
    )
