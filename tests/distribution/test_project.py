"""What a person who joins the project finds: one version, one set of tools, pages and forms that agree."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import trio_ipc
from tests.distribution import known_types
from tests.distribution.making import ROOT, VERSION_FILE
from tests.distribution.record import PYTHONS
from tests.distribution.release import fragments
from tests.site.public import MODULES, is_within

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def recipe(target: str) -> list[str]:
    """The commands of a target, continued lines put together."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return [line.strip().removeprefix("@") for line in found[1].replace("\\\n", " ").splitlines()]


# --- The version --------------------------------------------------------------------------------------------


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    [attribute] = PYPROJECT["tool"]["setuptools"]["dynamic"]["version"].values()
    assert attribute == "trio_ipc.__version__"
    assert re.findall(r'^__version__ = "(.*)"$', read(*VERSION_FILE.parts), re.MULTILINE) == [
        trio_ipc.__version__
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/security.md"])
def test_pages_that_name_the_version_name_this_one(page: str) -> None:
    named = re.findall(r"\bversion (\d+\.\d+\.\d+)\b|trio_ipc-(\d+\.\d+\.\d+)-py3", read(page))
    assert {one or other for one, other in named} == {trio_ipc.__version__}


def test_the_newest_section_of_the_changelog_is_of_this_version_or_the_one_before() -> None:
    newest = re.search(r"^## \[([\d.]+)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == trio_ipc.__version__ or fragments(ROOT)


# --- Hooks and lint -----------------------------------------------------------------------------------------


def test_the_hooks_of_a_commit_are_commands_of_make_lint() -> None:
    entries = re.findall(r"^        entry: (.*)$", read(".pre-commit-config.yaml"), re.MULTILINE)
    linted = [command.replace("$(BIN)", ".venv/bin") for command in recipe("lint")]
    quick = [entry for entry in entries if entry != "make lint"]
    assert len(quick) == len(entries) - 1  # at a push, all of it
    # Files are given by name, and those that ruff leaves out have to stay out.
    assert {f"{entry.removesuffix(' --force-exclude')} ." for entry in quick} == {
        command for command in linted if " -m ruff " in command
    }


def test_no_hook_brings_a_tool_of_its_own() -> None:
    hooks = read(".pre-commit-config.yaml")
    assert re.findall(r"^  - repo: (.*)$", hooks, re.MULTILINE) == ["local"]
    assert {*re.findall(r"^        language: (.*)$", hooks, re.MULTILINE)} == {"system"}
    assert "additional_dependencies" not in hooks


# --- Newsfragments ------------------------------------------------------------------------------------------


def kinds() -> list[str]:
    return [kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"]]


def test_each_newsfragment_has_a_kind_and_says_something() -> None:
    for file in fragments(ROOT):
        assert re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds())})(\.\d+)?\.md", file.name), file.name
        assert file.read_text(encoding="utf-8").strip(), file.name


def test_nothing_but_newsfragments_lies_among_them() -> None:
    lying = {file.name for file in (ROOT / "newsfragments").iterdir()}
    assert lying == {"README.md", *(file.name for file in fragments(ROOT))}


def test_the_kinds_of_newsfragments_are_told() -> None:
    assert re.findall(r"^\| `(\w+)` \|", read("newsfragments", "README.md"), re.MULTILINE) == kinds()


def test_the_changelog_has_the_line_below_which_sections_go() -> None:
    towncrier = PYPROJECT["tool"]["towncrier"]
    before, start, after = read(*Path(towncrier["filename"]).parts).partition(towncrier["start_string"])
    assert start
    assert "\n## [" not in before
    assert re.match(r"\n?## \[", after)


# --- What is told of the project ----------------------------------------------------------------------------


def test_the_stability_page_has_the_versions_that_are_declared() -> None:
    page = read("docs", "stability.md")
    told = dict(re.findall(r"^\| (Python|protobuf|Trio) \| ([^|]*?) \|", page, re.MULTILINE))
    dependencies = "\n".join(PYPROJECT["project"]["dependencies"])
    needed = dict(re.findall(r"^(trio|protobuf)(.*)$", dependencies, re.MULTILINE))
    assert told["Python"] == f"{PYTHONS[0]} to {PYTHONS[-1]}"
    lowest, below = re.findall(r"[\d.]+", needed["protobuf"])
    assert told["protobuf"] == f"{lowest} or later, below {below}"
    [lowest] = re.findall(r"[\d.]+", needed["trio"])
    assert told["Trio"] == f"{lowest} or later"


def test_the_contributing_page_names_targets_and_files_that_exist() -> None:
    page = read("CONTRIBUTING.md")
    for target in re.findall(r"\bmake ([a-z-]+)", page):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)", page):
        assert (ROOT / link).exists(), link
    for test in re.findall(r"\btests/[\w/]+\.py\b", page):
        assert (ROOT / test).exists(), test


#: Parts of other targets, and the list itself.
INNER = {"help", "interop-go", "interop-rust", "proto-check"}


def test_the_list_of_targets_and_the_contributing_page_name_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    targets = {*phony[1].split()}
    written = {*re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE)}
    assert targets == written
    listed = {*re.findall(r"\bmake ([a-z-]+)", "\n".join(recipe("help")))}
    assert targets - listed - INNER == set()
    told = {*re.findall(r"\bmake ([a-z-]+)", read("CONTRIBUTING.md"))}
    assert targets - told - INNER == set()


@pytest.mark.parametrize("page", ["CODE_OF_CONDUCT.md", "SECURITY.md", "newsfragments/README.md"])
def test_links_of_pages_outside_of_docs_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", read(page)):
        assert "://" in link or (ROOT / page).parent.joinpath(link).exists(), link


def test_the_readme_says_in_three_sentences_what_it_is() -> None:
    introduction = read("README.md").split("\n\n")[1]
    assert len(re.findall(r"\.(?=\s|$)", introduction)) == 3


def test_the_dev_container_sets_up_as_the_contributing_page_does() -> None:
    container = json.loads(read(".devcontainer", "devcontainer.json"))
    assert f"```sh\n{container['postCreateCommand']}\n```" in read("CONTRIBUTING.md")
    assert f"FROM python:{PYTHONS[0]}-" in read(".devcontainer", container["build"]["dockerfile"])


def test_workflows_call_targets_that_exist_and_a_release_needs_no_secret() -> None:
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        text = file.read_text(encoding="utf-8")
        for targets in re.findall(r"run: make ([a-z -]+)", text):
            for target in targets.split():
                if file.name == "docs.yml" and not (ROOT / "docs" / "conf.py").exists():
                    continue  # the site comes with its target
                assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), (file.name, target)
        assert "secrets." not in text
        keys = re.findall(r"^(\w+):", text, re.MULTILINE)
        assert sorted(keys) == sorted({*keys})  # the host refuses a file that has one twice
    release = read(".github", "workflows", "release.yml")
    jobs = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", release.partition("\njobs:\n")[2], re.MULTILINE))
    assert {*jobs} == {"build", "attest", "publish"}
    assert "id-token: write" not in jobs["build"]  # what is built there cannot publish
    assert "attest-build-provenance@" in jobs["attest"]
    assert "environment: release" in jobs["publish"]


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_name_actions_by_commit_and_say_the_version(file: Path) -> None:
    uses = re.findall(r"^ +- uses: (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert uses
    assert [use for use in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


def test_one_action_has_one_commit_in_all_workflows_and_newer_ones_are_proposed() -> None:
    uses = "\n".join(file.read_text(encoding="utf-8") for file in WORKFLOWS)
    commits = {*re.findall(r"uses: ([\w/-]+@.*)$", uses, re.MULTILINE)}
    assert len({commit.partition("@")[0] for commit in commits}) == len(commits)
    assert "package-ecosystem: github-actions\n    directory: /\n" in read(".github", "dependabot.yml")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_may_write_in_the_jobs_alone_that_publish(file: Path) -> None:
    head, _, jobs = file.read_text(encoding="utf-8").partition("\njobs:\n")
    assert re.search(r"^permissions:(?: \{\}|\n  contents: read)$", head, re.MULTILINE)
    writing = {
        name
        for name, job in re.findall(r"^  ([\w-]+):\n((?:    .*\n|\n)+)", jobs, re.MULTILINE)
        if ": write" in job
    }
    allowed = {"docs.yml": {"publish"}, "release.yml": {"attest", "publish"}}
    assert writing == allowed.get(file.name, set())
    # what needs no token later is not left a token
    assert jobs.count("actions/checkout@") == jobs.count("persist-credentials: false")


def test_the_hosted_site_is_read_in_a_browser() -> None:
    assert "run: make docs-browser\n" in read(".github", "workflows", "docs.yml")
    assert MAKEFILE.count("\ndocs-browser: docs\n") == 1


def test_workflows_of_a_change_do_nothing_twice() -> None:
    runs = [
        target
        for name in ("ci.yml", "docs.yml")
        for targets in re.findall(r"run: make ([a-z -]+)", read(".github", "workflows", name))
        for target in targets.split()
    ]
    assert sorted(runs) == sorted({*runs})


def test_public_symbols_without_a_known_type_are_found_and_others_do_not_count() -> None:
    def symbol(name: str, *, known: bool = True, ambiguous: bool = False) -> dict[str, Any]:
        wrong = [{"message": "Return type\nis unknown"}] if not known else []
        return {"name": name, "isTypeKnown": known, "isTypeAmbiguous": ambiguous, "diagnostics": wrong}

    symbols = [
        symbol("a.Client"),
        symbol("a.Client.call", known=False),
        symbol("a.Client.endpoint", ambiguous=True),
        symbol("a.Clients", known=False),
        symbol("a.inner.private", known=False),
    ]
    assert [*known_types.not_known(symbols, {"a.Client"})] == [
        "a.Client.call: Return type is unknown",
        "a.Client.endpoint: its type is not known",
    ]


def test_public_symbols_are_those_that_are_offered_where_they_are_made_with_their_bases() -> None:
    public = {*known_types.public_paths()}
    wanted = {
        "trio_ipc.open_client",
        "trio_ipc.client.client.Client",
        "trio_ipc.blocking.Client",
        "trio_ipc.portal.adapter.Adapter",
        "pytest_trio_ipc.ipc_server",
    }
    assert wanted <= public
    assert not is_within("trio_ipc.client.pipeline.Pipeline", public)


def test_the_modules_whose_names_are_public_are_told() -> None:
    page = read("docs", "stability.md")
    assert [module for module in MODULES if f"`{module}`" not in page] == []
