"""What happened, in plain integers.

The hot path adds to them; readers take a copy. This module must never lock, format or export anything.
"""

from __future__ import annotations

import attrs


@attrs.define(kw_only=True)
class Traffic:
    """Whole frames and their bytes, headers included, as a channel counts them."""

    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


@attrs.define(kw_only=True)
class ServerCounters(Traffic):
    """A server's counters.

    Every accepted connection ends up in exactly one of ``connections_refused_credentials``,
    ``connections_refused_limit``, ``connections_left`` (by the client, or by the server's stop, before it
    got a place) and ``connections_served``, or still waits for a place. Every request ends up in at most
    one of ``handler_failures``, ``handler_timeouts``, ``clients_gone`` and ``requests_cut_off`` (by the end
    of the grace or a cancellation); for the others the handler made a response. ``responses_unsendable``
    counts responses that did not go into a frame, those that report a failure included.
    """

    transport: str
    connections_accepted: int = 0
    connections_refused_limit: int = 0
    connections_refused_credentials: int = 0
    connections_left: int = 0
    connections_served: int = 0
    connections_active: int = 0
    requests: int = 0
    handler_failures: int = 0
    handler_timeouts: int = 0
    responses_unsendable: int = 0
    clients_gone: int = 0
    requests_cut_off: int = 0
    protocol_errors: int = 0
    read_timeouts: int = 0
    write_timeouts: int = 0


@attrs.define(kw_only=True)
class ClientCounters(Traffic):
    """A client's counters. ``calls`` counts those that were answered and those that were not."""

    transport: str
    calls: int = 0
    calls_failed: int = 0
