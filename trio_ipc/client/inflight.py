"""Calls in the counters of their client: those of one :meth:`~trio_ipc.Client.call_many`, or a single one.

They may wait for their turn in another thread than the one that carries them, and end in either. Whichever
hears of an end first counts it; nothing is counted twice. This module must never make a call.

:meth:`~trio_ipc.Client.call` and the adapters' direct calls do without: they are the path of every message,
and count by themselves.
"""

from __future__ import annotations

from trio_ipc.telemetry import CallFailure, ClientTelemetry


class InFlight:
    """Calls that end one after the other, or together.

    Args:
        telemetry: the client's.
        number: how many they are.
        began: when, on the telemetry's clock.
    """

    def __init__(self, telemetry: ClientTelemetry, number: int, began: float) -> None:
        self._telemetry = telemetry
        self._number = number
        self._began = began
        self._has_begun = False
        self._left = 0

    def begin(self) -> None:
        """Count them as begun, if that was not done: before anything of them waits."""
        if self._has_begun:
            return
        # Python looks for an interrupt between none of these steps, and changes threads at none.
        number, self._has_begun = self._number, True
        self._telemetry.calls += number
        self._telemetry.calls_in_flight += number
        self._left = number

    def answered(self, count: int) -> None:
        """Count so many of them as answered."""
        left = self._left
        # The others were given up, after a second interrupt. At a call Python may change threads: not yet.
        count, self._left = (count, left - count) if count < left else (left, 0)
        if count:
            self._telemetry.call_seconds.observe_often(self._telemetry.now() - self._began, count)
            self._telemetry.calls_in_flight -= count

    def failed(self, kind: CallFailure) -> None:
        """Count what is left of them as failed."""
        left, self._left = self._left, 0
        self._telemetry.calls_failed[kind] += left
        self._telemetry.calls_in_flight -= left
