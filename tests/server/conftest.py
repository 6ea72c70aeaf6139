"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.support import CONFIG
from tests.support import MemoryEndpoint
from trio_ipc import TransportType
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


@pytest.fixture
def endpoint(transport: TransportType) -> Iterator[MemoryEndpoint]:
    """An endpoint in memory, for ``serve`` and its clients."""
    made = MemoryEndpoint(CONFIG.replace(transport=transport))
    yield made
    made.ends.close()
