"""Waits of one length, which one task ends."""

from __future__ import annotations

from trio_ipc.server.watchdog import Watchdog


async def test_who_is_overdue_is_told_of_once_and_by_how_much() -> None:
    told: list[tuple[str, float]] = []

    def overdue(waiter: str, late: float) -> None:
        told.append((waiter, late))

    waits = Watchdog().waits(5.0, overdue)
    waits.begin("first", 100.0)
    waits.begin("second", 101.0)
    waits.expire(104.9)
    assert told == []
    waits.expire(105.5)
    assert told == [("first", 0.5)]
    waits.end("second")
    waits.expire(200.0)
    assert told == [("first", 0.5)]
