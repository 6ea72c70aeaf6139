"""Whole messages in and out of one connection, each under its deadline."""

from .alarm import Alarm
from .base import (
    NOTHING,
    STOPPED,
    Channel,
    Held,
    close_at_once,
    closed_by_peer,
    closed_here,
    not_taken,
    rest_of,
    too_late,
)
from .cores import Cores
from .framed import FramedChannel
from .listener import FramedChannelListener, framed
from .spin import Spin

__all__ = [
    "NOTHING",
    "STOPPED",
    "Alarm",
    "Channel",
    "Cores",
    "FramedChannel",
    "FramedChannelListener",
    "Held",
    "Spin",
    "close_at_once",
    "closed_by_peer",
    "closed_here",
    "framed",
    "not_taken",
    "rest_of",
    "too_late",
]
