"""What the tests of the server share."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ipc.server.connection import Connection
from trio_ipc.server.states import FOLLOWS, State

#: Each step from one state to another that any test of this run has seen.
STEPS: set[tuple[State, State]] = set()


@pytest.fixture(autouse=True)
def _only_what_may_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every connection fail that goes from a state to one that must not follow."""

    def now(self: Connection[Any, Any]) -> State:
        return self.__dict__["state"]  # type: ignore[no-any-return]

    def go(self: Connection[Any, Any], to: State) -> None:
        at = self.__dict__.get("state")
        assert at is None or to in FOLLOWS[at], f"{at} -> {to}"
        if at is not None:
            STEPS.add((at, to))
        self.__dict__["state"] = to

    monkeypatch.setattr(Connection, "state", property(now, go), raising=False)
