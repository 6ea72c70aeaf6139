"""What the tests of a switch of transports share."""

from __future__ import annotations

from trio_ipc import (
    TransportType,
)

LEGACY, INTERPROCESS = TransportType.LEGACY, TransportType.INTERPROCESS


def other(transport: TransportType) -> TransportType:
    return INTERPROCESS if transport is LEGACY else LEGACY
