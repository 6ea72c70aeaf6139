"""The collector as a program: listen, answer until told to stop, leave nothing behind.

It prints `listening on PATH` once clients can connect, and at the end what it did. A failure is one line
on standard error and exit status 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import AsyncIterator, Sequence

import attrs
import trio

from examples.common import STOP_SIGNALS, add_endpoint_options, complain, counters_line, leaves, load_config
from trio_ipc import IpcConfig, IpcError, Server, serve
from trio_ipc.daemoneye import DetectionResult, DetectionTask

from .collector import Collector

PROGRAM = "procmond"


async def run(config: IpcConfig) -> None:
    """Serve until a signal asks to stop.

    Raises:
        ExceptionGroup: of an IpcError: the endpoint cannot be served, or not any longer.
    """
    # The signals are caught before there is anything to clean up, and until there is nothing left.
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as serving:
                server = await serving.start(serve, Collector().handle, config)
                watching.start_soon(stop_on_signals, signals, server, serving.cancel_scope)
                print(f"listening on {server.endpoint}", flush=True)
            watching.cancel_scope.cancel()
    complain(PROGRAM, f"served: {counters_line(attrs.asdict(server.counters()))}")


async def stop_on_signals(
    signals: AsyncIterator[int], server: Server[DetectionTask, DetectionResult], scope: trio.CancelScope
) -> None:
    """At the first signal let requests in flight finish, at the second cancel them."""
    await anext(signals)
    server.stop()
    await anext(signals)
    scope.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{PROGRAM}", description="Answer process tasks about this machine."
    )
    add_endpoint_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log every task to standard error")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format=f"{PROGRAM}: %(levelname)s %(name)s: %(message)s",
    )
    try:
        trio.run(run, load_config(options))
    except* IpcError as group:
        for problem in leaves(group):
            complain(PROGRAM, problem)
        return_code = 1
    except* KeyboardInterrupt:
        return_code = 0  # it came before the signals were caught: nothing was started yet
    else:
        return_code = 0
    return return_code


if __name__ == "__main__":
    sys.exit(main())
