"""``make release-check``: whether this tree may become a release.

    python -m tests.distribution.release [--tag TAG] [--version]

It looks at what a person forgets: what is not committed, a version that was used before, a changelog that
does not tell of it, and a public API that breaks what the last release promised. ``--tag`` is for the tag's
own build: the tag is there, and has to name the version. ``--version`` prints the version, no more.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from .checks import NotFit
from .making import ANSWER_LIMIT, ROOT, TOOL_LIMIT, VERSION_FILE, version_of

#: What users import.
PUBLIC_PACKAGES: Final = ("trio_ipc", "pytest_trio_ipc")

#: The exit status of `tests.distribution.api` where something breaks.
BREAKS: Final = 3

_HEADING: Final = re.compile(r"^## \[([^\]]+)\] - (.*)$", re.MULTILINE)


def git(root: Path, *arguments: str) -> str:
    """Return what Git says. Raises :exc:`NotFit` where it fails."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        timeout=ANSWER_LIMIT,
        check=False,
    )
    if done.returncode != 0:
        raise NotFit(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.rstrip()


def check_clean(root: Path) -> None:
    """Raise :exc:`NotFit` where something is not committed."""
    if changed := git(root, "status", "--porcelain"):
        raise NotFit(f"not committed: {', '.join(line[3:] for line in changed.splitlines())}")


def last_tag(root: Path, *, before: str = "") -> str | None:
    """Return the newest release's tag that leads to this commit, other than ``before``."""
    tags = git(root, "tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-version:refname").splitlines()
    return next((tag for tag in tags if tag != before), None)


def numbers(version: str) -> tuple[int, int, int]:
    """Return a version's three numbers. Raises :exc:`NotFit` where it is none of a release."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise NotFit(f"{version} is no version of a release: three numbers with points between them")
    return int(found[1]), int(found[2]), int(found[3])


def check_version(root: Path, version: str, tag: str | None) -> None:
    """Raise :exc:`NotFit` where the version was used, does not follow the last one, or is not the tag's."""
    if tag is not None and tag != f"v{version}":
        raise NotFit(f"the tag is {tag} and the version {version}: the tag must be v{version}")
    if tag is None and git(root, "tag", "--list", f"v{version}"):
        raise NotFit(f"{version} has a tag already: raise __version__ in {VERSION_FILE}")
    before = last_tag(root, before=f"v{version}")
    if numbers(version) <= numbers(before or "0.0.0"):
        raise NotFit(f"{version} does not follow {before}: raise __version__ in {VERSION_FILE}")


def fragments(root: Path) -> list[Path]:
    """Return the newsfragments that no changelog has yet."""
    return sorted(file for file in (root / "newsfragments").glob("*.md") if file.name != "README.md")


def check_changelog(root: Path, version: str) -> None:
    """Raise :exc:`NotFit` where the changelog does not begin with this version and its date."""
    if left := fragments(root):
        names = ", ".join(file.name for file in left)
        raise NotFit(f"newsfragments that are in no changelog: {names}; run `make changelog`")
    headings = _HEADING.findall((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    told = [told for told, _ in headings]
    if told[:1] != [version] or told.count(version) != 1:
        has = ", ".join(told) or "none"
        raise NotFit(f"CHANGELOG.md must begin with one section of {version}; it has {has}")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", headings[0][1]):
        raise NotFit(f"CHANGELOG.md says {headings[0][1]!r} of {version}: it must be a date as 2026-01-31")


def may_break(before: str, version: str) -> bool:
    """Return whether a version may break what another one promised: docs/stability.md."""
    old, new = numbers(before), numbers(version)
    return new[0] > old[0] or (new[0] == 0 and new[1] > old[1])


def breakages(root: Path, before: str) -> str:
    """Return how the public API breaks that of a tag, a line for each; nothing where it does not."""
    # A process of its own: griffe is not where the tests run.
    command = [sys.executable, "-m", "tests.distribution.api", before, str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False)
    if done.returncode not in {0, BREAKS}:
        raise NotFit(f"griffe ended with {done.returncode}: {done.stderr}")
    return done.stdout


def check_api(root: Path, version: str) -> str:
    """Return a line that says how the public API compares with that of the last release.

    Raises:
        NotFit: it breaks what this version may not.
    """
    before = last_tag(root, before=f"v{version}")
    if before is None:
        return "there is no release to compare the public API with"
    found = breakages(root, before)
    if not found:
        return f"the public API breaks nothing of {before}"
    if may_break(before, version):
        return f"the public API breaks this of {before}; the changelog has to tell it:\n{found}"
    raise NotFit(f"{version} may break nothing of {before}, and does:\n{found}")


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Check all of it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.distribution.release", description=__doc__)
    parser.add_argument("--tag", help="the tag that is built")
    parser.add_argument("--version", action="store_true", help="print the version")
    asked = parser.parse_args(arguments)
    try:
        version = version_of(root)
        if asked.version:
            print(version)
            return 0
        check_clean(root)
        check_version(root, version, asked.tag)
        check_changelog(root, version)
        compared = check_api(root, version)
    except NotFit as exc:
        print(f"make release-check: {exc}", file=sys.stderr)
        return 1
    print(f"make release-check: {version} is committed, new and told; {compared}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
