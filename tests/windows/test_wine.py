"""Which Wine ``make test-windows`` runs, and what it says where that cannot be had."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("Wine is started from Unix", allow_module_level=True)
assert sys.platform != "win32"

from tests.windows import wine  # noqa: E402
from tests.windows.wine import ROOT, VERSIONS, Wine  # noqa: E402

OF_DEBIAN_12 = "wine-8.0 (Debian 8.0~repack-4)"
OF_DEBIAN_13 = "wine-10.0 (Debian 10.0~repack-6)"


def answers(monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
    """Have commands say this, one after another."""
    left = list(said)

    def say(_: Sequence[str]) -> str:
        return left.pop(0)

    monkeypatch.setattr(wine, "said_by", say)


def these_tools(monkeypatch: pytest.MonkeyPatch, *tools: str) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: f"/bin/{tool}" if tool in tools else None)


@pytest.mark.parametrize(("version", "major"), [(OF_DEBIAN_12, "8"), (OF_DEBIAN_13, "10"), ("", "")])
def test_a_wine_has_a_number(version: str, major: str) -> None:
    assert Wine(version).major == major


@pytest.mark.parametrize(
    ("own", "wanted"), [(OF_DEBIAN_12, None), (OF_DEBIAN_13, None), (OF_DEBIAN_12, "8"), (OF_DEBIAN_13, "10")]
)
def test_the_machines_own_is_taken_where_it_is_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, wanted: str | None
) -> None:
    these_tools(monkeypatch, "wineserver")
    answers(monkeypatch, own)
    found = wine.find(wanted, tmp_path)
    assert found == Wine(own)
    assert found.program(tmp_path, "python.exe", "-V") == ["wine", "python.exe", "-V"]
    assert found.server(tmp_path, "-k") == ["wineserver", "-k"]
    assert list(tmp_path.iterdir()) == []


def test_an_older_one_than_the_machines_own_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    these_tools(monkeypatch, "wineserver")
    answers(monkeypatch, OF_DEBIAN_13)
    with pytest.raises(
        SystemExit, match=r"this machine has wine-10\.0 .*, and Wine 8 cannot be had beside it"
    ):
        wine.find("8", tmp_path)


def test_a_newer_one_runs_beside_it_where_it_sees_the_tree_and_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, home = tmp_path / "wine-10", tmp_path / "home"
    these_tools(monkeypatch, "wineserver")
    answers(monkeypatch, OF_DEBIAN_12, OF_DEBIAN_13)
    monkeypatch.setattr(wine, "why_not", lambda: None)
    root.mkdir()
    (root / ".complete").touch()
    found = wine.find("10", tmp_path)
    assert found == Wine(OF_DEBIAN_13, root)
    for command, last in (
        (found.program(home, "python.exe", "-V"), ["/usr/lib/wine/wine64", "python.exe", "-V"]),
        (found.server(home, "-k"), ["/usr/lib/wine/wineserver64", "-k"]),
    ):
        assert command[:2] == ["unshare", "--mount"]
        assert command[command.index(str(root)) :] == [str(root), str(ROOT), str(home), "--", *last]
    for seen in (ROOT, home):
        assert (root / seen.relative_to("/")).is_dir()


def test_one_that_cannot_be_had_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, OF_DEBIAN_12)
    monkeypatch.setattr(wine, "why_not", lambda: "it takes this and that")
    with pytest.raises(SystemExit, match="Wine 10 cannot be had on this machine: it takes this and that"):
        wine.find("10", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_unpacked_has_to_be_the_one_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "wine-11.0 (Debian 11.0~repack-1)")
    monkeypatch.setattr(wine, "why_not", lambda: None)
    monkeypatch.setattr(wine, "download", lambda *_: [])
    with pytest.raises(SystemExit, match=r"what Debian trixie has is not Wine 10: it says 'wine-11\.0"):
        wine.unpacked("10", tmp_path / "wine-10")
    assert not (tmp_path / "wine-10" / ".complete").exists()
    assert (tmp_path / "wine-10" / "lib64").readlink() == Path("usr/lib64")


def test_the_library_that_the_packages_script_would_make_is_made(tmp_path: Path) -> None:
    theirs, ours = (
        tmp_path / f"usr/{name}"
        for name in ("x86_64-w64-mingw32/lib", "lib/x86_64-linux-gnu/wine/x86_64-windows")
    )
    theirs.mkdir(parents=True)
    ours.mkdir(parents=True)
    data = bytes(range(200))
    (theirs / "zlib1.dll").write_bytes(data)
    wine.make_builtin(tmp_path)
    made = (ours / "zlib1.dll").read_bytes()
    assert made == data[:64] + b"Wine builtin DLL" + bytes(16) + data[96:]


# --- Why it cannot be had -----------------------------------------------------------------------------------


@pytest.fixture
def capable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that can have it, whatever this one is; its ``unshare`` is in this folder."""
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\nexit 0\n")
    unshare.chmod(stat.S_IRWXU)
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(wine, "_KEYRING", keyring)
    monkeypatch.setattr(wine, "_MACHINE", "x86_64")
    these_tools(monkeypatch, *wine._TOOLS)
    return tmp_path


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Wine is unpacked on Linux alone")


@linux_only
def test_nothing_is_missing_where_it_can_be_had(capable: Path) -> None:
    assert wine.why_not() is None


@linux_only
def test_each_thing_that_is_missing_is_named(capable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(wine, "_MACHINE", "aarch64")
        assert wine.why_not() == "it is for x86_64, and this is aarch64"
    with monkeypatch.context() as patch:
        these_tools(patch, "apt-get", "mount")
        assert wine.why_not() == "that takes Debian's tools, and there is no dpkg-deb and no unshare"
    (capable / "unshare").write_text("#!/bin/sh\necho 'unshare failed: not permitted' >&2; exit 1\n")
    refused = "it takes a mount namespace, which this system refuses: unshare failed: not permitted"
    assert wine.why_not() == refused
    (capable / "keyring.gpg").unlink()
    assert "keyring.gpg to check its packages by (Debian package debian-archive-keyring)" in str(
        wine.why_not()
    )


@pytest.mark.parametrize("targets", ["", "http://a/debian bookworm Packages\nhttp://b/x noble Packages"])
def test_without_an_archive_of_debian_it_says_so(monkeypatch: pytest.MonkeyPatch, targets: str) -> None:
    answers(monkeypatch, targets, "trixie")
    with pytest.raises(SystemExit, match="apt's sources on this machine name no archive of Debian trixie"):
        wine.archive()


def test_the_archive_is_the_one_that_the_machine_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "http://a/security bookworm-security Packages",
        "http://b/debian bookworm Translations",
        "http://b/debian bookworm Packages",
        "http://c/debian bookworm Packages",
    )
    answers(monkeypatch, "\n".join(lines), "bookworm")
    assert wine.archive() == "http://b/debian"


def test_what_fails_on_the_way_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"'sh -c echo why >&2; exit 3' failed \(exit status 3\)"):
        wine.run(["sh", "-c", "echo why >&2; exit 3"])
    assert capfd.readouterr().err == "why\n"


# --- Expected failures --------------------------------------------------------------------------------------


def test_each_expected_failure_names_versions_that_the_tests_are_run_with() -> None:
    named: list[Any] = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for marked in re.findall(r"fails_under_wine\(\s*\"[^\"]*\",?([^)]*)\)", text):
            versions = re.search(r"versions=\[([\d, ]+)\]", marked)
            assert versions, (file, marked)
            named += versions[1].split(", ")
    assert named
    assert set(named) <= {*VERSIONS}
