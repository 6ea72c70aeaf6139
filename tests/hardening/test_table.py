"""docs/hardening.md says what the tests say, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening.record import RECORDED, ROOT, Entry, claimed, modules
from tests.hardening.table import PAGE, Row, rows_in, rows_of, with_rows
from tests.platforms import unix_only


def test_the_page_has_each_attack_that_a_test_records_with_its_outcome_and_no_other() -> None:
    shown = {row.attack: row.outcome for row in rows_in(PAGE.read_text(encoding="utf-8"))}
    assert shown == claimed(modules()), "run `make hardening-table`"


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
    assert rows_in(with_rows(page, rows)) == rows
    assert with_rows(with_rows(page, rows), rows_in(page)) == page


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


@unix_only  # what runs under Wine is not written
def test_what_a_failing_test_says_is_not_recorded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
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
