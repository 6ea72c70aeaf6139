"""The agent as a program: ask, show, and go on asking.

Any of the collectors may answer, and each look says which one did. The first failure ends the program with
one line and status 1; once it has seen a collector, a failed cycle is reported and the next one tries again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from trio_ipc import (
    Endpoint,
    IpcError,
    ResilientClient,
    ResilientConfig,
    Strategy,
    counters_line,
    open_resilient_client,
    run_program,
    standard_output,
    until_stopped,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from ..common import add_endpoint_options, complain, load_configs
from .changes import Snapshot, compare, snapshot
from .display import Display, JsonDisplay, TableDisplay
from .paging import CollectorError, Enumeration, Question, enumerate_processes

PROGRAM = "agent"


class Agent:
    """Watches the processes of this machine, through whichever collector answers.

    Args:
        endpoints: where the collectors listen.
        settings: how they are called.
        question: which processes to watch.
        display: where to show them.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], settings: ResilientConfig, question: Question, display: Display
    ) -> None:
        self._endpoints = endpoints
        self._settings = settings
        self._question = question
        self._display = display
        self._totals: dict[str, Any] = {}

    async def watch(self, interval: float | None) -> int:
        """Show all processes, then what changes, until cancelled; return the exit status.

        Args:
            interval: seconds from one cycle to the next, None for only one.
        """
        async with open_resilient_client(DETECTION, self._endpoints, self._settings) as client:
            try:
                return await self._watch(client, interval)
            finally:
                self._totals = telemetry(client)

    async def _watch(
        self, client: ResilientClient[DetectionTask, DetectionResult], interval: float | None
    ) -> int:
        cycle, known, due = 1, None, trio.current_time()
        while True:
            try:
                known = self._show(cycle, known, await self._ask(client))
            except (IpcError, CollectorError) as exc:
                complain(PROGRAM, exc)
                if known is None:
                    return 1
            if interval is None:
                return 0
            cycle += 1
            due = max(due + interval, trio.current_time())
            await trio.sleep_until(due)

    def report(self) -> None:
        """Show what all of it took."""
        if self._totals:
            with standard_output():
                self._display.note(f"asked: {counters_line(self._totals)}")

    async def _ask(self, client: ResilientClient[DetectionTask, DetectionResult]) -> Enumeration:
        answered_by: list[str] = []

        async def ask(task: DetectionTask) -> DetectionResult:
            answer = await client.ask(task)
            answered_by.append(answer.endpoint_id)
            return answer.response

        seen = await enumerate_processes(ask, self._question)
        return attrs.evolve(seen, collectors=list(dict.fromkeys(answered_by)), telemetry=telemetry(client))

    def _show(self, cycle: int, known: Snapshot | None, seen: Enumeration) -> Snapshot:
        if seen.unwanted:
            complain(
                PROGRAM,
                f"{', '.join(seen.collectors)} ignores filters: {seen.unwanted} processes that were not "
                "asked for were left out",
            )
        current = snapshot(seen.records, seen.skipped, known)
        with standard_output():
            if known is None:
                self._display.processes(cycle, seen)
            else:
                self._display.changes(
                    cycle, compare(known, current), seen.skipped, seen.collectors, seen.telemetry
                )
        return current


def telemetry(client: ResilientClient[DetectionTask, DetectionResult]) -> dict[str, Any]:
    """Return what the client has done so far: by which transport, how many calls, how long they took."""
    metrics = client.metrics()
    return attrs.asdict(metrics) | {"average_task_duration_ms": metrics.average_task_duration_ms}


async def run(agent: Agent, interval: float | None) -> int:
    """Watch until a signal says stop; return the exit status."""
    async with until_stopped():
        return await agent.watch(interval)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    return run_program(lambda: _main(arguments), name=PROGRAM)


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    # What the library only warns of is an error here, and the agent says it in its own line.
    logging.basicConfig(level=logging.ERROR, format=f"{PROGRAM}: %(levelname)s %(name)s: %(message)s")
    # A setting with a typing mistake in its name is something else: nothing fails of it.
    logging.getLogger("trio_ipc.settings").setLevel(logging.WARNING)
    question = Question(options.name, options.pid, "sha256" if options.hash else "")
    display: Display = (
        JsonDisplay() if options.json else TableDisplay(limit=options.limit, with_hashes=options.hash)
    )
    endpoints = [Endpoint(config) for config in load_configs(options)]
    agent = Agent(endpoints, settings(options.strategy, options.config), question, display)
    status = trio.run(run, agent, None if options.once else options.interval)
    if status == 0:
        agent.report()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="Show the processes that a collector sees."
    )
    add_endpoint_options(parser, several=True)
    parser.add_argument(
        "--strategy",
        choices=[str(strategy) for strategy in Strategy],
        help="which collector to ask, where there are several; wins over file and environment "
        f"(default: {Strategy.ROUND_ROBIN})",
    )
    parser.add_argument("--once", action="store_true", help="show them once and end")
    parser.add_argument(
        "--interval", type=seconds, default=5.0, metavar="S", help="seconds between two looks (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document to a line for each look")
    parser.add_argument("--hash", action="store_true", help="ask for the executables' sha256")
    parser.add_argument(
        "--name",
        nargs="+",
        action="extend",
        default=[],
        type=process_name,
        help="only processes of these names",
    )
    parser.add_argument(
        "--pid", nargs="+", action="extend", default=[], type=process_id, help="only processes of these pids"
    )
    parser.add_argument("--limit", type=row_count, metavar="ROWS", help="show no more rows than this")
    return parser


def settings(strategy: str | None, file: str | None = None) -> ResilientConfig:
    """Return how collectors are called, by a strategy that was asked for; else as file and environment say.

    A person watches, who would rather hear of a failure than wait.
    """
    asked: dict[str, Any] = {} if strategy is None else {"strategy": strategy}
    impatient = {"connect_attempts": 3, "breaker_reset_ms": 1_000}
    return ResilientConfig.load(file, defaults=impatient, **asked)


def seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")


def process_name(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not UTF-8, and no name can be asked for else"
        ) from None
    return text


def process_id(text: str) -> int:
    with contextlib.suppress(ValueError):
        pid = int(text)
        if 0 <= pid < 2**32:
            return pid
    raise argparse.ArgumentTypeError(f"{text} is no process id: they go from 0 to {2**32 - 1}")


def row_count(text: str) -> int:
    with contextlib.suppress(ValueError):
        rows = int(text)
        if rows >= 1:
            return rows
    raise argparse.ArgumentTypeError(f"{text} is no number of rows: 1 or more")


if __name__ == "__main__":
    sys.exit(main())
