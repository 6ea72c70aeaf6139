"""How many of the machine's cores this process may use.

This module must never know who asks.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from trio_ipc.transports.host import processor_count

_CGROUPS: Final = "/sys/fs/cgroup"
_OWN_CGROUP: Final = "/proc/self/cgroup"


#: Cores that client and server need to run at the same time. With a quota of less, shared by both, they would
#: be stopped until its next period.
_CORES_FOR_BOTH: Final = 2

#: Seconds for which a count is good: affinity and quotas change. To read a quota takes some 50 µs.
_KNOWN_FOR: Final = 1.0


class Cores:
    """Whether a peer can run while this process does; counted again after a second."""

    __slots__ = ("_are_two", "_ask_at")

    def __init__(self) -> None:
        self._ask_at = -math.inf
        self._are_two = False

    def are_two(self, now: float) -> bool:
        """Return whether there are two cores, as it was a second ago at the most, by the quota two.

        Args:
            now: the time in seconds, on whichever clock, but always on the same one.
        """
        if now >= self._ask_at:
            self._ask_at = now + _KNOWN_FOR
            self._are_two = usable_cores() >= _CORES_FOR_BOTH
        return self._are_two


def usable_cores() -> float:
    """Return how many cores this process may use at a time, such as 1.5.

    That is the least of its CPU affinity (sched_getaffinity(2), GetProcessAffinityMask()), and of the quotas
    of its cgroup and those above (``cpu.max``: Linux, Documentation/admin-guide/cgroup-v2.rst; for version 1
    ``cpu.cfs_quota_us``), which may be those of a second ago. Both may change while it runs.
    """
    return min(processor_count(), _quota.now())


def quota(cgroups: str = _CGROUPS, own: str = _OWN_CGROUP) -> float:
    """Return how many cores' time the cgroups of this process give it; infinity if they don't say.

    Args:
        cgroups: where the file system of the cgroups is.
        own: the file that names those of this process.
    """
    least = math.inf
    with suppress(OSError, ValueError):
        with open(own, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if not controllers:
                least = min(least, _least_of(cgroups, path, _quota_v2))
            elif "cpu" in controllers.split(","):
                least = min(least, _least_of(os.path.join(cgroups, "cpu"), path, _quota_v1))
    return least


class Quota:
    """A quota that is read again when what is known of it is a second old.

    Args:
        read: reads it, as :func:`quota` does.
        clock: tells the time in seconds.
    """

    def __init__(
        self, read: Callable[[], float] = quota, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._known = (-math.inf, math.inf)  # one object: threads may ask at the same time

    def now(self) -> float:
        """Return it, as it was a second ago at the most."""
        since, cores = self._known
        now = self._clock()
        if now - since >= _KNOWN_FOR:
            cores = self._read()
            self._known = (now, cores)
        return cores


_quota: Final = Quota()


def _least_of(root: str, path: str, quota_of: Callable[[str], float]) -> float:
    """Return the least quota from a cgroup up to the root, which is what a container sees as its own."""
    least, path = quota_of(root), path.strip("/")
    while path:
        least = min(least, quota_of(os.path.join(root, path)))
        path = os.path.dirname(path)
    return least


def _quota_v2(directory: str) -> float:
    with (
        suppress(OSError, ArithmeticError, ValueError),
        open(os.path.join(directory, "cpu.max"), encoding="utf-8") as file,
    ):
        limit, period = file.read().split()
        return int(limit) / int(period)  # no number, but "max", for none
    return math.inf


def _quota_v1(directory: str) -> float:
    values = []
    with suppress(OSError, ArithmeticError, ValueError):
        for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"):
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                values.append(int(file.read()))
        if values[0] > 0:  # -1 for none
            return values[0] / values[1]
    return math.inf
