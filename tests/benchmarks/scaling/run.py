"""Carrying out a plan: processes for each curve and round, and its points by all contenders in turns."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

import attrs

from tests.benchmarks.workers import Worker, worker

from .curves import CONTENDERS, CURVES, MIB, Measured, key
from .loops import Job

_WORKER: Final = "tests.benchmarks.scaling.worker"

#: Seconds over what it was asked for, until a process that measures a point counts as hung.
_PATIENCE: Final = 120.0

#: Files that a process has open apart from its connections, and a few more.
_OTHER_FILES: Final = 64

#: Calls of a connection until polling has tried both ways and chosen (`trio_ipc/channel/spin.py`), and those
#: where the response takes so long that polling is no matter.
_WARM: Final = 13
_WARM_LARGE: Final = 3

#: How often everything is measured, where nothing else is said.
ROUNDS: Final = 5


@attrs.frozen
class Plan:
    """What is measured, and how thoroughly.

    Attributes:
        points: where, by the names of the curves.
        rounds: how often everything is measured.
        seconds: how long a point is timed, in each round.
        warm: how many calls each connection or caller makes first.
        contenders: who takes part.
    """

    points: Mapping[str, Sequence[float]]
    rounds: int = ROUNDS
    seconds: float = 0.3
    warm: int = _WARM
    contenders: Sequence[str] = tuple(CONTENDERS)

    @property
    def steps(self) -> int:
        return self.rounds * sum(map(len, self.points.values())) * len(self.contenders)


@attrs.define
class Run:
    """A plan that is being carried out, and what came of it.

    Attributes:
        plan: what to do.
        on_step: told what begins.
        measured: what was measured so far.
        left_out: points that this machine does not allow, with the reason, by curve.
        load: how many processes were at work on this machine when the run began, as getloadavg(3) says.
    """

    plan: Plan
    on_step: Callable[[str], None] = lambda _: None
    measured: Measured = attrs.field(factory=dict)
    left_out: dict[str, str] = attrs.field(factory=dict)
    load: float = attrs.field(factory=lambda: round(os.getloadavg()[0], 1))

    async def go(self) -> None:
        """Measure all of the plan. Processes and sockets are gone when this ends, however it does."""
        points = self.allowed(raise_limit_of_files())
        with tempfile.TemporaryDirectory(prefix="scale-") as directory:
            for index in range(self.plan.rounds):
                for curve in points:
                    if points[curve]:
                        await self._curve(directory, curve, points[curve], index)

    def allowed(self, files: int) -> dict[str, list[float]]:
        """Return the points that so many open files allow, and note the others."""
        found = {}
        for curve, points in self.plan.points.items():
            most = files - _OTHER_FILES if curve in {"connections", "callers"} else float("inf")
            found[curve] = [point for point in points if point <= most]
            lost = [CURVES[curve].label(point) for point in points if point > most]
            if lost:
                self.left_out[curve] = f"{', '.join(lost)}: a process may open {files:,} files here"
        return found

    async def _curve(self, directory: str, curve: str, points: Sequence[float], index: int) -> None:
        connections = int(max(*points, 256))
        # In turns forwards and backwards, so that none is always the one after a demanding one.
        names = self.plan.contenders[:: -1 if index % 2 else 1]
        async with AsyncExitStack() as stack:
            pairs = {}
            for name in names:
                path = f"{directory}/{curve}.{name}.{index}"
                common = (name, curve, f"{connections}")
                server = await stack.enter_async_context(
                    started(f"{path}.server.log", "serve", *common, path)
                )
                await server.answer()  # it serves
                client = await stack.enter_async_context(started(f"{path}.client.log", "call", *common))
                pairs[name] = path, server.pid, client
            for point in points:
                for name, (path, server_pid, client) in pairs.items():
                    label = CURVES[curve].label(point)
                    self.on_step(f"round {index + 1} of {self.plan.rounds}: {curve} {label}, {name}")
                    warm = _WARM_LARGE if curve == "sizes" and point > MIB else self.plan.warm
                    least = min(CURVES[curve].least, 20 * warm)
                    job = Job(curve, point, path, server_pid, self.plan.seconds, least, warm)
                    self._note(curve, name, point, await client.tell(job))

    def _note(self, curve: str, contender: str, point: float, figures: dict[str, float]) -> None:
        noted = self.measured.setdefault(curve, {}).setdefault(contender, {})
        for figure, value in figures.items():
            of_point = noted.setdefault(figure, {}).setdefault(key(point), [])
            of_point.append(float(f"{value:.4g}"))  # more digits would be noise


def raise_limit_of_files() -> int:
    """Let this process and its children open as many files as they may; return how many that is."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def started(log: str, role: str, name: str, *arguments: str) -> AbstractAsyncContextManager[Worker]:
    """Run a process of a contender for the length of a block; what it complains of goes to a log."""
    label = CONTENDERS[name]
    return worker(_WORKER, role, name, *arguments, label=label, log=log, patience=_PATIENCE)
