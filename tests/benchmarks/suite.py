"""The order of a run: rounds, and in each the contenders in turns at every piece of work."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from .loads import Sample
from .pieces import OTHER, TIMED
from .processes import Pair, Worker, client, serving

#: ``measured[work][contender][figure]`` has a number for each round.
Measured: TypeAlias = dict[str, dict[str, dict[str, list[float]]]]


@attrs.frozen(kw_only=True)
class Plan:
    """What is run, and for how long.

    Attributes:
        work, contenders: by their names.
        rounds: how often everything is measured.
        seconds: how long a load is timed, in each round.
        least: how often each of its operations is done, however long that takes.
    """

    work: Sequence[str]
    contenders: Sequence[str]
    rounds: int = 5
    seconds: float = 0.5
    least: int = 20

    @property
    def timed(self) -> list[str]:
        return [work for work in self.work if work in TIMED]

    @property
    def others(self) -> list[str]:
        return [work for work in self.work if work in OTHER]


@attrs.define
class Run:
    """A run, as far as it has come.

    Attributes:
        plan: what is run.
        on_step: told before each measurement what it is.
        left_out: contenders that can't take part, and why.
        measured: what came out.
    """

    plan: Plan
    on_step: Callable[[str], None] = lambda _: None
    left_out: dict[str, str] = attrs.field(factory=dict)
    measured: Measured = attrs.field(factory=dict)

    async def go(self) -> None:
        """Measure all of the plan. Processes and sockets are gone when this ends, however it does."""
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            for index in range(self.plan.rounds):
                await self._round(directory, index)

    def note(self, work: str, contender: str, **figures: float | None) -> None:
        """Add a round's figures; None is for what this system doesn't tell."""
        noted = self.measured.setdefault(work, {}).setdefault(contender, {})
        for figure, value in figures.items():
            if value is not None:
                noted.setdefault(figure, []).append(value)

    async def _round(self, directory: str, index: int) -> None:
        async with self._clients(directory) as clients:
            # In turns forwards and backwards, so that none is always the one after a demanding one.
            if index % 2:
                clients.reverse()
            async with AsyncExitStack() as stack:
                pairs = [
                    await stack.enter_async_context(serving(one, directory, f"{index}")) for one in clients
                ]
                for work in self.plan.timed:
                    for pair in pairs:
                        await self._time(work, pair, index)

    @asynccontextmanager
    async def _clients(self, directory: str) -> AsyncIterator[list[Worker]]:
        async with AsyncExitStack() as stack:
            found = []
            for name in self.plan.contenders:
                if name not in self.left_out:
                    started = await stack.enter_async_context(client(name, directory))
                    if isinstance(started, str):
                        self.left_out[name] = started
                    else:
                        found.append(started)
            yield found

    async def _time(self, work: str, pair: Pair, index: int) -> None:
        piece, plan = TIMED[work], self.plan
        self.on_step(f"round {index + 1} of {plan.rounds}: {work} {pair.name}")
        sample = await pair.time(piece.use, piece.message, piece.number, plan.seconds, plan.least)
        self.note(work, pair.name, **figures_of(sample))


def figures_of(sample: Sample) -> dict[str, float | None]:
    """Return what is kept of a sample: microseconds, of CPU time those of both processes for each call."""
    cpu = None
    if sample.server_cpu_s is not None:
        cpu = (sample.client_cpu_s + sample.server_cpu_s) / sample.calls * 1e6
    return {
        "us": sample.median_us,
        "us_per_call": sample.us_per_call,
        "p99_us": sample.p99_us,
        "cpu_us_per_call": cpu,
    }


def run(plan: Plan, on_step: Callable[[str], None]) -> Run:
    """Carry out a plan; see :class:`Run`."""
    done = Run(plan, on_step)
    trio.run(done.go)
    return done
