"""What an exporter reports: the servers and clients that it watches, and what others had counted before.

This module must never keep anything alive that it watches.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol, Self, TypeAlias

from .kinds import Kind, Metric
from .metrics import METRICS, Labels, Snapshot, merged, samples, whose

#: Returns a metric's values by their labels, all of one moment.
Read: TypeAlias = Callable[[Metric], dict[Labels, Any]]

#: What only grows, as long as nobody's part of it goes away.
_GROWING: Final = tuple(metric for metric in METRICS if metric.kind is not Kind.GAUGE)


class Source(Protocol):
    """What can be watched: a :class:`~trio_ipc.Server`, a :class:`~trio_ipc.Client` or a
    :class:`~trio_ipc.ResilientClient`.
    """

    def snapshot(self) -> Snapshot:
        """Return what it has done so far, in whatever thread."""
        ...


class Watch:
    """That an exporter reports a server or a client. Made by the exporter's ``watch``.

    As a context manager it closes itself in the end.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close: Callable[[], None] | None = close

    def close(self) -> None:
        """Report it no longer. Idempotent."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watched:
    """One source, how many watches it has, and the latest that was seen of it."""

    def __init__(self, source: Source) -> None:
        self.source: weakref.ref[Source] = weakref.ref(source)
        self.watches = 0
        self.latest = source.snapshot()


class Sources:
    """The objects that are reported, to readers in whatever threads.

    Several may share their labels, and are one series. What one of them had counted stays in it for as long
    as another is reported: a counter that falls is taken for one that began anew (prometheus.io, "rate()").
    """

    def __init__(self) -> None:
        # One that its own thread may take again: the garbage collector may close a watch at any time.
        self._lock = threading.RLock()
        self._watched: list[_Watched] = []
        #: What those had counted that exist no longer.
        self._gone: dict[Metric, dict[Labels, Any]] = {}

    def watch(self, source: Source) -> Watch:
        """Report this one, too, until the watch is closed or the source is gone."""
        with self._lock:
            watched = next((one for one in self._watched if one.source() is source), None)
            if watched is None:
                watched = _Watched(source)
                self._watched.append(watched)
            watched.watches += 1
        return Watch(partial(self._forget, watched))

    def _forget(self, watched: _Watched) -> None:
        with self._lock:
            watched.watches -= 1
            source = watched.source()
            if source is not None:
                watched.latest = source.snapshot()

    def read(self) -> Read:
        """Return how to read what everybody has done so far. One who is watched twice is there once."""
        with self._lock:
            reported: list[Snapshot] = []
            unwatched: list[Snapshot] = []  # and may be watched again, so that they are kept apart
            dead: list[_Watched] = []
            for watched in [*self._watched]:
                source = watched.source()
                if source is None:
                    dead.append(watched)
                elif watched.watches:
                    watched.latest = source.snapshot()
                    reported.append(watched.latest)
                else:
                    unwatched.append(watched.latest)
            if dead or self._gone:
                self._bury(dead, reported)
            return partial(_read, reported, unwatched, self._gone)

    def _bury(self, dead: Sequence[_Watched], reported: Sequence[Snapshot]) -> None:
        self._watched = [watched for watched in self._watched if watched not in dead]
        latest = [watched.latest for watched in dead]
        gone = {
            metric: _still_reported(metric, reported, self._gone.get(metric, {}), samples(metric, latest))
            for metric in _GROWING
        }
        self._gone = {metric: values for metric, values in gone.items() if values}


def _read(
    reported: Sequence[Snapshot],
    unwatched: Sequence[Snapshot],
    gone: Mapping[Metric, Mapping[Labels, Any]],
    metric: Metric,
) -> dict[Labels, Any]:
    found = samples(metric, reported)
    if metric.kind is not Kind.GAUGE and (unwatched or gone):
        lost = _still_reported(metric, reported, gone.get(metric, {}), samples(metric, unwatched))
        return _added(found, lost)
    return found


def _still_reported(
    metric: Metric, reported: Sequence[Snapshot], *lost: Mapping[Labels, Any]
) -> dict[Labels, Any]:
    """Return what is lost, added up, of those series that others still report."""
    series = {whose(metric, labels) for labels in samples(metric, reported)}
    return {labels: value for labels, value in _added(*lost).items() if whose(metric, labels) in series}


def _added(*several: Mapping[Labels, Any]) -> dict[Labels, Any]:
    return merged(chain.from_iterable(values.items() for values in several), operator.add)
