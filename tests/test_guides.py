"""The tutorial and the how-to pages: each page runs from top to bottom, as a reader would do it.

A block is saved under the name that the line before it gives, any other program is run, and the commands of a
page share one shell. Together they print what the ``text`` blocks say.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.docs_support import DOCS, Fence, fences_of, is_guide
from tests.platforms import unix_only
from tests.shells import run_commands

GUIDES = [page for page in sorted(DOCS.glob("*.md")) if is_guide(page)]

#: Programs that the machine may lack. A block that needs one is left out there, with what it prints.
OPTIONAL = {"strace"}


def saved_as(page: Path, fence: Fence) -> str | None:
    """The name in the sentence before a block, such as "Save this as `service.py`:"."""
    before = page.read_text(encoding="utf-8").splitlines()[: fence.line - 1]
    said = next((line for line in reversed(before) if line), "")
    named = re.search(r"\bas `([\w./-]+)`:$", said)
    return named[1] if named else None


def is_missing(program: str) -> bool:
    return program in OPTIONAL and shutil.which(program) is None


def script_of(page: Path) -> tuple[str, str]:
    """The page as one script for a shell, and what that must print."""
    script, printed = [], []
    ran = False
    for fence in fences_of(page):
        name = saved_as(page, fence)
        if fence.language == "text":
            if ran:
                printed.append(fence.text)
            ran = False
        elif fence.language == "bash":
            ran = not any(is_missing(word) for word in shlex.split(fence.text, comments=True))
            script.append(fence.text if ran else "")
        elif name is not None or fence.language == "python":
            file = name or f"program_{fence.line}.py"
            script.append(f"cat > {file} <<'END_OF_BLOCK'\n{fence.text}END_OF_BLOCK\n")
            ran = name is None
            if ran:
                script.append(f"python -W error {file}\n")
        else:
            assert fence.language == "sh", f"{fence}: nothing runs this block"  # tests/test_docs.py checks it
            ran = False
    return "".join(script), "".join(printed)


@unix_only  # a shell, signals, and the path of a socket
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
async def test_a_guide_runs_as_printed_from_top_to_bottom(page: Path, directory: str) -> None:
    script, printed = script_of(page)
    told = Path(directory, "errors.txt")  # logs, and what a shell says of processes that were killed
    with told.open("wb") as errors:
        status, output = await run_commands(script, directory, errors=errors)
    assert output == printed, told.read_text(encoding="utf-8")
    assert status == 0, told.read_text(encoding="utf-8")
    assert not [*Path(directory).rglob("*.sock")]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_each_guide_has_an_example_that_is_run(page: Path) -> None:
    assert {"python", "bash"} & {fence.language for fence in fences_of(page)}


def test_the_readme_leads_to_the_tutorial_and_the_guides() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "](docs/tutorial.md)" in readme
    assert "](docs/index.md#how-to-guides)" in readme


def test_the_readme_names_every_extra() -> None:
    whole = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    [told] = [
        line for line in (DOCS.parent / "README.md").read_text("utf-8").splitlines() if "Extras:" in line
    ]
    assert set(whole["project"]["optional-dependencies"]) - set(re.findall(r"`(\w+)`", told)) == set()


def test_the_pages_claim_no_python_that_was_not_run() -> None:
    """Where the table of compatibility has columns without a run, README and stability say which were run."""
    table = (DOCS / "compatibility.md").read_text("utf-8").partition("<!-- begin: runs -->")[2]
    rows = [line.split("|")[2:-1] for line in table.partition("<!-- end")[0].strip().splitlines()]
    columns = list(zip(*rows, strict=True))
    ran = {re.findall(r"\d\.\d+", head)[0] for head, _, *runs in columns if "not run" not in "".join(runs)}
    if len(ran) == len(columns):
        return
    for page in (DOCS.parent / "README.md", DOCS / "stability.md"):
        told = re.search(r"all tests were run in Python ([\d., and]+) only", page.read_text(encoding="utf-8"))
        assert told is not None, page.name
        assert set(re.findall(r"\d\.\d+", told[1])) == ran
