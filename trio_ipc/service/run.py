"""A whole server program: settings, signals, readiness, telemetry, its last line and its exit status.

Everything that is served is :func:`trio_ipc.serve`'s. This module must never answer a request, and never
leave a task or a signal's handler of its own behind but those that ignore what would hurry the end.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Generic

import attrs
import trio

from trio_ipc import streams
from trio_ipc.config import IpcConfig, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import EndpointError, IpcError, ends_the_program, leaves, shown, shown_argument
from trio_ipc.functions import dismiss, is_ordinary
from trio_ipc.server import Handler, Server, serve
from trio_ipc.server.handling import check_handler, describe
from trio_ipc.telemetry import counters_line
from trio_ipc.transports import PeerPolicy, activated_sockets

from .console import (
    Console,
    checked_level,
    checked_style,
    program_name,
)
from .notify import Manager
from .reports import Reports
from .signals import Signals, caught_signals
from .statuses import ExitStatus, status_of_all


def run_service(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | Callable[[], IpcConfig] | None = None,
    *,
    name: str | None = None,
    peers: PeerPolicy | None = None,
    fd: int | None = None,
    on_reload: Callable[[IpcConfig], object] | None = None,
    log_style: str = "text",
    log_level: int | str = logging.INFO,
    snapshot_file: str | os.PathLike[str] | None = None,
    snapshot_interval: float | None = None,
    metrics_file: str | os.PathLike[str] | None = None,
    metrics_interval: float = 15.0,
) -> ExitStatus:
    """Run a server as a program, until it is asked to stop: ``sys.exit(run_service(handler, CONTRACT))``.

    It says ``listening on ENDPOINT`` on standard output once clients can connect, and all else in one line
    each on standard error. SIGTERM and SIGINT stop it gracefully, the second one at once; SIGHUP has it read
    its settings again; SIGUSR1 has it tell what it has done. On Windows Ctrl-C and Ctrl-Break stop it, and
    there are no others. Where systemd started it, it serves on the socket that was passed, tells when it is
    ready, reloads and stops, and keeps the watchdog.

    To be called once, in the main thread, as the last thing that a program does: from its end on the signals
    that stop a program are ignored, so that nothing hurries what is left to do.

    Args:
        handler: answers requests, as for :func:`serve`.
        contract: the message types, and what a failure becomes.
        config: the settings; or a function that reads them, which is called again at each SIGHUP; None for
            the defaults and the environment. Of a change the transport is taken over (docs/rollback.md), all
            else is named as what takes a restart.
        name: what the program is called in its lines; None for its file's name.
        peers: which users may connect, as for :func:`serve`.
        fd: the descriptor of a socket to serve on, as for :func:`serve`; None for the one that systemd has
            passed, and for one of its own where there is none.
        on_reload: an ordinary function that is called with the settings after each SIGHUP, for what else the
            program can reload. What it raises is a line, and no end.
        log_style: ``"text"`` or ``"json"``, of the log and of all lines on standard error. A program that has
            configured :mod:`logging` keeps its log as it is.
        log_level: from which level on the log is written, by number or name.
        snapshot_file: written at SIGUSR1 and at the end, as JSON, with mode 0600. Without it SIGUSR1 gives a
            line.
        snapshot_interval: seconds from one writing of that to the next, for ``trio-ipc top``; None for those
            two alone.
        metrics_file: written at intervals, in Prometheus' text format, with mode 0644, for node_exporter's
            textfile collector; it must end in ``.prom``, and is removed at the end. Needs the extra
            ``prometheus``.
        metrics_interval: seconds from one writing of that to the next.

    Returns:
        The exit status (:class:`ExitStatus`); what went wrong has been said.

    Raises:
        TypeError: an argument is of the wrong type, which is the program's own mistake.
        RuntimeError: this is not the main thread, or Trio runs in it already.
        SystemExit: the handler raised it.
    """
    check_handler(handler)
    contract_of(contract)
    if peers is not None:
        PeerPolicy.of(peers)
    if on_reload is not None and not is_ordinary(on_reload):
        raise TypeError(f"on_reload is {shown_argument(on_reload)}, must be an ordinary function")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_service() catches signals, and must be called in the main thread")
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("run_service() runs Trio itself: in a program that does, use serve()")
    streams.prepare()
    console = Console(program_name() if name is None else name, "json" if log_style == "json" else "text")
    try:
        return _run(
            _Service(handler, contract, _loader(config), peers, fd, on_reload, console),
            checks=lambda: (checked_style(log_style), checked_level(log_level)),
            reports=functools.partial(
                Reports,
                console,
                snapshot_file=None if snapshot_file is None else os.fspath(snapshot_file),
                snapshot_interval=snapshot_interval,
                metrics_file=None if metrics_file is None else os.fspath(metrics_file),
                metrics_interval=metrics_interval,
            ),
        )
    finally:
        streams.discard_what_is_stuck()


def _run(
    service: _Service[Any, Any], *, checks: Callable[[], tuple[str, int]], reports: Callable[[], Reports]
) -> ExitStatus:
    try:
        _, level = checks()
        service.console.configure_logging(level)
        trio.run(service.run, reports())
    except SystemExit:
        raise
    except BaseException as exc:  # noqa: BLE001 - it is said, and becomes the status
        return _ended_by(exc, service.console)
    return ExitStatus.OK


def _ended_by(exc: BaseException, console: Console) -> ExitStatus:
    problems = leaves(exc)
    for problem in problems:
        if isinstance(problem, SystemExit):
            raise problem
    if any(isinstance(problem, KeyboardInterrupt) for problem in problems):
        return ExitStatus.OK  # it came before the signals were caught: nothing was started yet
    status = status_of_all(problems)
    for problem in problems:
        if status_of_all([problem]) is ExitStatus.DEFECT and not isinstance(problem, IpcError):
            console.say(f"a defect, {describe(problem)}", level=logging.CRITICAL, exc=problem)
        else:
            console.say(str(problem), level=logging.ERROR)
    return status


def _loader(config: object) -> Callable[[], IpcConfig]:
    if callable(config):
        return lambda: _loaded(config)
    if config is None:
        return IpcConfig.load
    given = config_of(config)
    return lambda: given


def _loaded(load: Callable[[], object]) -> IpcConfig:
    given = load()
    if not isinstance(given, IpcConfig):
        dismiss(given)
        raise TypeError(f"the function config returned {shown_argument(given)}, must be an IpcConfig")
    return given


@attrs.define(eq=False)
class _Service(Generic[RequestT, ResponseT]):
    """The program while it runs."""

    handler: Handler[RequestT, ResponseT]
    contract: Contract[RequestT, ResponseT]
    load: Callable[[], IpcConfig]
    peers: PeerPolicy | None
    fd: int | None
    on_reload: Callable[[IpcConfig], object] | None
    console: Console
    stopping: bool = False

    async def run(self, reports: Reports) -> None:
        """Serve until a signal asks to stop."""
        manager = Manager(os.environ)
        # The signals are caught before there is anything to clean up, and until there is nothing left.
        with caught_signals() as signals:
            try:
                config = self.load()
                fd = _activated() if self.fd is None else self.fd
                async with trio.open_nursery() as watching:
                    async with trio.open_nursery() as serving:
                        server = await serving.start(
                            functools.partial(
                                serve, self.handler, self.contract, config, peers=self.peers, fd=fd
                            )
                        )
                        serving.start_soon(self._stop, signals, server, manager, serving)
                        watching.start_soon(self._report, signals, server, reports)
                        watching.start_soon(self._reload_at_signals, signals, server, config, manager)
                        watching.start_soon(reports.keep_snapshot, server)
                        watching.start_soon(reports.keep_metrics, server)
                        watching.start_soon(manager.keep_alive)
                        self.console.announce(server.endpoint)
                        await manager.ready(f"listening on {server.endpoint}")
                        await server.wait_stopped()
                        serving.cancel_scope.cancel()
                    watching.cancel_scope.cancel()
            finally:
                reports.remove_metrics()
            await reports.save(server.snapshot())
        whole = server.snapshot().as_dict()
        del whole["by_transport"]
        self.console.say(f"served: {counters_line(whole)}")

    async def _stop(
        self, signals: Signals, server: Server[Any, Any], manager: Manager, serving: trio.Nursery
    ) -> None:
        """At the first signal let requests in flight finish, at the second cancel them."""
        await anext(signals.stops)
        self.stopping = True
        server.stop()
        # A manager that hangs keeps nobody from the second signal.
        serving.start_soon(manager.stopping, "stopping: requests in flight are answered")
        await anext(signals.stops)
        serving.cancel_scope.cancel()

    async def _report(self, signals: Signals, server: Server[Any, Any], reports: Reports) -> None:
        async for _ in signals.reports:
            await reports.show(server.snapshot())

    async def _reload_at_signals(
        self, signals: Signals, server: Server[Any, Any], config: IpcConfig, manager: Manager
    ) -> None:
        """At each signal do what the settings now say, as far as a running server can. Says what it did."""
        async for _ in signals.reloads:
            if not self.stopping:
                await manager.reloading()
            try:
                await self._reload(server, config)
            except (IpcError, OSError) as exc:
                self.console.say(f"not reloaded: {exc}", level=logging.ERROR)
            except BaseException as exc:  # the program's own functions
                passing = (trio.Cancelled, GeneratorExit)  # also where they come in a group
                if ends_the_program(exc) is not None or any(isinstance(one, passing) for one in leaves(exc)):
                    raise
                self.console.say(f"not reloaded: {describe(exc)}", level=logging.ERROR, exc=exc)
            if not self.stopping:
                await manager.ready(f"listening on {server.endpoint}")

    async def _reload(self, server: Server[Any, Any], config: IpcConfig) -> None:
        """Take over what a running server can.

        Args:
            server: it tells which transport is in force, also after a reload that failed half done.
            config: what it was started with.
        """
        wanted = self.load()
        before = server.snapshot().transport
        if wanted.transport == before:
            self.console.say(f"reloaded: the transport stays {before}")
        else:
            await server.switch_transport(wanted.transport)
            self.console.say(f"reloaded: the transport was {before}, is now {wanted.transport}")
        others = [
            field.name
            for field in attrs.fields(IpcConfig)
            if field.name != "transport" and getattr(wanted, field.name) != getattr(config, field.name)
        ]
        if others:
            self.console.say(f"these changes need a restart: {', '.join(others)}", level=logging.WARNING)
        if self.on_reload is not None:
            self.on_reload(wanted)


def _activated() -> int | None:
    """Return the descriptor of the one socket that a service manager has passed, if it has.

    Raises:
        EndpointError: there are several, and nobody said which.
    """
    passed = activated_sockets()
    if len(passed) > 1:
        names = ", ".join(shown(one.name) for one in passed)
        raise EndpointError(
            f"the service manager passed {len(passed)} sockets ({names}), and this program serves one",
            hint="one ListenStream= in its .socket unit; or choose by activated_sockets() and fd=",
        )
    return passed[0].fd if passed else None
