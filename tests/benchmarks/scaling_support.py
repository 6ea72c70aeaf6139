"""What the tests of how costs grow share: where the pages are, and the shape of a result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.benchmarks.scaling.curves import CONTENDERS, CURVES, key
from tests.benchmarks.workers import ROOT

DOCS = Path(ROOT, "docs")

FIGURES = {"us", "server_cpu_us", "client_cpu_us"}


def check_shape(found: dict[str, Any]) -> None:
    """What docs/scaling.md says of the JSON file."""
    page = (DOCS / "scaling.md").read_text(encoding="utf-8").partition("## The JSON file")[2]
    told = {
        name
        for row in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert found.keys() == told
    assert found["format"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert found["machine"].keys() == {"processor", "cores", "load", "system", "python"}
    assert {"trio_ipc", "trio", "protobuf"} <= found["versions"].keys()
    assert found["points"].keys() <= CURVES.keys()
    for curve, of_curve in found["measured"].items():
        assert of_curve.keys() <= CONTENDERS.keys()
        for figures in of_curve.values():
            assert figures.keys() == FIGURES
            for by_point in figures.values():
                assert by_point.keys() <= {key(point) for point in found["points"][curve]}
                assert {len(of_rounds) for of_rounds in by_point.values()} == {found["rounds"]}
    for goal in found["goals"]:
        assert goal.keys() == {"curve", "what", "limit", "at_least", "values", "met"}
        assert (goal["met"] is None) == (goal["values"] is None)
