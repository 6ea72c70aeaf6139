"""Lines of a service that say what somebody else has sent."""

from __future__ import annotations

import logging
import sys

import pytest

from trio_ipc.service.console import Console, TextFormatter

STEERING = ValueError("red \x1b[31m \u202e\n\x9b2J next")
SHOWN = ["ValueError: red \\x1b[31m \\u202e", "\\x9b2J next"]


def lines_of(text: str) -> list[str]:
    assert text.replace("\n", "").isprintable()
    return text.splitlines()


def test_the_traceback_of_a_defect_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console("svc", "text").say("a defect", exc=STEERING)
    assert lines_of(capsys.readouterr().err) == ["svc: a defect", *SHOWN]


def test_neither_does_a_traceback_in_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    Console("svc", "text").configure_logging(logging.INFO)
    try:
        raise STEERING
    except ValueError:
        logging.getLogger("trio_ipc.server").exception("the handler failed")
    lines = lines_of(capsys.readouterr().err)
    assert lines[:2] == [
        "svc: ERROR trio_ipc.server: the handler failed",
        "Traceback (most recent call last):",
    ]
    assert lines[-2:] == SHOWN


def test_a_traceback_without_such_text_is_pythons_own() -> None:
    try:
        raise KeyError("ä")
    except KeyError:
        given = sys.exc_info()
    assert TextFormatter().formatException(given) == logging.Formatter().formatException(given)
