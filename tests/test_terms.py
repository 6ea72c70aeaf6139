"""One term for one thing: the words that docs/terms.md says are not used are not used.

Looked at are the pages and what becomes the changelog; in Python files comments, docstrings and all other
strings, and names; and the rest of the tree that people write, line by line.
"""

from __future__ import annotations

import ast
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TERMS = ROOT / "docs" / "terms.md"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(
        page
        for folder in ("docs", "newsfragments", ".github", "tests")
        for page in sorted((ROOT / folder).rglob("*.md"))
    ),
]
MODULES = [
    module
    for folder in ("trio_ipc", "pytest_trio_ipc", "examples", "docs", "tests")
    for module in sorted((ROOT / folder).rglob("*.py"))
    # this one has samples of what is not to be said
    if not module.stem.endswith("_pb2") and module != Path(__file__)
]
#: All else with words in it: what builds, checks and describes the project, and peers in other languages.
OTHERS = [
    *(ROOT / name for name in ("Makefile", "pyproject.toml", ".ci/run", ".pre-commit-config.yaml")),
    *(
        file
        for pattern in (
            ".devcontainer/*",
            ".github/**/*.yml",
            "docs/trio-ipc.*",
            "docs/*.yaml",
            "requirements/*.in",
            "tests/**/*.sh",
            "tests/**/*.toml",
            "tests/interop/**/*.go",
            "tests/interop/**/*.rs",
            "trio_ipc/**/*.proto",
        )
        for file in sorted(ROOT.glob(pattern))
    ),
]

#: A statement that begins with "Who"; questions may.
WHO = re.compile(r"(?:^|[.;!]\s+|^\s*(?:[-|]|\d+\.)\s+)Who\s(?![^.;!?]*\?)", re.MULTILINE)

#: The same for "What", on pages.
WHAT = re.compile(r"(?:^|[.;!]\s+|^\s*(?:[-|]|\d+\.)\s+)What\s[^.;!?]*[.;!]", re.MULTILINE)


@functools.cache
def unwanted() -> re.Pattern[str]:
    """One pattern for all words of the columns "not"."""
    rows = re.findall(r"^\|(.*)\|$", TERMS.read_text(encoding="utf-8"), re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row.rpartition("|")[2])]
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(
        r"\b(?:" + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in longest_first) + r")\b",
        re.IGNORECASE,
    )


def prose(page: Path) -> str:
    """A page without its code; every line stays where it is."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(
        r"^```.*?^```$", lambda match: "\n" * match[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"`[^`\n]+`", "`code`", text)


def words_of(module: Path) -> Iterator[tuple[int, str]]:
    """The comments and strings of a module, each with its line."""
    source = module.read_text(encoding="utf-8")
    comments: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("#: ")
    for line in comments:
        if line - 1 not in comments:  # those in consecutive lines are read as one
            following = itertools.takewhile(comments.__contains__, itertools.count(line))
            yield line, "\n".join(comments[number] for number in following)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            yield node.lineno, re.sub(r"``[^`]+``", "``code``", node.value)


def in_words(name: str) -> str:
    """A name of Python's as the words that it is made of."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace("_", " ").strip()


def found_in(text: str) -> list[str]:
    return [match[0] for pattern in (unwanted(), WHO) for match in pattern.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_uses_the_terms(page: Path) -> None:
    lines = prose(page).splitlines()
    assert [(number, said) for number, line in enumerate(lines, 1) for said in found_in(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_statement_on_a_page_begins_with_what(page: Path) -> None:
    lines = prose(page).splitlines()
    found = [(number, said[0]) for number, line in enumerate(lines, 1) for said in WHAT.finditer(line)]
    assert found == []


def test_the_code_uses_the_terms() -> None:
    found = [
        (f"{module.relative_to(ROOT)}:{line}", said)
        for module in MODULES
        for line, text in words_of(module)
        for said in found_in(text)
    ]
    assert found == []


def test_names_use_the_terms() -> None:
    found = {
        (str(module.relative_to(ROOT)), token.string)
        for module in MODULES
        for token in tokenize.generate_tokens(io.StringIO(module.read_text(encoding="utf-8")).readline)
        if token.type == tokenize.NAME and unwanted().search(in_words(token.string))
    }
    # Python's, and one of gRPC's.
    assert {name for _, name in found} <= {"__slots__", "unary_unary_rpc_method_handler"}, found


def test_all_else_uses_the_terms() -> None:
    found = [
        (f"{file.relative_to(ROOT)}:{number}", said)
        for file in OTHERS
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for said in found_in(line)
    ]
    assert found == []


def test_nothing_that_people_write_is_left_out() -> None:
    kinds = {file.suffix or file.name for file in OTHERS}
    assert kinds >= {
        "Makefile",
        "run",
        "Dockerfile",
        ".toml",
        ".yml",
        ".in",
        ".sh",
        ".go",
        ".rs",
        ".proto",
        ".service",
    }
    assert {page.parent.name for page in PAGES} >= {"docs", "newsfragments", ".github", "interop"}


@pytest.mark.parametrize(
    "sentence",
    ["The last\nwords of a server.", "In VAIN.", "Who waits is served.", "It ends. Who waits wakes."],
)
def test_what_is_not_a_term_is_found(sentence: str) -> None:
    assert found_in(sentence) != []


@pytest.mark.parametrize("sentence", ["Who is there?", "A client who waits.", "the roomy place", "`x`"])
def test_what_is_allowed_is_not_found(sentence: str) -> None:
    assert found_in(sentence) == []


def test_a_statement_that_begins_with_what_is_found() -> None:
    assert WHAT.search("What they share is a directory.")
    assert not WHAT.search("What a server counts")
    assert not WHAT.search("What does a server count? Requests.")
