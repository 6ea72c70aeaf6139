"""The rules are those of the page that tells them, and a result is what its findings are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trio_ipc.testing import CLIENT_RULES, SERVER_RULES, Conformance, Finding, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "wire-protocol.md"


def test_the_rules_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| ([SC]\d+) \| (.+?) \| (\w*) ?\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    rules = [*SERVER_RULES.values(), *CLIENT_RULES.values()]
    takes = {(True, False): "hostile", (False, True): "time", (False, False): ""}
    assert rows == [(rule.number, rule.says, takes[rule.hostile, rule.slow]) for rule in rules]


def test_a_result_is_good_where_something_was_seen_and_nothing_was_broken() -> None:
    def result(*verdicts: Verdict) -> Conformance:
        rules = SERVER_RULES.values()
        findings = (Finding(rule, verdict, "") for rule, verdict in zip(rules, verdicts, strict=False))
        return Conformance("/s", "server", tuple(findings))

    kept, broken, not_shown = Verdict.KEPT, Verdict.BROKEN, Verdict.NOT_SHOWN
    assert result(kept, not_shown).ok
    assert not result(not_shown, not_shown).ok
    assert not result(kept, broken).ok
    found = result(kept, broken, not_shown)
    assert (found.kept, found.broken, found.not_shown) == (("S1",), ("S2",), ("S3",))
    assert found["S2"].verdict is broken
    with pytest.raises(KeyError):
        found["C1"]
