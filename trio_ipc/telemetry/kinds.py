"""What a metric is: its name, what it reads of a snapshot, and how it behaves.

This module must never know an exporter's library.
"""

from __future__ import annotations

import enum
from typing import Literal

import attrs


class Kind(enum.Enum):
    """How a metric behaves."""

    COUNTER = enum.auto()
    """Only grows."""
    GAUGE = enum.auto()
    """Goes up and down."""
    HISTOGRAM = enum.auto()
    """Values in buckets."""


@attrs.frozen(kw_only=True)
class Metric:
    """One metric.

    Attributes:
        side: whose it is.
        name: what comes after the side.
        field: the attribute of a snapshot that it reads.
        kind: how it behaves.
        help: one line on what it measures.
        unit: ``seconds``, ``bytes``, or empty where things are counted.
        label: what the keys of the field are, where it is a mapping.
        adds_up: whether two series of the same labels are added; otherwise the larger one counts.
        of_the_whole: whether it is the server's and not one of its transports'.
    """

    side: Literal["server", "client", "resilient", "resilient_endpoint"]
    name: str
    field: str
    kind: Kind
    help: str
    unit: Literal["", "seconds", "bytes"] = ""
    label: str = ""
    adds_up: bool = True
    of_the_whole: bool = False
