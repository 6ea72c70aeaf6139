"""Calls in the counters of their client, where two threads hear of their ends at the same time."""

from __future__ import annotations

from trio_ipc.client.inflight import InFlight
from trio_ipc.telemetry import CallFailure, ClientTelemetry


async def test_what_is_given_up_while_answers_are_counted_is_counted_once() -> None:
    telemetry = ClientTelemetry(transport="interprocess", endpoint="here", contract="any")
    calls = InFlight(telemetry, 3, began=0)

    def given_up_meanwhile() -> float:
        calls.failed(CallFailure.CANCELLED)
        return 0

    telemetry.now = given_up_meanwhile  # asked for in the middle, where Python may change threads
    calls.begin()
    calls.answered(2)
    counted = telemetry.snapshot()
    assert (counted.calls, counted.calls_answered, counted.calls_in_flight) == (3, 2, 0)
    assert counted.calls_failed[CallFailure.CANCELLED] == 1
    calls.answered(1)
    assert telemetry.snapshot().calls_answered == 2, "it was given up"
    assert telemetry.snapshot().calls_in_flight == 0
