"""What the tests of channels share."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have two cores: with one, nothing looks again before it sleeps."""
    # Not by its dotted name: the package has a function of the module's name.
    monkeypatch.setattr(sys.modules["trio_ipc.channel.cores"], "usable_cores", lambda: 2)
