"""What goes into a release, and that what is told of it agrees."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.distribution import checks, making, matrix, page, using
from tests.distribution.making import INDEX_PAGE, ROOT, absolute_links, give_addresses
from tests.distribution.record import PYTHONS, recorded
from tests.distribution.subset import SUBSET
from tests.distribution.wheels import PACKAGES, PLATFORMS, fitting

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = "https://example.org/us/trio_ipc"


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


# --- What is built ------------------------------------------------------------------------------------------


def test_links_of_the_index_page_lead_to_the_release_and_others_stay() -> None:
    text = "![A chart](docs/a.svg) [page](docs/a.md#part) [here](#part) [there](https://example.org/)"
    assert absolute_links(text, ADDRESS, "1.2") == (
        f"![A chart]({ADDRESS}/raw/v1.2/docs/a.svg) [page]({ADDRESS}/blob/v1.2/docs/a.md#part) "
        "[here](#part) [there](https://example.org/)"
    )


def test_addresses_are_written_into_the_copy_and_nothing_is_made_up(tmp_path: Path) -> None:
    (tmp_path / "trio_ipc").mkdir()
    for name in ("pyproject.toml", "README.md", "trio_ipc/__init__.py"):
        (tmp_path / name).write_text(read(name), encoding="utf-8")
    give_addresses(tmp_path, None, None)
    assert (tmp_path / "pyproject.toml").read_text(encoding="utf-8") == read("pyproject.toml")
    give_addresses(tmp_path, ADDRESS, "us@example.org")
    made = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert made["urls"]["Repository"] == ADDRESS
    assert made["authors"] == [{**PROJECT["authors"][0], "email": "us@example.org"}]
    assert made["readme"] == INDEX_PAGE
    links = re.findall(r"\]\(([^)]+)\)", (tmp_path / INDEX_PAGE).read_text(encoding="utf-8"))
    assert links
    assert all(link.startswith((f"{ADDRESS}/", "#", "https://")) for link in links)


def test_a_project_without_the_lines_that_addresses_are_put_to_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 'readme = \"README.md\"' once"):
        making.with_links("[project]\n", ADDRESS)


def test_what_git_ignores_is_not_copied(tmp_path: Path) -> None:
    root = tmp_path / "root"
    kept = {".gitignore", "trio_ipc/errors.py", "tests/interop/go/main.go", "tests/detection/test_a.py"}
    left = {
        ".git/config",
        ".venv-python3.12/bin/python",
        "build/interop/peer",
        "trio_ipc/__pycache__/errors.pyc",
        "tests/interop/go/detection/detection.pb.go",
    }
    for name in kept | left:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".gitignore").write_text(read(".gitignore"), encoding="utf-8")
    tree = making.copy_of_the_tree(tmp_path, root)
    assert {file.relative_to(tree).as_posix() for file in tree.rglob("*") if file.is_file()} == kept


def test_what_a_wheel_or_an_sdist_lacks_is_named(tmp_path: Path) -> None:
    for name in ("trio_ipc/errors.py", "examples/demo.py", "pytest_trio_ipc/py.typed", "tests/test_a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert checks.missing_in_wheel(tmp_path, ["trio_ipc/errors.py", "pytest_trio_ipc/py.typed"]) == {
        "trio_ipc/examples/demo.py"
    }
    packed = ["a-1/trio_ipc/errors.py", "a-1/examples/demo.py", "a-1/pytest_trio_ipc/py.typed"]
    assert checks.missing_in_sdist(tmp_path, packed) == {"tests/test_a.py"}


def test_a_tool_that_complains_is_heard() -> None:
    with pytest.raises(checks.NotFit, match=r"no_such_tool says:\s.*No module named no_such_tool"):
        checks.run("no_such_tool")


def test_the_readmes_programs_are_found_with_what_they_print() -> None:
    server, client, both = using.programs(read("README.md"))[:3]
    assert (server.serves, client.serves, both.serves) == (True, False, False)
    assert (server.output, client.output, both.output) == (None, "True hello\n", "HELLO\n")


# --- What is told -------------------------------------------------------------------------------------------


def test_every_python_is_told_wherever_pythons_are() -> None:
    prefix = "Programming Language :: Python :: 3."
    assert [
        f"3.{name.removeprefix(prefix)}" for name in PROJECT["classifiers"] if name.startswith(prefix)
    ] == [*PYTHONS]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    workflow = re.search(r"python: \[(.*)\]", read(".github", "workflows", "ci.yml"))
    assert workflow is not None
    assert re.findall(r'"([\d.]+)"', workflow[1]) == [*PYTHONS]
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in read("README.md")


def test_the_protobufs_that_are_tried_are_the_oldest_and_the_newest_of_each_major() -> None:
    [needed] = [needed for needed in PROJECT["dependencies"] if needed.startswith("protobuf")]
    bounds = re.fullmatch(r"protobuf>=([\d.]+),<(\d+)", needed)
    assert bounds is not None
    tried = matrix.protobufs()
    majors = [int(version.partition(".")[0]) for version in tried]
    oldest = int(bounds[1].partition(".")[0])
    assert tried[0] == bounds[1]
    assert majors == [oldest, *range(oldest, int(bounds[2]))]
    for version in tried:
        assert re.search(
            rf"^protobuf=={re.escape(version)} ", (matrix.PINS / f"{version}.txt").read_text(), re.MULTILINE
        )
    generated = re.search(
        r"# Protobuf Python Version: ([\d.]+)", read("trio_ipc", "daemoneye", "detection_pb2.py")
    )
    assert generated is not None
    assert generated[1] == bounds[1]


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", read("requirements", "oldest.txt"), re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    for needed in [*PROJECT["dependencies"], *(one for extra in extras.values() for one in extra)]:
        found = re.match(r"([\w-]+)>=([\d.]+)", needed)
        assert found is not None, needed
        assert pinned[found[1]] in {found[2], *(f"{found[2]}{zeros}" for zeros in (".0", ".0.0"))}, needed


def test_the_subset_is_there() -> None:
    assert [name for name in SUBSET if not (ROOT / name).exists()] == []


def test_the_page_has_what_the_last_run_found() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_tables(text, recorded()) == text
    assert [*dict.fromkeys(run["protobuf"] for run in recorded()["runs"])] == matrix.protobufs()
    assert {*recorded()["wheels"]} == {*PACKAGES}
    assert not [run for run in recorded()["runs"] if run["failed"]]


@pytest.mark.parametrize(
    ("summary", "counts"),
    [
        ("...\n120 passed in 3.21s", (120, 0)),
        ("1 failed, 2 passed, 3 skipped, 1 error in 3.21s", (2, 2)),
        ("no tests ran in 0.01s", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_what_pytest_counted_is_read(summary: str, counts: tuple[int, int]) -> None:
    assert matrix.counted(summary) == counts


def test_a_wheel_fits_the_pythons_and_platforms_of_its_tags() -> None:
    stable = "a-1-cp310-abi3-musllinux_1_2_aarch64.whl"
    assert fitting([stable], PLATFORMS["Linux, musl, ARM64"]) == [*PYTHONS]
    assert fitting([stable], PLATFORMS["Linux, glibc, ARM64"]) == []
    free = "a-1-cp314-cp314t-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert fitting([free], PLATFORMS["Linux, glibc, x86-64"]) == ["3.14t"]
    assert fitting(["a-1-py3-none-any.whl"], PLATFORMS["Windows, ARM64"]) == []
    assert fitting(["a-1-cp312-cp312-win_arm64.whl"], PLATFORMS["Windows, ARM64"]) == ["3.12"]


def test_tables_are_put_into_a_page() -> None:
    found = {
        "runs": [{"python": "3.12.1", "protobuf": "5.26.1", "passed": 7, "failed": 0}],
        "wheels": {
            name: {"version": "1", "wheels": {kind: [*PYTHONS] for kind in PLATFORMS}} for name in PACKAGES
        },
    }
    empty = "".join(f"<!-- begin: {name} -->\n<!-- end: {name} -->\n" for name in ("runs", "wheels"))
    made = page.with_tables(empty, found)
    assert "| 5.26.1 | 7 passed | not run | not run | not run |" in made
    assert "| Windows, ARM64 | yes | yes |" in made
    assert page.with_tables(made, found) == made
    with pytest.raises(ValueError, match="no place for runs"):
        page.with_tables("", found)


def test_no_program_is_waited_for_without_end() -> None:
    runs = [
        (file.name, node.lineno, {keyword.arg for keyword in node.keywords})
        for file in Path(making.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run"
    ]
    assert runs
    assert [run[:2] for run in runs if "timeout" not in run[2]] == []
