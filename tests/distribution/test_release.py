"""What `make release-check` lets pass, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distribution import release
from tests.distribution.checks import NotFit
from tests.distribution.making import ROOT, VERSION_FILE, version_of

CHANGELOG = "# Changelog\n\n## [0.2.0] - 2026-11-26\n\n- More.\n\n## [0.1.0] - 2026-01-02\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of 0.2.0 after the release of 0.1.0."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)  # of a hook that runs the tests
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    release.git(tmp_path, "init", "--quiet")
    (tmp_path / "trio_ipc").mkdir()
    (tmp_path / "newsfragments").mkdir()
    (tmp_path / "newsfragments" / "README.md").write_text("How.\n")
    be(tmp_path, "0.1.0")
    release.git(tmp_path, "tag", "v0.1.0")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    be(tmp_path, "0.2.0")
    return tmp_path


def be(tree: Path, version: str) -> None:
    """Have a version, and commit it."""
    (tree / VERSION_FILE).write_text(f'__version__ = "{version}"\n')
    commit(tree)


def commit(tree: Path) -> None:
    release.git(tree, "add", "--all")
    release.git(tree, "-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "--message", "it")


def nothing_breaks(*_: object) -> str:
    return ""


def breaks_something(*_: object) -> str:
    return "trio_ipc/__init__.py:1: open_client was removed\n"


def test_the_version_is_read_without_an_import_and_is_that_of_this_tree() -> None:
    import trio_ipc

    assert version_of(ROOT) == trio_ipc.__version__


def test_a_file_without_a_version_is_told(tree: Path) -> None:
    (tree / VERSION_FILE).write_text("version = 1\n")
    with pytest.raises(ValueError, match="sets no __version__"):
        version_of(tree)


def test_a_tree_that_is_ready_passes(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release, "breakages", nothing_breaks)
    assert release.main([], tree) == 0
    assert capsys.readouterr().out == (
        "make release-check: 0.2.0 is committed, new and told; the public API breaks nothing of v0.1.0\n"
    )


def test_the_tags_own_build_passes_too(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "breakages", nothing_breaks)
    release.git(tree, "tag", "v0.2.0")
    assert release.main(["--tag", "v0.2.0"], tree) == 0


def test_the_first_release_is_compared_with_nothing_and_it_says_so(tree: Path) -> None:
    release.git(tree, "tag", "--delete", "v0.1.0")
    assert release.check_api(tree, "0.2.0") == "there is no release to compare the public API with"


def leave_something(tree: Path) -> None:
    (tree / "notes.txt").touch()


def tag_it(tree: Path) -> None:
    release.git(tree, "tag", "v0.2.0")


def go_back(tree: Path) -> None:
    be(tree, "0.0.9")


def be_no_release(tree: Path) -> None:
    be(tree, "0.2.0.dev1")


def leave_a_fragment(tree: Path) -> None:
    (tree / "newsfragments" / "42.fixed.md").write_text("Mended.\n")
    commit(tree)


def tell_another_version(tree: Path) -> None:
    be(tree, "0.3.0")


def tell_it_twice(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text(CHANGELOG + "\n## [0.2.0] - unreleased\n")
    commit(tree)


def tell_no_date(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text(CHANGELOG.replace("2026-11-26", "unreleased"))
    commit(tree)


@pytest.mark.parametrize(
    ("spoil", "arguments", "told"),
    [
        (leave_something, [], "not committed: notes.txt"),
        (tag_it, [], "0.2.0 has a tag already: raise __version__ in"),
        (go_back, [], "0.0.9 does not follow v0.1.0"),
        (be_no_release, [], "0.2.0.dev1 is no version of a release"),
        (leave_a_fragment, [], "in no changelog: 42.fixed.md; run `make changelog`"),
        (tell_another_version, [], "must begin with one section of 0.3.0; it has 0.2.0, 0.1.0"),
        (tell_it_twice, [], "must begin with one section of 0.2.0; it has 0.2.0, 0.1.0, 0.2.0"),
        (tell_no_date, [], "says 'unreleased' of 0.2.0: it must be a date"),
        (tag_it, ["--tag", "v0.2.1"], "the tag is v0.2.1 and the version 0.2.0"),
    ],
)
def test_what_is_not_ready_is_one_line_that_says_why(
    tree: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    arguments: list[str],
    told: str,
) -> None:
    spoil(tree)
    assert release.main(arguments, tree) == 1
    said = capsys.readouterr().err
    assert said.startswith("make release-check: ")
    assert told in said
    assert said.count("\n") == 1


def test_a_folder_that_is_no_repository_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trio_ipc").mkdir()
    (tmp_path / VERSION_FILE).write_text('__version__ = "1.0.0"\n')
    assert release.main([], tmp_path) == 1
    assert "git status: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "version", "may"),
    [
        ("v0.1.0", "0.1.1", False),
        ("v0.1.0", "0.2.0", True),
        ("v0.9.0", "1.0.0", True),
        ("v1.0.0", "1.1.0", False),
        ("v1.4.2", "2.0.0", True),
    ],
)
def test_a_minor_version_may_break_something_before_1_0_and_a_major_one_after(
    before: str, version: str, may: bool
) -> None:
    assert release.may_break(before, version) is may


def test_what_breaks_is_told_or_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "breakages", breaks_something)
    assert "open_client was removed" in release.check_api(tree, "0.2.0")
    with pytest.raises(NotFit, match=r"0\.1\.1 may break nothing of v0\.1\.0, and does:\n.*open_client"):
        release.check_api(tree, "0.1.1")


def test_griffe_that_is_not_there_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 2, "", "no such option")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(NotFit, match="griffe ended with 2: no such option"):
        release.breakages(tree, "v0.1.0")


#: The environment that has griffe.
GRIFFE = ROOT / ".venv-dist" / "bin" / "python"

OLD = """
__all__ = ["call", "gone"]
from .calls import call, gone
"""
CALLS = """
def call(request, timeout=None): ...
def gone(): ...
def private(wanted): ...
"""


@pytest.mark.skipif(
    not (ROOT / ".venv-dist" / ".locked").exists(), reason="`make dist` makes the environment that has griffe"
)
def test_what_breaks_of_the_public_api_is_found_and_nothing_else(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_api(init: str, calls: str) -> None:
        (tree / VERSION_FILE).write_text(init)
        (tree / "trio_ipc" / "calls.py").write_text(calls)
        (tree / "pytest_trio_ipc").mkdir(exist_ok=True)
        (tree / "pytest_trio_ipc" / "__init__.py").write_text("def fixture(): ...\n")
        commit(tree)

    commit_api(OLD, CALLS)
    release.git(tree, "tag", "v0.3.0")
    monkeypatch.setattr(sys, "executable", str(GRIFFE))
    assert release.breakages(tree, "v0.3.0") == ""
    commit_api(OLD, CALLS.replace("wanted", "wanted, more"))
    assert release.breakages(tree, "v0.3.0") == ""
    commit_api(OLD.replace(', "gone"', "").replace(", gone", ""), CALLS.replace("timeout=None", "timeout"))
    found = release.breakages(tree, "v0.3.0").splitlines()
    assert len(found) == 2
    assert "gone" in "".join(found)
    assert "timeout" in "".join(found)
