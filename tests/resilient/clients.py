"""What the tests of the resilient client share."""

from __future__ import annotations

from typing import Any

from .support import (
    FakeServer,
)


def servers(names: str, **settings: Any) -> list[FakeServer]:
    return [FakeServer(name, **settings) for name in names]
