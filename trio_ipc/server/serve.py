"""The server: one nursery, one watchdog, one task for each connection.

It owns the listener and every connection, so that nothing of it outlives :func:`serve`. accept.py decides
which client gets a place, connection.py what happens on a connection; this module decides how a server begins
and ends. It must never start a task outside its own nursery.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import Final, Generic

import trio

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.config import IpcConfig, TransportType, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import EndpointError, shown_argument
from trio_ipc.logs import LimitedLog, Log
from trio_ipc.opening import EndpointListener, check_on_trio, open_channel_listener, take_over_listener
from trio_ipc.settings import choice
from trio_ipc.telemetry import ServerSnapshot, ServerTelemetry
from trio_ipc.transports import PeerPolicy, gives_streams

from .accept import Places
from .handling import Handler, check_handler, ends_the_server
from .monitor import Monitor
from .shared import Shared
from .watchdog import Watchdog

_log = Log(__name__)

#: accept(2) gives these when the system is short of something, or a security module forbids it. Either may
#: pass without our doing. The client is still there, so that to try again at once would be to spin.
_MAY_PASS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM}
)

#: What a socket that another process has opened may have for a mode (ADR-0004; docs/security.md).
_OWNER_ONLY: Final = 0o600
_GROUP_TOO: Final = 0o660
_ANY_MODE: Final = 0o666

#: Seconds until accept() is tried again after one of them, as in :func:`trio.serve_listeners`.
_ACCEPT_PAUSE: Final = 0.1


class Server(Generic[RequestT, ResponseT]):
    """A running server, as :func:`serve` reports it through ``task_status``.

    Attributes:
        endpoint: where it listens.
    """

    def __init__(
        self,
        handler: Handler[RequestT, ResponseT],
        contract: Contract[RequestT, ResponseT],
        listener: trio.abc.Listener[Channel],
        config: IpcConfig,
        peers: PeerPolicy,
    ) -> None:
        self.endpoint: str = config.endpoint_path
        self._handler = handler
        self._contract = contract
        self._listener = listener
        self._config = config
        self._peers = peers
        self._telemetry = ServerTelemetry(
            transport=str(config.transport), endpoint=self.endpoint, contract=contract.name
        )
        self._token = trio.lowlevel.current_trio_token()
        self._accepting = trio.CancelScope()
        self._stopped = trio.Event()

    def snapshot(self) -> ServerSnapshot:
        """Return what the server has done so far. Any thread may ask, during the run and after it.

        In Trio's thread the numbers belong to one moment; another one may see a step half done.
        """
        return self._telemetry.snapshot()

    def stop(self) -> None:
        """Ask for a graceful stop; :func:`serve` then returns. Does not wait. Idempotent.

        Any thread may ask. The endpoint is removed at once and idle connections are closed. Requests that
        have begun to arrive are answered within ``shutdown_grace_ms``; what is left then is cancelled.
        """
        # Also in a task of the run: a signal's handler may ask, which Python calls in the middle of whatever
        # that task is at, such as Trio's own steps.
        with contextlib.suppress(trio.RunFinishedError):  # and so is the server
            self._token.run_sync_soon(self._accepting.cancel, idempotent=True)

    async def wait_stopped(self) -> None:
        """Wait until every connection is closed and the endpoint removed. Can be cancelled freely."""
        await self._stopped.wait()

    async def switch_transport(self, transport: TransportType | str) -> None:
        """Accept new connections by another transport from now on, at the same endpoint.

        Connections in progress finish on the one that they began on, and no client is refused meanwhile.
        The limit of connections holds for both together. Nothing happens if the transport is the active
        one; several calls take turns.

        Args:
            transport: the one to use from now on, or its name.

        Raises:
            ConfigError: there is no such transport.
            EndpointError: it cannot be used, and the old one goes on serving; or this server is stopping,
                or listens on a listener of the caller's own (:func:`serve_listener`).

        A cancellation may come before or after the switch; ``snapshot().transport`` tells which one is used.
        """
        wanted = choice(TransportType, "transport", transport)
        listener = self._listener
        if not isinstance(listener, EndpointListener):
            raise EndpointError(
                "the transport cannot be switched: the listener was made by the caller of serve_listener()",
                endpoint=self.endpoint,
                hint="use serve(), which makes its own",
            )
        before = listener.transport
        try:
            await listener.switch(wanted)
        except trio.ClosedResourceError as exc:
            raise EndpointError(
                f"cannot switch to the {wanted} transport: the server is stopping",
                endpoint=self.endpoint,
                hint="start it again with the transport that you want",
            ) from exc
        except Exception as exc:
            raise EndpointError(
                f"cannot switch to the {wanted} transport: {exc}; the {before} transport goes on serving",
                endpoint=self.endpoint,
                hint="nothing was lost: mend the cause and switch again",
            ) from exc
        finally:
            self._telemetry.switch(str(listener.transport))
        if listener.transport is not before:
            _log.info(
                "switched from the %s to the %s transport",
                before,
                listener.transport,
                extra={"endpoint": self.endpoint, "transport": str(listener.transport)},
            )

    async def _run(self, task_status: trio.TaskStatus[Server[RequestT, ResponseT]]) -> None:
        try:
            await self._listen_and_serve(task_status)
        except BaseExceptionGroup as group:
            # What ends a program comes out of serve() plain: the nurseries are ours.
            fatal = ends_the_server(group)
            if fatal is not None:
                raise fatal from fatal.__cause__
            raise

    async def _listen_and_serve(self, task_status: trio.TaskStatus[Server[RequestT, ResponseT]]) -> None:
        failure: EndpointError | None = None
        try:
            with trio.CancelScope() as grace:
                async with trio.open_nursery() as upkeep:
                    async with trio.open_nursery() as nursery:
                        places = self._places(upkeep, nursery)
                        task_status.started(self)
                        _log.info("listening at %s", self.endpoint, extra=self._fields())
                        try:
                            failure = await self._accept_until_stopped(nursery, places)
                            await self._listener.aclose()
                        except BaseException:
                            # Before the wait for the handlers, which may take long where they are in threads:
                            # nobody is accepted any more.
                            await close_at_once(self._listener)
                            raise
                        places.stop()
                        # Leaving the nursery waits for the requests in flight.
                        grace.deadline = trio.current_time() + self._config.shutdown_grace_ms / 1000
                    upkeep.cancel_scope.cancel()
            self._tell_cut_off()
        finally:
            self._telemetry.end()
            await close_at_once(self._listener)
            self._stopped.set()
        if failure is not None:
            raise failure

    def _places(self, upkeep: trio.Nursery, nursery: trio.Nursery) -> Places[RequestT, ResponseT]:
        """Start what goes on for as long as the server does, and return what connections are given to."""
        watchdog = Watchdog()
        failures = LimitedLog(
            _log, logging.ERROR, "more requests failed: %d", counted_as="failed", fields=self._fields()
        )
        shared = Shared(
            handler=self._handler,
            contract=self._contract,
            config=self._config,
            watchdog=watchdog,
            nursery=nursery,
            failures=failures,
        )
        places = Places(shared, self._peers, self._telemetry, self.endpoint)
        upkeep.start_soon(watchdog.run)
        upkeep.start_soon(failures.run)
        upkeep.start_soon(places.refusals.run)
        if isinstance(self._listener, EndpointListener):
            upkeep.start_soon(Monitor(self._listener, self.endpoint, self._telemetry).run)
        return places

    def _fields(self) -> dict[str, object]:
        return {"endpoint": self.endpoint, "transport": self._telemetry.active.transport}

    def _tell_cut_off(self) -> None:
        cut_off = self.snapshot().requests_failed["cut_off"]
        if cut_off:
            _log.warning(
                "requests were cut off: %d, the limit shutdown_grace_ms is %d",
                cut_off,
                self._config.shutdown_grace_ms,
                extra={"endpoint": self.endpoint},
            )

    async def _accept_until_stopped(
        self, nursery: trio.Nursery, places: Places[RequestT, ResponseT]
    ) -> EndpointError | None:
        with self._accepting:
            while True:
                try:
                    # Not kept in a variable: it would hold the last connection after its end.
                    nursery.start_soon(places.serve, await self._listener.accept())
                except OSError as exc:
                    if exc.errno not in _MAY_PASS:
                        return self._listener_failed(exc)
                    _log.error(
                        "cannot accept: %s; trying again in %s s",
                        exc.strerror,
                        _ACCEPT_PAUSE,
                        extra={"endpoint": self.endpoint},
                    )
                    await trio.sleep(_ACCEPT_PAUSE)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                    return self._listener_failed(exc)
        return None

    def _listener_failed(self, exc: Exception) -> EndpointError:
        error = EndpointError(
            f"the listener failed: {exc}",
            endpoint=self.endpoint,
            hint="the server has stopped: start it again",
        )
        error.__cause__ = exc
        return error


def _check_listener(listener: object) -> None:
    if isinstance(listener, trio.abc.Listener) and not gives_streams(listener):
        return
    what = "which gives streams" if gives_streams(listener) else "which is no listener"
    raise TypeError(
        f"listener is {shown_argument(listener)}, {what}: it must give channels, as "
        "FramedChannelListener(listener, config) does"
    )


async def serve(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    fd: int | None = None,
    task_status: trio.TaskStatus[Server[RequestT, ResponseT]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen at the configured endpoint and answer every request by the handler.

    Runs until it is cancelled, or until :meth:`Server.stop` is called and its grace is over. Use
    ``await nursery.start(serve, handler, contract, config)`` to go on once it listens; that returns the
    :class:`Server`.

    Args:
        handler: ``async def handler(request, call) -> response``. It runs once at a time for each
            connection, in that connection's task, and is cancelled at ``call.deadline`` or when its
            client leaves. An exception from it becomes one failed response.
        contract: the message types, and what a failure becomes.
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        peers: which users may connect; by default this process's own and root, and the members of the
            ``socket_group`` where there is one. On Windows the pipe itself admits them and nobody else; a
            Unix socket is its owner's, root's and its group's alone, and a policy can only narrow that.
        fd: the descriptor of a listening Unix socket that another process has opened, such as one of
            :func:`trio_ipc.transports.activated_sockets`, to serve on in place of one of its own. The server
            is at that one's path, whatever the configuration says, and owns the descriptor; the socket file
            stays in the end. It is judged as :func:`trio_ipc.transports.inherited_unix_listener` does: its
            mode may be 0600, with a ``socket_group`` 0660 and of that group; with ``peers``, which then
            decides alone, any.
        task_status: reports the running :class:`Server`.

    Raises:
        TypeError: an argument is of the wrong type, or the handler is not async.
        ConfigError: the environment holds a wrong setting, where ``config`` is None; or on Windows, the
            policy has a user that is no security identifier.
        EndpointError: the endpoint cannot be used, or stopped working; or the descriptor is no socket that
            can be served on, and is the caller's still.

    Cancellation closes everything at once and removes the endpoint; for a graceful end use
    :meth:`Server.stop`.
    """
    check_handler(handler)
    contract_of(contract)
    config = config_of(config)
    most = _ANY_MODE if peers is not None else _OWNER_ONLY if config.socket_group is None else _GROUP_TOO
    peers = PeerPolicy.of(peers, group=config.socket_group)
    check_on_trio()
    if fd is None:
        listener = await open_channel_listener(config, peers)
    else:
        listener = take_over_listener(fd, config, most=most)
        config = config.replace(endpoint_path=listener.endpoint)
    await serve_listener(handler, contract, listener, config, peers=peers, task_status=task_status)


async def serve_listener(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    listener: trio.abc.Listener[Channel],
    config: IpcConfig,
    *,
    peers: PeerPolicy | None = None,
    task_status: trio.TaskStatus[Server[RequestT, ResponseT]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve like :func:`serve`, on a listener of channels that the caller has made.

    For sockets that the program has made in its own way, and for tests in memory. The listener is closed in
    the end.

    Raises:
        TypeError: an argument is of the wrong type, such as a listener of streams: a
            :class:`FramedChannelListener` makes channels of them.
        EndpointError: the listener stopped working.
    """
    check_handler(handler)
    _check_listener(listener)
    contract, config = contract_of(contract), config_of(config)
    peers = PeerPolicy.of(peers, group=config.socket_group)
    check_on_trio()
    server = Server(handler, contract, listener, config, peers)
    await server._run(task_status)  # noqa: SLF001 - the class is public to be used, not to be run
