"""What the files at an endpoint say; as the command shows it, it is in tests/cli/test_doctor.py."""

from __future__ import annotations

import errno
import os
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports.findings import BROKEN, WARNING, of_lock  # noqa: E402


@pytest.mark.parametrize(
    ("code", "verdict"), [(errno.EACCES, WARNING), (errno.EPERM, WARNING), (errno.ELOOP, BROKEN)]
)
def test_a_lock_that_is_another_users_may_do_for_that_user_and_one_that_is_none_does_for_nobody(
    directory: str, code: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink("elsewhere", f"{directory}/.s.sock.lock")

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        [found] = of_lock(f"{directory}/s.sock")
    assert found.verdict == verdict
    assert f"a symbolic link: {os.strerror(code)}" in found.seen


def test_a_lock_that_is_a_link_is_broken_and_none_is_well(directory: str) -> None:
    assert [*of_lock(f"{directory}/s.sock")] == []
    os.symlink("elsewhere", f"{directory}/.s.sock.lock")
    [found] = of_lock(f"{directory}/s.sock")
    assert found.verdict == BROKEN
