"""The collector as a program: listen, answer until told to stop, leave nothing behind.

It prints `listening on PATH` once clients can connect, and at the end what it did. SIGUSR1 makes it tell
that while it runs. A failure is one line on standard error and exit status 1; that nobody reads what it
prints is none. At SIGHUP it reads its settings again, and switches its transport if that has changed
(docs/rollback.md); a failure is one line, and no end.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import attrs
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
from trio_ipc import IpcConfig, IpcError, Server, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.errors import writable

from .collector import Collector
from .telemetry import Report, snapshot_signals

PROGRAM = "procmond"


async def run(load: Callable[[], IpcConfig], report: Report) -> None:
    """Serve until a signal asks to stop.

    Args:
        load: reads the settings; it is called again at each SIGHUP.

    Raises:
        ConfigError: a setting is wrong, at the start.
        OSError: the report cannot be saved at the end.
        ExceptionGroup: of an IpcError: the endpoint cannot be served, or not any longer. Or of an
            OutputError: the announcement cannot be written.
    """
    config = load()
    # The signals are caught before there is anything to clean up, and until there is nothing left.
    with stop_signals() as signals, hangups() as hung_up, snapshot_signals() as wishes:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as serving:
                server = await serving.start(serve, Collector().handle, DETECTION, config)
                watching.start_soon(stop_on_signals, signals, server, serving.cancel_scope)
                watching.start_soon(report_on_signals, wishes, server, report)
                if hung_up is not None:
                    watching.start_soon(reload_on_hangup, hung_up, server, config, load)
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
                print(f"listening on {writable(endpoint)}", flush=True)
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


@contextlib.contextmanager
def hangups() -> Iterator[AsyncIterator[int] | None]:
    """Receive SIGHUP, the usual way to ask a service to read its settings again. Windows has none."""
    if sys.platform == "win32":
        yield None
    else:
        # What trio puts back when its receiver is closed: one that comes late must not kill the program.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            yield signals


async def reload_on_hangup(
    signals: AsyncIterator[int],
    server: Server[DetectionTask, DetectionResult],
    config: IpcConfig,
    load: Callable[[], IpcConfig],
) -> None:
    """At each signal do what the settings now say, as far as a running server can. Says what it did."""
    async for _ in signals:
        try:
            config = await reload(server, config, load())
        except IpcError as exc:
            complain(PROGRAM, f"not reloaded: {exc}")


async def reload(
    server: Server[DetectionTask, DetectionResult], config: IpcConfig, wanted: IpcConfig
) -> IpcConfig:
    """Switch the transport if it is to be another one; return the settings in force.

    Raises:
        EndpointError: the switch failed, and nothing changed.
    """
    changed = [
        field.name
        for field in attrs.fields(IpcConfig)
        if getattr(wanted, field.name) != getattr(config, field.name)
    ]
    if "transport" in changed:
        await server.switch_transport(wanted.transport)
        complain(PROGRAM, f"reloaded: the transport was {config.transport}, is now {wanted.transport}")
        config = config.replace(transport=wanted.transport)
    else:
        complain(PROGRAM, f"reloaded: the transport stays {config.transport}")
    others = [name for name in changed if name != "transport"]
    if others:
        complain(PROGRAM, f"these changes need a restart: {', '.join(others)}")
    return config


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
    trio.run(run, lambda: load_config(options), Report(PROGRAM, options.telemetry))
    return 0


if __name__ == "__main__":
    sys.exit(main())
