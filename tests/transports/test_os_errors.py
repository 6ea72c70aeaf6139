from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from trio_ipc import ConnectError, EndpointError, EndpointPermissionError, ServerNotFoundError
from trio_ipc.transports import os_errors

WINDOWS = sys.platform == "win32"


def refused(code: int) -> OSError:
    """What the system raises, by its own number."""
    return OSError(0, "reason", None, code) if WINDOWS else OSError(code, os.strerror(code))


def test_a_process_is_named_where_it_is_known() -> None:
    assert str(os_errors.in_use("here", 17)).startswith("here: in use by process 17; stop it first, or")
    assert str(os_errors.in_use("here", None)).startswith(
        "here: in use by another process; stop it first, or"
    )
    if sys.platform == "linux":
        assert "listens for a unit (systemctl list-sockets): stop that" in str(os_errors.in_use("here", 1))
    assert (os_errors.in_use("here", 17).pid, os_errors.in_use("here", None).pid) == (17, None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2 if WINDOWS else errno.ENOENT, ServerNotFoundError),
        (5 if WINDOWS else errno.EACCES, EndpointPermissionError),
        (53 if WINDOWS else errno.ENOTDIR, ConnectError),
    ],
)
def test_a_refused_connection_says_where_and_what_to_do(code: int, kind: type[ConnectError]) -> None:
    error = os_errors.connect_error(refused(code), "here")
    assert type(error) is kind
    assert error.endpoint == "here"
    assert error.hint


if sys.platform == "win32":

    @pytest.mark.parametrize("code", [5, 53])
    def test_a_pipe_that_cannot_be_made_says_where_and_what_to_do(code: int) -> None:
        error = os_errors.listen_error(refused(code), "here")
        assert isinstance(error, EndpointError)
        assert (error.endpoint, bool(error.hint)) == ("here", True)

else:

    def test_any_other_refusal_has_the_systems_words() -> None:
        error = os_errors.connect_error(refused(errno.ENOTDIR), "here")
        assert str(error) == "here: cannot connect: Not a directory; check the endpoint's path"

    def test_a_socket_of_another_kind_is_named_so() -> None:
        said = str(os_errors.connect_error(refused(errno.EPROTOTYPE), "here"))
        assert said.startswith("here: cannot connect: the socket is of another kind, such as for datagrams")

    def test_a_socket_that_went_as_it_refused_is_a_server_that_died(tmp_path: Path) -> None:
        said = str(os_errors.connect_error(refused(errno.ECONNREFUSED), str(tmp_path / "gone.sock")))
        assert "nobody listens at this socket" in said

    def test_a_file_that_refuses_is_no_server_that_died(tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        said = str(os_errors.connect_error(refused(errno.ECONNREFUSED), str(tmp_path / "file")))
        assert "something else than a socket" in said

    def test_a_directory_too_long_to_make_the_socket_aside_says_what_would_do() -> None:
        said = str(os_errors.too_long("/d/.aside/s", "/d/s", 107, "chmod 700 /d, or "))
        assert "/d/.aside/s, where the socket is made, is longer than 107 bytes; chmod 700 /d" in said

    @pytest.mark.parametrize(
        ("mode", "kind"), [(stat.S_IFLNK, "a symbolic link"), (stat.S_IFREG, "not a socket")]
    )
    def test_what_is_no_socket_is_named(mode: int, kind: str) -> None:
        assert f"the path exists and is {kind}; it was not touched" in str(os_errors.no_socket("here", mode))
