"""The states of a connection on the server, and which may follow which."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class State(enum.Enum):
    """What a connection does."""

    READING = "reading"
    """No whole request is in hand; nothing, or a part of one, has come."""
    HANDLING = "handling"
    """Requests are in hand, and a handler runs. A turn ends after 1 ms of handlers' time."""
    FLUSHING = "flushing"
    """Responses are handed over, or a final failed response."""
    ENDED = "ended"
    """It is over, for one reason that was decided once."""


#: What may follow what. The connection is told, cut off or broken in any state, and ends then.
FOLLOWS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        # a whole request has come; or the peer broke the protocol, and is told so
        State.READING: frozenset({State.HANDLING, State.FLUSHING, State.ENDED}),
        # none is left, the turn is over, or a handler's time was up; or the client has left
        State.HANDLING: frozenset({State.FLUSHING, State.ENDED}),
        # no request is in hand; or more are, and everyone else has had a turn
        State.FLUSHING: frozenset({State.READING, State.HANDLING, State.ENDED}),
        State.ENDED: frozenset(),
    }
)
