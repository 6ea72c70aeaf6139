"""A file is about one thing: what is longer than this is about more."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]

LINES = 400
FOLDERS = ("trio_ipc", "pytest_trio_ipc", "examples", "tests")


def written_by_hand() -> list[Path]:
    found = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    return [file for file in found if not file.name.endswith("_pb2.py")]


def test_no_file_is_too_long() -> None:
    lines = {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8").count("\n")
        for file in written_by_hand()
    }
    assert {name: count for name, count in lines.items() if count > LINES} == {}
