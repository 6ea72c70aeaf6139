"""The counters themselves. The hot path adds to them; docs/telemetry.md says what each one counts.

One thing that happens is one addition, in the task that does it and without a checkpoint between two that
belong together. This module must never lock, format or allocate on the hot path.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import attrs
import trio

from .histogram import Histogram
from .snapshot import ClientSnapshot, Counts, ServerCounts, ServerSnapshot, in_all

_Kind = TypeVar("_Kind", bound=enum.StrEnum)


class Refusal(enum.StrEnum):
    """Why a connection was refused."""

    LIMIT = "limit"
    CREDENTIALS = "credentials"


class CloseReason(enum.StrEnum):
    """What ended a connection that was served."""

    PEER_CLOSED = "peer_closed"
    PROTOCOL_ERROR = "protocol_error"
    READ_TIMEOUT = "read_timeout"
    WRITE_TIMEOUT = "write_timeout"
    UNANSWERABLE = "unanswerable"
    STOPPED = "stopped"
    CUT_OFF = "cut_off"
    INTERNAL_ERROR = "internal_error"


class RequestFailure(enum.StrEnum):
    """Why a request got no response of its handler's making."""

    HANDLER = "handler"
    HANDLER_TIMEOUT = "handler_timeout"
    RESPONSE_UNSENDABLE = "response_unsendable"
    RESPONSE_UNDELIVERED = "response_undelivered"
    CLIENT_GONE = "client_gone"
    CUT_OFF = "cut_off"
    INTERNAL_ERROR = "internal_error"


class CallFailure(enum.StrEnum):
    """Why a client's call has no response."""

    REQUEST_UNSENDABLE = "request_unsendable"
    TURN_TIMEOUT = "turn_timeout"
    CALL_TIMEOUT = "call_timeout"
    WRITE_TIMEOUT = "write_timeout"
    READ_TIMEOUT = "read_timeout"
    PEER_CLOSED = "peer_closed"
    PROTOCOL_ERROR = "protocol_error"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    OTHER = "other"


class TimeoutKind(enum.StrEnum):
    """Which deadline of a server passed."""

    ACCEPT = "accept"
    READ = "read"
    WRITE = "write"
    HANDLER = "handler"


def _none_of(kinds: Iterable[_Kind]) -> dict[_Kind, int]:
    return dict.fromkeys(kinds, 0)


#: Copied for each client, which is cheaper than to go through an enumeration.
_NO_CALLS_FAILED = _none_of(CallFailure)


def _frozen(counts: Mapping[_Kind, int]) -> Counts:
    return MappingProxyType({kind.value: count for kind, count in counts.items()})


@attrs.define(kw_only=True)
class Traffic:
    """Whole frames and their bytes, headers included, as a channel counts them."""

    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


@attrs.define(kw_only=True)
class ServerCounters(Traffic):
    """What the connections of one transport add to; :class:`ServerCounts` says what is what."""

    transport: str
    connections_accepted: int = 0
    connections_refused: dict[Refusal, int] = attrs.field(factory=lambda: _none_of(Refusal))
    connections_left: int = 0
    connections_waiting: int = 0
    connections_served: int = 0
    connections_active: int = 0
    connections_closed: dict[CloseReason, int] = attrs.field(factory=lambda: _none_of(CloseReason))
    requests: int = 0
    requests_answered: int = 0
    requests_failed: dict[RequestFailure, int] = attrs.field(factory=lambda: _none_of(RequestFailure))
    requests_in_flight: int = 0
    timeouts: dict[TimeoutKind, int] = attrs.field(factory=lambda: _none_of(TimeoutKind))
    handler_seconds: Histogram = attrs.field(factory=Histogram)

    def snapshot(self) -> ServerCounts:
        """Return a frozen copy."""
        values = {field.name: getattr(self, field.name) for field in attrs.fields(ServerCounts)}
        return ServerCounts(**{name: _copy(value) for name, value in values.items()})


def _copy(value: Any) -> Any:
    if isinstance(value, Histogram):
        return value.snapshot()
    return _frozen(value) if isinstance(value, dict) else value


class Clock:
    """Trio's clock, which can be read from other threads and after the run, too, and for how long it has run.

    Attributes:
        now: tells the time like :func:`trio.current_time`, in any thread.
    """

    def __init__(self) -> None:
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self._began = self.now()
        self._ended: float | None = None

    def end(self) -> None:
        """Stop."""
        self._ended = self.now()

    def seconds(self) -> float:
        """Return how long it has run, until now or until it was stopped."""
        until = self.now() if self._ended is None else self._ended
        return until - self._began


class ServerTelemetry:
    """All that a server counts: one set of counters for each transport that it has used.

    Attributes:
        active: the counters of the active transport.
        endpoint_intact: whether the endpoint was as the server made it, when it was last looked at.
    """

    def __init__(self, *, transport: str, endpoint: str, contract: str) -> None:
        self._endpoint = endpoint
        self._contract = contract
        self._clock = Clock()
        self._by_transport: dict[str, ServerCounters] = {}
        self.endpoint_intact = True
        self.active = self.switch(transport)

    def switch(self, transport: str) -> ServerCounters:
        """Make this the active transport, and return its counters."""
        self.active = self.counters_of(transport)
        return self.active

    def counters_of(self, transport: str) -> ServerCounters:
        """Return a transport's counters. A connection counts there for as long as it lasts."""
        counters = self._by_transport.get(transport)
        if counters is None:
            counters = self._by_transport[transport] = ServerCounters(transport=transport)
        return counters

    def end(self) -> None:
        """Stop the uptime's clock."""
        self._clock.end()

    def snapshot(self) -> ServerSnapshot:
        """Return all of it as it is now."""
        parts = {name: counters.snapshot() for name, counters in list(self._by_transport.items())}
        return ServerSnapshot(
            **in_all(parts.values()),
            transport=self.active.transport,
            endpoint=self._endpoint,
            contract=self._contract,
            uptime_seconds=self._clock.seconds(),
            endpoint_intact=self.endpoint_intact,
            by_transport=MappingProxyType(parts),
        )


class ClientTelemetry(Traffic):
    """What a client adds to; :class:`ClientSnapshot` says what is what.

    Attributes:
        now: tells the time like :func:`trio.current_time`, in any thread.
    """

    def __init__(self, *, transport: str, endpoint: str, contract: str) -> None:
        super().__init__()
        self._transport = transport
        self._endpoint = endpoint
        self._contract = contract
        self._clock = Clock()
        self.now: Callable[[], float] = self._clock.now
        self.calls: int = 0
        self.calls_in_flight: int = 0
        self.calls_failed: dict[CallFailure, int] = _NO_CALLS_FAILED.copy()
        self.call_seconds: Histogram = Histogram()

    def snapshot(self) -> ClientSnapshot:
        """Return all of it as it is now."""
        call_seconds = self.call_seconds.snapshot()
        failed = self.calls_failed
        return ClientSnapshot(
            transport=self._transport,
            endpoint=self._endpoint,
            contract=self._contract,
            uptime_seconds=self._clock.seconds(),
            calls=self.calls,
            calls_answered=call_seconds.count,
            calls_failed=_frozen(failed),
            calls_in_flight=self.calls_in_flight,
            timeouts=MappingProxyType(
                {
                    "turn": failed[CallFailure.TURN_TIMEOUT],
                    "call": failed[CallFailure.CALL_TIMEOUT],
                    "write": failed[CallFailure.WRITE_TIMEOUT],
                    "read": failed[CallFailure.READ_TIMEOUT],
                }
            ),
            call_seconds=call_seconds,
            frames_received=self.frames_received,
            frames_sent=self.frames_sent,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
        )
