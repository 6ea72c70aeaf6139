"""``make soak``: the example programs at work for as long as one likes, while everything goes wrong.

    make soak ARGS="--seconds 3600"

Two collectors and an agent run as processes; this program adds callers of its own. One after another a
collector is killed and started again, stopped and continued, and told to switch its transport, while hostile
clients and short-lived agents come and go. At most one collector is disturbed at a time, so that every call
must be answered, and rightly. In the end all is quiet: descriptors and tasks must be as many as at the
beginning, and after ten minutes memory is judged, too. Exit status 1 says that something was wrong or left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.hardening.soak_programs import PATIENCE, Collector, Watched, start_program
from trio_ipc import BreakerState, IpcError
from trio_ipc.daemoneye import DETECTION, DetectionTask, ProcessFilter
from trio_ipc.resilient import Endpoint, ResilientConfig, open_resilient_client

CALLERS: Final = 6

#: Seconds from which on memory is judged; before, what is filled once is most of what grows.
JUDGES_MEMORY: Final = 600

#: What the last quarter of a run may have over the second: a share of it, and bytes.
_SHARE_ALLOWED: Final = 0.05
_BYTES_ALLOWED: Final = 4 << 20


class Soak:
    """All of one run.

    Args:
        directory: a private one.
        seconds: how long there is chaos.
        seed: of the chaos.

    Attributes:
        did: how often what was done.
        problems: what was wrong or left, in words.
    """

    def __init__(self, directory: Path, seconds: float, seed: int) -> None:
        self.seconds = seconds
        self.did: Counter[str] = Counter()
        self.problems: list[str] = []
        self.watched: list[Watched] = []
        self._directory = directory
        self._chance = random.Random(seed)
        self.steady = Collector(directory, "steady")
        self.mortal = Collector(directory, "mortal")
        self._began = time.monotonic()
        self._over = False

    async def run(self, live: Live | None) -> None:
        """Begin, make chaos, come to rest, and judge."""
        try:
            for collector in (self.steady, self.mortal):
                await collector.start()
            await self._soak(live)
        finally:
            with trio.CancelScope(shield=True):
                for collector in (self.steady, self.mortal):
                    if collector.process is not None and collector.process.returncode is None:
                        await collector.crash()

    async def _soak(self, live: Live | None) -> None:
        me, steady = Watched("this program", os.getpid()), Watched("collector", self.steady.running.pid)
        self.watched += [me, steady]
        await trio.sleep(0.5)
        at_first = {one.name: self._counts(one) for one in (me, steady)}
        async with self._agent() as agent:
            self.watched.append(agent)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look, live)
                with trio.move_on_after(self.seconds):
                    await self._chaos()
                nursery.cancel_scope.cancel()
        self.watched.remove(agent)
        with trio.move_on_after(PATIENCE):
            while {one.name: self._counts(one) for one in (me, steady)} != at_first:  # noqa: ASYNC110
                await trio.sleep(0.1)
        for one in (me, steady):
            if self._counts(one) != at_first[one.name]:
                self.problems.append(f"{one.name}: {at_first[one.name]} became {self._counts(one)}")
        self.watched.append(agent)
        await self._end()
        self._judge_memory()

    @staticmethod
    def _counts(one: Watched) -> dict[str, int]:
        one.look()
        counts = {"descriptors": one.descriptors}
        if one.pid == os.getpid():
            counts["tasks"] = trio.lowlevel.current_statistics().tasks_living
        return counts

    # --- Work, which must be done ---

    async def _chaos(self) -> None:
        endpoints = [Endpoint(one.config, id=one.name) for one in (self.steady, self.mortal)]
        settings = ResilientConfig(call_timeout_ms=30_000, breaker_reset_ms=500)
        until = time.monotonic() + self.seconds
        with trio.CancelScope(shield=True):  # it ends between two steps, so that nobody stays stopped
            async with (
                open_resilient_client(DETECTION, endpoints, settings) as client,
                trio.open_nursery() as nursery,
            ):
                for number in range(CALLERS):
                    nursery.start_soon(self._call, client, number)
                nursery.start_soon(self._short_agents)
                nursery.start_soon(self._hostile_clients)
                while time.monotonic() < until:
                    await self._chance.choice([self._kill, self._stop, self._switch])()
                    await self._recovered(client)
                self._over = True

    async def _recovered(self, client: Any) -> None:
        """Wait until the callers trust both collectors again; until then one is all that they have."""
        with trio.move_on_after(PATIENCE):
            while not all(one.breaker.state is BreakerState.CLOSED for one in client.statistics()):  # noqa: ASYNC110
                await trio.sleep(0.02)
            return
        self.problems.append("a collector that works again was not trusted again")

    async def _call(self, client: Any, number: int) -> None:
        turn = 0
        while not self._over:
            turn += 1
            name, pid = f"{number}-{turn}", os.getpid()
            asked = DetectionTask(task_id=name, process_filter=ProcessFilter(pids=[pid]))
            try:
                response = await client.call(asked)
            except IpcError as exc:
                self.problems.append(f"call {name} was lost: {exc}")
                continue
            self.did["calls"] += 1
            if (response.task_id, [one.pid for one in response.processes]) != (name, [pid]):
                self.problems.append(f"call {name} had a wrong response: {response}")
            await trio.sleep(0.01)

    @asynccontextmanager
    async def _agent(self) -> AsyncIterator[Watched]:
        """The example agent, for the whole time; what it prints is judged."""
        options = ["--json", "--interval", "0.5", "--endpoint", self.steady.endpoint]
        options += ["--endpoint", self.mortal.endpoint]
        errors = self._directory / "agent.err"
        process = await start_program("examples.agent", options, errors, stdout=subprocess.PIPE)
        assert process.stdout is not None
        printed = process.stdout
        agent, first_look = Watched("agent", process.pid), trio.Event()

        async def read() -> None:
            unread, cycle = b"", 0
            async for piece in printed:
                *lines, unread = (unread + piece).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if "cycle" in told and told["cycle"] <= cycle:
                        self.problems.append(f"the agent's cycle {told['cycle']} came after {cycle}")
                    cycle = told.get("cycle", cycle)
                    self.did["looks of the agent"] += 1
                    first_look.set()

        try:
            async with printed, trio.open_nursery() as nursery:
                nursery.start_soon(read)
                with trio.fail_after(PATIENCE):
                    await first_look.wait()
                agent.look()
                before = agent.descriptors
                yield agent
                agent.look()
                # A connection to each collector, where the first look may have needed one.
                if agent.descriptors > before + 2:
                    self.problems.append(f"agent: {before} descriptors became {agent.descriptors}")
                process.terminate()
                with trio.fail_after(PATIENCE):
                    status = await process.wait()
                if status:
                    self.problems.append(f"the agent ended with status {status}")
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()

    async def _short_agents(self) -> None:
        options = ["--once", "--json", "--endpoint", self.mortal.endpoint]
        options += ["--endpoint", self.steady.endpoint]
        while not self._over:
            process = await start_program("examples.agent", options, self._directory / "short.err")
            if self._chance.random() < 0.3:
                await trio.sleep(self._chance.uniform(0, 0.5))
                process.kill()
            elif await process.wait():
                self.problems.append("a short-lived agent failed")
            await process.wait()
            self.did["agents come and gone"] += 1

    # --- What goes wrong ---

    async def _kill(self) -> None:
        await self.mortal.crash()
        await trio.sleep(self._chance.uniform(0, 0.5))
        await self.mortal.start()
        self.did["collectors killed"] += 1
        await trio.sleep(self._chance.uniform(0.2, 0.6))

    async def _stop(self) -> None:
        collector = self._chance.choice([self.steady, self.mortal])
        collector.running.send_signal(signal.SIGSTOP)
        await trio.sleep(self._chance.uniform(0.1, 1.5))
        collector.running.send_signal(signal.SIGCONT)
        self.did["collectors stopped for a moment"] += 1
        await trio.sleep(self._chance.uniform(0.2, 0.6))

    async def _switch(self) -> None:
        self._chance.choice([self.steady, self.mortal]).switch()
        self.did["transports switched"] += 1
        await trio.sleep(self._chance.uniform(0.05, 0.3))

    async def _hostile_clients(self) -> None:
        frame = bytes.fromhex("03000000a0d8a5bc0a0174")
        while not self._over:
            collector = self._chance.choice([self.steady, self.mortal])
            data = self._chance.choice(
                [b"", frame[:5], b"GET / HTTP/1.1\r\n\r\n", frame * 500, frame + b"\0" * 8, b"\xff" * 1000]
            )
            with contextlib.suppress(OSError, trio.BrokenResourceError), trio.move_on_after(1):
                stream = await trio.open_unix_socket(collector.endpoint)
                async with stream:
                    await stream.send_all(data)
                    await trio.sleep(self._chance.uniform(0, 0.2))
            self.did["hostile clients"] += 1
            await trio.sleep(0.01)

    # --- What is seen ---

    async def _look(self, live: Live | None) -> None:
        while True:
            for one in self.watched:
                with contextlib.suppress(OSError):
                    one.look()
            if live is not None:
                live.update(self.table(), refresh=True)
            await trio.sleep(1)

    def table(self) -> Table:
        """What was done, and what the programs hold."""
        table = Table(title=f"soak: {time.monotonic() - self._began:.0f} of {self.seconds:.0f} s")
        table.add_column("what")
        table.add_column("how much", justify="right")
        for what, count in sorted(self.did.items()):
            table.add_row(what, f"{count:,}")
        for one in self.watched:
            if one.memory:
                early, late = one.growth()
                held = (
                    f"{late / 2**20:.1f} MiB ({(late - early) / 2**20:+.1f}), {one.descriptors} descriptors"
                )
                table.add_row(one.name, held)
        table.add_row("problems", f"{len(self.problems)}")
        return table

    async def _end(self) -> None:
        """End the collectors, and read what they say of themselves."""
        for collector in (self.steady, self.mortal):
            status = await collector.end()
            if status or os.path.lexists(collector.endpoint):
                self.problems.append(f"{collector.name} ended with status {status}, or left its endpoint")
            told = json.loads(collector.telemetry.read_text(encoding="utf-8"))
            decided = told["requests_answered"] + sum(told["requests_failed"].values())
            if told["requests"] != decided or told["requests_in_flight"] or told["connections_active"]:
                self.problems.append(f"{collector.name}'s counters don't add up: {told}")
            if told["connections_closed"]["internal_error"]:
                self.problems.append(f"{collector.name} had internal errors")
        for log in self._directory.glob("*.err"):
            if "Traceback" in log.read_text(encoding="utf-8"):
                self.problems.append(f"{log.name}: {log.read_text(encoding='utf-8')[-2_000:]}")

    def _judge_memory(self) -> None:
        for one in self.watched:
            early, late = one.growth()
            if self.seconds >= JUDGES_MEMORY and late > early * (1 + _SHARE_ALLOWED) + _BYTES_ALLOWED:
                self.problems.append(f"{one.name}: memory grew from {early:,.0f} to {late:,.0f} bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, show it, and return 1 if something was wrong or left."""
    parser = argparse.ArgumentParser(prog="make soak", description="The example programs under chaos.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args(arguments)
    if sys.platform != "linux":
        print("nothing was soaked: it counts by Linux's /proc")
        return 0
    console = Console()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        soak = Soak(Path(directory), options.seconds, options.seed)
        shown = Live(soak.table(), console=console, auto_refresh=False, transient=True)
        with shown if console.is_terminal else contextlib.nullcontext() as live:
            trio.run(soak.run, live)
    console.print(soak.table())
    for problem in soak.problems:
        console.print(f"wrong: {problem}", markup=False)
    console.print(f"seed {options.seed}", highlight=False)
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
