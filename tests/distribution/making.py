"""Makes the wheel and the sdist, from a copy of the tree: nothing that tools leave there gets into them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

#: The README as an index of packages shows it, where no file is beside it.
INDEX_PAGE: Final = "README.index.md"

#: Where the version stands, and nowhere else.
VERSION_FILE: Final = Path("trio_ipc", "__init__.py")
#: Seconds until a tool counts as hung, on a slow network and a busy machine; and until a run of tests does.
TOOL_LIMIT: Final = 900.0
TESTS_LIMIT: Final = 3600.0

#: Seconds for a program that only says something.
ANSWER_LIMIT: Final = 60.0


def copy_of_the_tree(scratch: Path, root: Path = ROOT) -> Path:
    """Copy what belongs to the project, which is what .gitignore does not name; return the copy."""
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [".git", *(line.rstrip("/") for line in lines)]

    def left_over(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(root)
        # As Git has it: with a slash in it a pattern is of the path, without one of the name.
        return {
            name
            for name in names
            for pattern in ignored
            if fnmatchcase((inside / name).as_posix() if "/" in pattern else name, pattern)
        }

    tree = scratch / "tree"
    shutil.copytree(root, tree, ignore=left_over)
    return tree


def version_of(tree: Path) -> str:
    """Return the version of a tree, without importing it."""
    for node in ast.parse((tree / VERSION_FILE).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise ValueError(f"{VERSION_FILE} sets no __version__")


def absolute_links(text: str, repository: str, version: str) -> str:
    """Return a page whose links to files of the tree lead to the repository's pages of this version.

    Args:
        text: the page.
        repository: the address of its page, as ``[project.urls]`` has it. Files are at ``/blob/`` and
            pictures at ``/raw/`` below, as the usual hosts have them.
        version: the release, whose tag is ``v`` and the version.
    """

    def absolute(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        return f"{picture}[{label}]({repository}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", absolute, text)


def with_links(project: str, repository: str) -> str:
    """Return pyproject.toml's text with the project's links, and the index page as its README."""
    links = (
        "[project.urls]\n"
        f'Repository = "{repository}"\n'
        f'Documentation = "{repository}/blob/HEAD/docs/index.md"\n'
        f'Changelog = "{repository}/blob/HEAD/CHANGELOG.md"\n'
        f'Issues = "{repository}/issues"\n\n'
    )
    page = _replaced(project, 'readme = "README.md"', f'readme = "{INDEX_PAGE}"')
    return _replaced(page, "[project.optional-dependencies]\n", links + "[project.optional-dependencies]\n")


def with_contact(project: str, contact: str) -> str:
    """Return pyproject.toml's text with an e-mail address of the authors."""
    return _replaced(project, 'maintainers" }', f'maintainers", email = "{contact}" }}')


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"pyproject.toml must have {old!r} once")
    return text.replace(old, new)


def give_addresses(tree: Path, repository: str | None, contact: str | None) -> None:
    """Write what is known of the project's addresses into a copy of the tree."""
    file = tree / "pyproject.toml"
    project = file.read_text(encoding="utf-8")
    version = version_of(tree)
    if repository is not None:
        project = with_links(project, repository)
        page = (tree / "README.md").read_text(encoding="utf-8")
        (tree / INDEX_PAGE).write_text(absolute_links(page, repository, version), encoding="utf-8")
    if contact is not None:
        project = with_contact(project, contact)
    file.write_text(project, encoding="utf-8")


def build(tree: Path, to: Path) -> tuple[Path, Path]:
    """Build both, the wheel from the sdist; return the wheel and the sdist."""
    shutil.rmtree(to, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(to), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False)
    if done.returncode != 0:
        sys.exit(f"make dist: {done.stdout}{done.stderr}")
    [wheel], [sdist] = to.glob("*.whl"), to.glob("*.tar.gz")
    return wheel, sdist
