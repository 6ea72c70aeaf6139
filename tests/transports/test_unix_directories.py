"""Unix sockets: which paths and directories are refused."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from trio_ipc import (
    EndpointError,
    EndpointUnsafeError,
)

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"


from tests.transports.sockets import (  # noqa: E402
    as_root,
    dead_socket,
    for_both,
    mode_of,
)
from trio_ipc.transports.unix_listener import listen_unix as listen  # noqa: E402


@for_both
@pytest.mark.parametrize("kind", ["file", "directory", "link to nothing", "link to a dead socket", "fifo"])
async def test_what_is_no_socket_is_refused_and_never_touched(path: str, kind: str) -> None:
    if kind == "file":
        with open(path, "w") as file:
            file.write("precious")
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link to a dead socket":
            dead_socket(path + "2")
        os.symlink(path + "2", path)
    before = os.lstat(path)
    what = "a symbolic link" if kind.startswith("link") else "not a socket"
    with pytest.raises(EndpointUnsafeError, match=f"exists and is {what}; it was not touched"):
        await listen(path)
    assert os.lstat(path) == before


@for_both
async def test_a_directory_that_is_a_symbolic_link_is_refused(directory: str) -> None:
    os.mkdir(f"{directory}/real", 0o700)
    os.symlink(f"{directory}/real", f"{directory}/link")
    with pytest.raises(EndpointUnsafeError, match="link is a symbolic link"):
        await listen(f"{directory}/link/test.sock")
    with open(f"{directory}/file", "w"):
        pass
    with pytest.raises(EndpointUnsafeError, match="file is not a directory"):
        await listen(f"{directory}/file/test.sock")


@for_both
@pytest.mark.parametrize(
    ("mode", "advice"),
    [(0o720, "chmod 700"), (0o702, "chmod 700"), (0o777, "chmod 700"), (0o1777, "a missing one is created")],
)
async def test_a_directory_that_others_can_write_is_refused(directory: str, mode: int, advice: str) -> None:
    os.chmod(directory, mode)
    with pytest.raises(EndpointUnsafeError, match=f"can write the directory {directory}.*{advice}") as caught:
        await listen(f"{directory}/test.sock")
    is_shared = bool(mode & stat.S_ISVTX)
    assert ("chmod" in str(caught.value)) is not is_shared, "nobody is told to close /tmp"


@for_both
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "who"),
    [
        (0o777, -1, -1, "anyone"),
        pytest.param(0o775, -1, 12_345, "group 12345", marks=as_root),
        pytest.param(0o755, 12_345, -1, "uid 12345", marks=as_root),
        # The owner of a sticky directory may rename anything in it.
        pytest.param(0o1777, 12_345, -1, "uid 12345", marks=as_root),
    ],
)
async def test_a_directory_that_somebody_else_could_replace_is_refused(
    directory: str, mode: int, uid: int, gid: int, who: str
) -> None:
    os.makedirs(f"{directory}/own/deeper", 0o700)
    os.chown(directory, uid, gid)
    os.chmod(directory, mode)
    deeper = f"{directory}/own/deeper"
    with pytest.raises(EndpointUnsafeError, match=f"{who} can replace the directory {deeper}, by way"):
        await listen(f"{deeper}/test.sock")


@for_both
@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o775])
async def test_a_directory_that_others_can_not_replace_is_good(directory: str, mode: int) -> None:
    """In a sticky directory nobody renames what is ours; and a group of one's own is usual."""
    os.mkdir(f"{directory}/own", 0o700)
    os.chmod(directory, mode)
    async with await listen(f"{directory}/own/test.sock"):
        pass


@for_both
@as_root
async def test_a_way_through_somebody_elses_link_is_refused(directory: str) -> None:
    os.chmod(directory, 0o1777)
    os.makedirs(f"{directory}/real/own", 0o700)
    os.symlink(f"{directory}/real", f"{directory}/link")
    async with await listen(f"{directory}/link/own/test.sock"):
        pass
    os.lchown(f"{directory}/link", 12_345, -1)
    with pytest.raises(EndpointUnsafeError, match=f"uid 12345 can replace .*by way of {directory}/link"):
        await listen(f"{directory}/link/own/test.sock")


@for_both
@as_root
async def test_another_users_directory_is_refused(directory: str) -> None:
    os.chown(directory, 12_345, -1)
    with pytest.raises(EndpointUnsafeError, match=f"{directory} belongs to uid 12345"):
        await listen(f"{directory}/test.sock")


@for_both
async def test_a_directory_that_others_may_only_read_is_taken_and_left_as_it_is(directory: str) -> None:
    os.chmod(directory, 0o755)
    async with await listen(f"{directory}/test.sock"):
        assert mode_of(f"{directory}/test.sock") == 0o600
    assert mode_of(directory) == 0o755


@for_both
async def test_a_directory_that_cannot_be_made_is_one_clear_error(directory: str) -> None:
    with open(f"{directory}/file", "w"):
        pass
    with pytest.raises(
        EndpointError, match=f"cannot listen as uid .*: Not a directory .{directory}/file/deeper"
    ):
        await listen(f"{directory}/file/deeper/test.sock")
