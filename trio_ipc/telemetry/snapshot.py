"""What readers get: frozen copies of the counters, typed, and as plain JSON.

docs/telemetry.md says what each field counts. This module must never know who counts, or when.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs

from .histogram import HistogramSnapshot

#: Counts by their reason or kind. Every reason is there, if only with 0.
Counts: TypeAlias = Mapping[str, int]


def plain(value: Any) -> Any:
    """Return a snapshot, or a part of one, as what :func:`json.dumps` takes."""
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, tuple) else value


class AsDict:
    """A snapshot that can be turned into plain JSON."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as dictionaries, lists, strings and numbers: what :func:`json.dumps` takes."""
        whole: dict[str, Any] = plain(self)
        return whole


@attrs.frozen(kw_only=True)
class ServerCounts(AsDict):
    """What a server did, or one of the transports that it has used.

    No connection and no request is counted twice or not at all. Whenever a snapshot is taken in Trio's
    thread:

    - ``connections_accepted`` = all of ``connections_refused`` + ``connections_left`` +
      ``connections_waiting`` + ``connections_served``
    - ``connections_served`` = ``connections_active`` + all of ``connections_closed``
    - ``requests`` = ``requests_answered`` + all of ``requests_failed`` + ``requests_in_flight``
    - ``handler_seconds.count`` = ``requests``, less those whose handler runs
    - ``timeouts["handler"]`` = ``requests_failed["handler_timeout"]``

    Attributes:
        connections_accepted: connections that came.
        connections_refused: those that were refused, by reason: ``limit``, ``credentials``.
        connections_left: those that were gone, or whose server ended, before they had a place.
        connections_waiting: those that wait for a place now.
        connections_served: those that had a place.
        connections_active: those that have one now.
        connections_closed: those that had one, by what ended them: ``peer_closed``, ``protocol_error``,
            ``read_timeout``, ``write_timeout``, ``unanswerable`` (a request failed, and no response can
            say so), ``stopped`` (idle at a graceful stop), ``cut_off`` (by a cancellation or the end of
            the grace), ``internal_error``.
        requests: requests that came whole and could be decoded.
        requests_answered: those whose own response was handed over.
        requests_failed: the others, by what failed first: ``handler``, ``handler_timeout``,
            ``response_unsendable``, ``response_undelivered``, ``client_gone``, ``cut_off``,
            ``internal_error``. The client may have been sent a failed response.
        requests_in_flight: those of which it is not decided yet.
        timeouts: deadlines that passed: ``accept`` (no place in time), ``read``, ``write``, ``handler``.
        handler_seconds: how long the handlers ran that have ended, however they did.
        frames_received, frames_sent: whole frames.
        bytes_received, bytes_sent: their bytes, headers included.
    """

    connections_accepted: int
    connections_refused: Counts
    connections_left: int
    connections_waiting: int
    connections_served: int
    connections_active: int
    connections_closed: Counts
    requests: int
    requests_answered: int
    requests_failed: Counts
    requests_in_flight: int
    timeouts: Counts
    handler_seconds: HistogramSnapshot
    frames_received: int
    frames_sent: int
    bytes_received: int
    bytes_sent: int


@attrs.frozen(kw_only=True)
class ServerSnapshot(ServerCounts):
    """A server at one moment: who it is, what it did in all, and what by each transport.

    Attributes:
        transport: the one that new connections get.
        endpoint: where it listens.
        contract: the name of its contract.
        uptime_seconds: since it began to listen, until now or until it ended.
        endpoint_intact: whether the socket file and its directory were as the server made or found them, when
            it last looked, which it does every 5 s. Always true for a pipe, which nobody can take away.
        by_transport: the same counts for each transport that it has used. A connection counts for the
            transport that it came by, for as long as it lasts. They add up to the counts of the server.
    """

    transport: str
    endpoint: str
    contract: str
    uptime_seconds: float
    endpoint_intact: bool
    by_transport: Mapping[str, ServerCounts]


@attrs.frozen(kw_only=True)
class ClientSnapshot(AsDict):
    """A client at one moment.

    Whenever a snapshot is taken in Trio's thread, ``calls`` = ``calls_answered`` + all of ``calls_failed`` +
    ``calls_in_flight``, and ``call_seconds.count`` = ``calls_answered``.

    Attributes:
        transport: the one that carries its connection.
        endpoint: where it leads.
        contract: the name of its contract.
        uptime_seconds: since it was connected.
        calls: calls that were begun with a request of the contract's type.
        calls_answered: those that returned a response, also one that reports a failure.
        calls_failed: those that raised, by kind: ``request_unsendable``, ``turn_timeout``,
            ``call_timeout``, ``write_timeout``, ``read_timeout``, ``peer_closed``, ``protocol_error``,
            ``closed`` (on this side, or broken by an earlier call), ``cancelled``, ``other``.
        calls_in_flight: those that wait for their turn or for their response.
        timeouts: deadlines that passed: ``turn``, ``call``, ``write``, ``read``.
        call_seconds: how long the answered calls took, waiting for their turn included. Not the others: a
            call that fails at once would make the server look quick.
        frames_received, frames_sent: whole frames.
        bytes_received, bytes_sent: their bytes, headers included.
    """

    transport: str
    endpoint: str
    contract: str
    uptime_seconds: float
    calls: int
    calls_answered: int
    calls_failed: Counts
    calls_in_flight: int
    timeouts: Counts
    call_seconds: HistogramSnapshot
    frames_received: int
    frames_sent: int
    bytes_received: int
    bytes_sent: int


def in_all(parts: Iterable[ServerCounts]) -> dict[str, Any]:
    """Return the sums of one or more counts, by field."""
    parts = list(parts)
    return {
        field.name: reduce(_sum, (getattr(part, field.name) for part in parts))
        for field in attrs.fields(ServerCounts)
    }


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        return MappingProxyType({name: count + other[name] for name, count in one.items()})
    return operator.add(one, other)
