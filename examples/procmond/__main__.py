"""The collector as a program: listen, answer until told to stop, leave nothing behind.

It prints `listening on PATH` once clients can connect, and at the end what it did. SIGUSR1 makes it tell
that while it runs. A failure is one line
on standard error and exit status 1; that nobody reads what it prints is none.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import AsyncIterator, Sequence

import trio

from examples.common import (
    add_endpoint_options,
    complain,
    counters_line,
    discard,
    load_config,
    run_program,
    stop_signals,
    writing,
)
from trio_ipc import IpcConfig, Server, serve
from trio_ipc.daemoneye import DetectionResult, DetectionTask

from .collector import Collector
from .telemetry import Report, snapshot_signals

PROGRAM = "procmond"


async def run(config: IpcConfig, report: Report) -> None:
    """Serve until a signal asks to stop.

    Raises:
        OSError: the report cannot be saved at the end.
        ExceptionGroup: of an IpcError: the endpoint cannot be served, or not any longer. Or of an
            OutputError: the announcement cannot be written.
    """
    # The signals are caught before there is anything to clean up, and until there is nothing left.
    with stop_signals() as signals, snapshot_signals() as wishes:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as serving:
                server = await serving.start(serve, Collector().handle, config)
                watching.start_soon(stop_on_signals, signals, server, serving.cancel_scope)
                watching.start_soon(report_on_signals, wishes, server, report)
                announce(server.endpoint)
            watching.cancel_scope.cancel()
        await report.save(server.snapshot())
    whole = server.snapshot().as_dict()
    del whole["by_transport"]
    complain(PROGRAM, f"served: {counters_line(whole)}")


def announce(endpoint: str) -> None:
    """Say where clients can connect. Whoever started the collector need not read it."""
    try:
        if sys.stdout is not None:
            with writing():
                print(f"listening on {endpoint}", flush=True)
    except BrokenPipeError:
        discard(sys.stdout)


async def stop_on_signals(
    signals: AsyncIterator[int], server: Server[DetectionTask, DetectionResult], scope: trio.CancelScope
) -> None:
    """At the first signal let requests in flight finish, at the second cancel them."""
    await anext(signals)
    server.stop()
    await anext(signals)
    scope.cancel()


async def report_on_signals(
    signals: AsyncIterator[object], server: Server[DetectionTask, DetectionResult], report: Report
) -> None:
    """Show what the server has done so far, at each signal."""
    async for _ in signals:
        await report.show(server.snapshot())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    return run_program(PROGRAM, lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{PROGRAM}", description="Answer process tasks about this machine."
    )
    add_endpoint_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log every task to standard error")
    parser.add_argument(
        "--telemetry",
        metavar="FILE",
        help="write what was done to this file, as JSON, at SIGUSR1 and at the end "
        "(without it, SIGUSR1 gives a line on standard error)",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format=f"{PROGRAM}: %(levelname)s %(name)s: %(message)s",
    )
    trio.run(run, load_config(options), Report(PROGRAM, options.telemetry))
    return 0


if __name__ == "__main__":
    sys.exit(main())
