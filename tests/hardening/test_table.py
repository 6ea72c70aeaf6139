"""docs/hardening.md says what the tests say, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening.record import RECORD_IN, RECORDED, ROOT, Entry, claimed, modules
from tests.hardening.table import PAGE, Row, rows_in, rows_of, with_rows


def test_the_page_has_each_attack_that_a_test_records_with_its_outcome_and_no_other() -> None:
    shown = {row.attack: row.outcome for row in rows_in(PAGE.read_text(encoding="utf-8"))}
    assert shown == claimed(modules()), "run `make hardening-table`"


def test_so_it_is_with_what_runs_on_windows_alone() -> None:
    shown = {row.attack: row.outcome for row in rows_in(PAGE.read_text(encoding="utf-8"), windows=True)}
    assert shown == claimed(modules(windows=True)), "run `make hardening-table-windows`"


def test_each_module_is_of_one_table() -> None:
    on_windows, elsewhere = modules(windows=True), modules()
    assert ROOT / "tests" / "windows" / "test_public_pipes.py" in on_windows
    assert Path(__file__) in elsewhere
    assert not {*on_windows} & {*elsewhere}


def test_entries_of_one_attack_are_added_up() -> None:
    entries = [
        Entry("a", 2, "refused", "tests/test_y.py::test[interprocess]"),
        Entry("b", 1_000, "answered", "tests/test_z.py::test"),
        Entry("a", 3, "refused", "tests/test_y.py::test[legacy]"),
    ]
    assert rows_of(entries) == [
        Row("a", "5", "refused", "`test_y.py`"),
        Row("b", "1,000", "answered", "`test_z.py`"),
    ]


def test_rows_come_back_from_the_page_as_they_were_written() -> None:
    rows = [Row("a", "5", "refused", "`test_y.py`")]
    page = PAGE.read_text(encoding="utf-8")
    there = {windows: rows_in(page, windows=windows) for windows in (False, True)}
    for windows, rows_there in there.items():
        changed = with_rows(page, rows, windows=windows)
        assert rows_in(changed, windows=windows) == rows
        assert rows_in(changed, windows=not windows) == there[not windows]
        assert with_rows(changed, rows_there, windows=windows) == page


@pytest.mark.parametrize(
    "source",
    [
        'attack(name, tried=1, outcome="x")',
        'attack("a", tried=1)',
        'attack("a", outcome="x"); attack("a", outcome="y")',
    ],
)
def test_what_cannot_be_read_from_the_source_is_refused(tmp_path: Path, source: str) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(source)
    with pytest.raises(ValueError, match="test_it.py:1"):
        claimed([file])


def test_what_a_failing_test_says_is_not_recorded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(RECORD_IN, str(pytester.path / RECORDED))  # for Windows, where it is asked for
    pytester.makepyfile(
        """
        def test_passes(attack):
            attack("a", tried=1, outcome="held")

        def test_fails(attack):
            attack("b", tried=1, outcome="held")
            assert False
        """
    )
    options = ["-p", "tests.hardening.record", "-p", "no:cacheprovider"]
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1, failed=1)
    written = (pytester.path / RECORDED).read_text(encoding="utf-8")
    assert '"a"' in written
    assert '"b"' not in written
