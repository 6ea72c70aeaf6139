"""The page on how costs grow shows what was measured: its tables, its goals and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.scaling.chart import draw, labels_of
from tests.benchmarks.scaling.curves import BARE, CONTENDERS, CURVES, GOALS, NO_POLLING, OURS
from tests.benchmarks.scaling.page import SECTION, section
from tests.benchmarks.scaling_support import DOCS, check_shape
from tests.platforms import unix_only

pytestmark = unix_only


def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "scaling.json").read_text(encoding="utf-8"))
    return found


def test_the_published_result_is_a_full_one() -> None:
    found = published()
    check_shape(found)
    assert found["quick"] is False
    assert found["points"] == {name: list(curve.points) for name, curve in CURVES.items()}
    assert found["measured"].keys() == CURVES.keys()
    for of_curve in found["measured"].values():
        assert of_curve.keys() == CONTENDERS.keys()


def test_the_goals_are_those_of_the_published_figures() -> None:
    found = published()
    assert found["goals"] == [goal.judged(found["measured"]) for goal in GOALS]


def test_the_page_has_the_tables_of_the_published_result() -> None:
    [shown] = SECTION.findall((DOCS / "scaling.md").read_text(encoding="utf-8"))
    assert shown == section(published())


def test_the_curves_are_those_of_the_published_result(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", exc_type=ImportError)
    draw(published(), str(tmp_path / "scaling.svg"))
    drawn = (tmp_path / "scaling.svg").read_text(encoding="utf-8")
    assert drawn == (DOCS / "scaling.svg").read_text(encoding="utf-8")


def test_the_picture_says_where_and_when_and_who() -> None:
    text = (DOCS / "scaling.svg").read_text(encoding="utf-8")
    found = published()
    for said in (found["date"], found["machine"]["processor"], found["machine"]["python"]):
        assert said in text
    for name in (OURS, NO_POLLING, BARE):
        assert f">{CONTENDERS[name]}</text>" in text


def test_a_point_has_no_label_where_it_would_stand_on_the_one_before() -> None:
    callers = CURVES["callers"]
    assert labels_of(callers, callers.points, 1) == ["1", "4", "16", "64", "", "256", "1,024"]
    pauses = CURVES["pauses"]
    assert "" not in labels_of(pauses, pauses.points, 50)


def test_the_page_tells_of_every_curve_and_contender() -> None:
    page = (DOCS / "scaling.md").read_text(encoding="utf-8").partition("<!-- tables -->")[0]
    assert [name for name in (*CURVES, *CONTENDERS) if f"| `{name}` |" not in page] == []
