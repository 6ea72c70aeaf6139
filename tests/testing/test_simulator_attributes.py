"""What a test sets of a simulated collector: what can't be is refused where it is set."""

from __future__ import annotations

import pytest

from trio_ipc.testing import hang, simulate_collector

WRONG = "/run/server.sock"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("close_next", 1.5, "close_next is 1.5, must be an int"),
        ("close_next", None, "close_next is None, must be an int"),
        ("places", True, "places is True, must be an int or None"),
        ("handler", len, "handler is .*, which is not async"),
        ("default", hang, r"default is .*, must be async def behaviour.*, such as hang\(\)"),
        ("default", None, "default is None, must be async def behaviour"),
        ("negotiation", hang, "negotiation is .*, must be async def behaviour"),
        ("capabilities", WRONG, "capabilities is '/run/server.sock', must be Capabilities or None"),
    ],
)
async def test_what_cannot_be_is_refused(name: str, value: object, error: str) -> None:
    async with simulate_collector() as collector:
        before = getattr(collector, name)
        with pytest.raises(TypeError, match=error):
            setattr(collector, name, value)
        assert getattr(collector, name) == before


@pytest.mark.parametrize("name", ["close_next", "places"])
async def test_a_number_of_connections_is_not_negative(name: str) -> None:
    async with simulate_collector() as collector:
        with pytest.raises(ValueError, match=f"{name} is -1, must be at least 0"):
            setattr(collector, name, -1)


async def test_what_can_be_is_set() -> None:
    async with simulate_collector() as collector:
        collector.negotiation = collector.default = hang()
        collector.negotiation = collector.capabilities = collector.places = None
        collector.places = collector.close_next = 0
