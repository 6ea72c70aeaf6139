"""The order of a run: rounds, and in each the contenders in turns at every piece of work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self, TypeAlias

import attrs

from . import others
from .contenders import CONTENDERS
from .loads import Sample
from .pieces import TIMED
from .processes import Pair, client, serving
from .surroundings import Surroundings, surrounded
from .workers import Worker

#: How often everything is measured, where nothing else is said.
ROUNDS: Final = 7

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
        idle_seconds: how long connections are idle while their CPU time is measured, twice in all.
        imports: how often each import is done, in each round.
        surroundings: what else the machine does, and which of it the processes may use.
    """

    work: Sequence[str]
    contenders: Sequence[str]
    rounds: int = ROUNDS
    seconds: float = 0.5
    least: int = 20
    idle_seconds: float = 10.0
    imports: int = 5
    surroundings: Surroundings = Surroundings.QUIET

    @property
    def timed(self) -> list[str]:
        return [work for work in self.work if work in TIMED]

    @property
    def steps(self) -> int:
        """How many measurements there are at the most; contenders that are left out have none."""
        of_a_round = 0
        for work in self.work:
            each = {"g": 1, "p": 3}.get(work, 1 if work in TIMED else 0)
            of_a_round += each * len(self._at(work)) if each else 1
        return self.rounds * of_a_round + ("p" in self.work)

    def but(self, **changes: Any) -> Self:
        """Return a copy with some values changed; None changes nothing."""
        return attrs.evolve(self, **{name: value for name, value in changes.items() if value is not None})

    def _at(self, work: str) -> list[str]:
        return [name for name in self.contenders if takes_part(work, name)]


@attrs.define
class Run:
    """A run, as far as it has come.

    Attributes:
        plan: what is run.
        on_step: told before each measurement what it is.
        left_out: contenders that can't take part, and why.
        measured: what came out.
        load: how many processes were at work on this machine when the run began, as getloadavg(3) says.
    """

    plan: Plan
    on_step: Callable[[str], None] = lambda _: None
    left_out: dict[str, str] = attrs.field(factory=dict)
    measured: Measured = attrs.field(factory=dict)
    load: float = attrs.field(factory=lambda: round(os.getloadavg()[0], 1))

    async def go(self) -> None:
        """Measure all of the plan. Processes and sockets are gone when this ends, however it does."""
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            async with surrounded(self.plan.surroundings):
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
                for pair in pairs:
                    if "h" in self.plan.work and takes_part("h", pair.name):
                        self.note("h", pair.name, first_response_ms=pair.seconds_to_first_response * 1000)
                for work in self.plan.work:
                    await self._measure(work, pairs, index)
            if "g" in self.plan.work:
                for one in clients:
                    if takes_part("g", one.name):
                        await self._memory(one, directory, index)

    async def _measure(self, work: str, pairs: list[Pair], index: int) -> None:
        if work in TIMED:
            for pair in pairs:
                if takes_part(work, pair.name):
                    await self._time(work, pair, index)
        elif work == "h":
            self._step(index, "h import")
            for name, milliseconds in (await others.imports(self.plan.imports)).items():
                self.note("h", name, import_ms=milliseconds)
        elif work == "p":
            await self._polling([pair for pair in pairs if takes_part(work, pair.name)], index)
        elif work == "codec":
            self._step(index, "codec")
            for name, figures in (await others.codec(self.plan.seconds / 10)).items():
                self.note("codec", name, **figures)

    async def _memory(self, one: Worker, directory: str, index: int) -> None:
        self._step(index, f"g {one.name}")
        async with serving(one, directory, f"{index}.fresh") as fresh:
            self.note("g", fresh.name, **await others.memory(fresh))

    async def _polling(self, pairs: list[Pair], index: int) -> None:
        if index == 0:
            self._step(index, f"p idle for twice {self.plan.idle_seconds:g} s")
            for name, figures in (await others.idle_cpu(pairs, self.plan.idle_seconds)).items():
                self.note("p", name, **figures)
        for pair in pairs:
            self._step(index, f"p {pair.name}, slow handlers")
            slow = await others.slow_handlers(pair, self.plan.seconds, self.plan.least)
            self.note("p", pair.name, slow_cpu_us_per_call=figures_of(slow)["cpu_us_per_call"])
        for pair in pairs:
            self._step(index, f"p {pair.name}, pauses")
            self.note("p", pair.name, **await others.paused(pair, self.plan.seconds, self.plan.least))
        for pair in pairs:
            self._step(index, f"p {pair.name}, many connections")
            many = await others.many_connections(pair, self.plan.seconds, self.plan.least)
            self.note("p", pair.name, many_p99_us=many.p99_us, many_us_per_call=many.us_per_call)

    def _step(self, index: int, what: str) -> None:
        self.on_step(f"round {index + 1} of {self.plan.rounds}: {what}")

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
        self._step(index, f"{work} {pair.name}")
        sample = await pair.time(piece.use, piece.message, piece.number, plan.seconds, plan.least)
        self.note(work, pair.name, **figures_of(sample))


def takes_part(work: str, name: str) -> bool:
    """Return whether a contender has this piece of work; see :attr:`Piece.alone` and :attr:`Entry.only`."""
    entry = CONTENDERS[name]
    if entry.only and work not in entry.only:
        return False
    if work == "p":
        return entry.module == "ours"  # nobody else polls
    return work not in TIMED or not TIMED[work].alone or entry.shares


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
