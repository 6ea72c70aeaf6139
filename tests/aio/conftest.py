"""What is true after each of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters import portal_threads


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert portal_threads() == []
