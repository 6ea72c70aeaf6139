"""The server: one nursery, one capacity limiter, one task for each connection.

It owns the listener and every connection, so that nothing of it outlives :func:`serve`. What happens on
a connection is conversation.py's; this module decides who gets one, and how all of it ends. It must
never start a task outside its own nursery.
"""

from __future__ import annotations

import errno
import itertools
import logging
import math
from typing import TYPE_CHECKING, Any, Final, Generic, overload

import trio

from .channel import Channel, close_at_once
from .config import IpcConfig, TransportType, choice
from .contract import Contract, RequestT, ResponseT
from .conversation import Conversation, Handler
from .errors import EndpointError
from .selection import EndpointListener, open_channel_listener
from .telemetry import CloseReason, Refusal, ServerCounters, ServerSnapshot, ServerTelemetry, TimeoutKind
from .transports import EndpointState, PeerPolicy

if TYPE_CHECKING:
    from .daemoneye import DetectionResult, DetectionTask

_logger = logging.getLogger(__name__)

#: accept(2) gives these when the system is short of something, or a security module forbids it. Either may
#: pass without our doing. The client is still there, so that to try again at once would be to spin.
_MAY_PASS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM}
)

#: Seconds until accept() is tried again after one of them, as in :func:`trio.serve_listeners`.
_ACCEPT_PAUSE: Final = 0.1

#: Seconds between two looks at the socket file. A look takes two system calls.
_LOOK_EVERY: Final = 5.0

#: Refused connections that get a line each in a second's log. A process that connects in a loop is refused
#: thousands of times a second, and would fill the disk by it.
_REFUSALS_LOGGED: Final = 10


class Server(Generic[RequestT, ResponseT]):
    """A running server, as :func:`serve` reports it through ``task_status``.

    Attributes:
        endpoint: where it listens.
    """

    def __init__(
        self,
        handler: Handler[RequestT, ResponseT],
        listener: trio.abc.Listener[Channel],
        *,
        config: IpcConfig,
        contract: Contract[RequestT, ResponseT],
        peers: PeerPolicy,
    ) -> None:
        self.endpoint = config.endpoint_path
        self._handler = handler
        self._listener = listener
        self._config = config
        self._contract = contract
        self._peers = peers
        self._telemetry = ServerTelemetry(
            transport=str(config.transport), endpoint=self.endpoint, contract=contract.name
        )
        self._numbers = itertools.count(1)
        self._refusals = _RefusalLog(self.endpoint)
        self._limiter = trio.CapacityLimiter(config.max_connections)
        self._accepting = trio.CancelScope()
        self._watching = trio.CancelScope()
        self._stopping = False
        self._queue: set[trio.CancelScope] = set()
        self._conversations: set[Conversation[RequestT, ResponseT]] = set()
        self._stopped = trio.Event()

    def snapshot(self) -> ServerSnapshot:
        """Return what the server has done so far. Any thread may ask, during the run and after it.

        In Trio's thread the numbers belong to one moment; another one may see a step half done.
        """
        return self._telemetry.snapshot()

    def stop(self) -> None:
        """Ask for a graceful stop; :func:`serve` then returns. Does not wait. Idempotent.

        The endpoint is removed at once and idle connections are closed. Requests that have begun to
        arrive are answered within ``shutdown_grace_ms``; what is left then is cancelled.
        """
        self._accepting.cancel()

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

        After a cancellation it has happened or not; ``snapshot().transport`` tells.
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
            _logger.info(
                "switched from the %s to the %s transport",
                before,
                listener.transport,
                extra={"endpoint": self.endpoint, "transport": str(listener.transport)},
            )

    async def _run(self, task_status: trio.TaskStatus[Server[RequestT, ResponseT]]) -> None:
        try:
            await self._listen_and_serve(task_status)
        except BaseExceptionGroup as group:
            # Ctrl-C is what a caller of serve() means by KeyboardInterrupt; the nurseries are ours.
            if group.split(KeyboardInterrupt)[1] is None:
                raise KeyboardInterrupt from None
            raise

    async def _listen_and_serve(self, task_status: trio.TaskStatus[Server[RequestT, ResponseT]]) -> None:
        failure: EndpointError | None = None
        try:
            with trio.CancelScope() as grace:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._refusals.run)
                    if isinstance(self._listener, EndpointListener):
                        nursery.start_soon(self._watch_endpoint, self._listener, self._listener.look())
                    task_status.started(self)
                    _logger.info(
                        "listening at %s",
                        self.endpoint,
                        extra={
                            "endpoint": self.endpoint,
                            "transport": self._telemetry.active.transport,
                        },
                    )
                    failure = await self._accept_until_stopped(nursery)
                    self._stopping = True
                    self._watching.cancel()
                    await self._listener.aclose()
                    for place in self._queue:
                        place.cancel()
                    for conversation in self._conversations:
                        conversation.finish()
                    self._refusals.stop()
                    # Leaving the nursery waits for the requests in flight.
                    grace.deadline = trio.current_time() + self._config.shutdown_grace_ms / 1000
            cut_off = self.snapshot().requests_failed["cut_off"]
            if cut_off:
                _logger.warning(
                    "%d requests were cut off, the limit shutdown_grace_ms is %d",
                    cut_off,
                    self._config.shutdown_grace_ms,
                    extra={"endpoint": self.endpoint},
                )
        finally:
            self._refusals.say_rest()
            self._telemetry.end()
            await close_at_once(self._listener)
            self._stopped.set()
        if failure is not None:
            raise failure

    async def _watch_endpoint(self, listener: EndpointListener, at_first: EndpointState | None) -> None:
        """Tell whoever reads the log or the snapshots when somebody has taken the endpoint away."""
        told = ""
        with self._watching:
            while at_first is not None:
                await trio.sleep(_LOOK_EVERY)
                changes = _changes_since(at_first, listener.look())
                self._telemetry.endpoint_intact = not changes
                if changes != told:
                    self._tell_changes(changes)
                told = changes

    def _tell_changes(self, changes: str) -> None:
        fields = {"endpoint": self.endpoint}
        if changes:
            advice = "see who did that; if clients cannot connect, start the server again"
            _logger.warning(
                "%s is not as this server made it: %s; %s", self.endpoint, changes, advice, extra=fields
            )
        else:
            _logger.info("%s is as this server made it again", self.endpoint, extra=fields)

    async def _accept_until_stopped(self, nursery: trio.Nursery) -> EndpointError | None:
        with self._accepting:
            while True:
                try:
                    # Not kept in a variable: it would hold the last connection after its end.
                    nursery.start_soon(self._serve_connection, await self._listener.accept())
                except OSError as exc:
                    if exc.errno not in _MAY_PASS:
                        return self._listener_failed(exc)
                    _logger.error(
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

    async def _serve_connection(self, channel: Channel) -> None:
        # By the channel, not by what is active now: it may have been accepted just before a switch.
        counters = self._telemetry.counters_of(channel.transport)
        counters.connections_accepted += 1
        number = next(self._numbers)
        fields = {
            "endpoint": self.endpoint,
            "connection": number,
            "peer": str(channel.peer),
            "transport": counters.transport,
        }
        try:
            if not self._peers.allows(channel.peer):
                counters.connections_refused[Refusal.CREDENTIALS] += 1
                why = f"{channel.peer} is not allowed, allowed is {self._peers}"
                self._refusals.log(why, {**fields, "reason": Refusal.CREDENTIALS.value})
                return
            if not await self._take_place(channel, counters, fields):
                return
            try:
                await self._converse(channel, number, counters, fields)
            finally:
                self._limiter.release()
        except Exception as exc:  # noqa: BLE001 - logged
            self._log_defect(number, exc, fields)
        except BaseExceptionGroup as group:
            # It came together with a cancellation or the like, which goes on.
            defects, rest = group.split(Exception)
            if defects is not None:
                self._log_defect(number, defects, fields)
            assert rest is not None  # noqa: S101 - else it were an Exception
            raise rest from None
        finally:
            await close_at_once(channel)

    @staticmethod
    def _log_defect(number: int, exc: BaseException, fields: dict[str, object]) -> None:
        # A defect of ours must cost one connection, not the server. The traceback is in the log.
        fields = {**fields, "reason": CloseReason.INTERNAL_ERROR.value}
        _logger.error("connection %d closed by an internal error", number, exc_info=exc, extra=fields)

    async def _take_place(
        self, channel: Channel, counters: ServerCounters, fields: dict[str, object]
    ) -> bool:
        """Get one of the ``max_connections`` places; False if there was none to be had."""
        try:
            self._limiter.acquire_nowait()
            return True
        except trio.WouldBlock:
            pass
        if len(self._queue) < self._config.max_connections:
            left = True
            patience = trio.CancelScope(deadline=trio.current_time() + self._config.accept_timeout_ms / 1000)
            counters.connections_waiting += 1
            try:
                with patience:
                    if await self._wait_in_queue(channel, patience):
                        left = False
                        return True
                left = not patience.cancelled_caught or self._stopping
            finally:
                counters.connections_waiting -= 1
                counters.connections_left += left
            if left:
                _logger.info("connection %d left before it had a place", fields["connection"], extra=fields)
                return False
            counters.timeouts[TimeoutKind.ACCEPT] += 1
        counters.connections_refused[Refusal.LIMIT] += 1
        why = f"the limit max_connections is {self._config.max_connections}"
        self._refusals.log(why, {**fields, "reason": Refusal.LIMIT.value})
        return False

    async def _wait_in_queue(self, channel: Channel, patience: trio.CancelScope) -> bool:
        """Wait for a place; False once the client has left, so that it keeps nobody else out."""
        self._queue.add(patience)
        if self._stopping:
            patience.cancel()  # accepted just before the stop, started just after
        placed = False
        try:
            async with trio.open_nursery() as nursery:

                async def give_up_when_gone() -> None:
                    await channel.wait_peer_gone()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(give_up_when_gone)
                await self._limiter.acquire()
                placed = True
                nursery.cancel_scope.cancel()
        except BaseException:
            if placed:
                self._limiter.release()
            raise
        finally:
            self._queue.discard(patience)
        return placed

    async def _converse(
        self, channel: Channel, number: int, counters: ServerCounters, fields: dict[str, object]
    ) -> None:
        channel.traffic = counters
        conversation = Conversation(
            channel,
            number,
            self._handler,
            config=self._config,
            contract=self._contract,
            counters=counters,
        )
        counters.connections_served += 1
        counters.connections_active += 1
        self._conversations.add(conversation)
        _logger.info("connection %d opened by %s", number, channel.peer, extra=fields)
        if self._stopping:
            conversation.finish()  # accepted just before the stop, started just after
        try:
            await conversation.run()
        finally:
            self._conversations.discard(conversation)
            reason, said = conversation.ending
            counters.connections_active -= 1
            counters.connections_closed[reason] += 1
            if reason is not CloseReason.INTERNAL_ERROR:  # which gets its line with a traceback
                _logger.info(
                    "connection %d closed: %s", number, said, extra={**fields, "reason": reason.value}
                )


class _RefusalLog:
    """One line for each refused connection; of a flood a few lines, and one that says how many more.

    Args:
        endpoint: of the server.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._second_over = -math.inf
        self._lines = 0
        self._unsaid = 0
        self._flooded = trio.Event()
        self._scope = trio.CancelScope()

    def log(self, why: str, fields: dict[str, object]) -> None:
        """Write the line, or count it where there were ``_REFUSALS_LOGGED`` of them within a second."""
        now = trio.current_time()
        if now >= self._second_over:
            self.say_rest()
            self._second_over = now + 1
            self._lines = 0
        if self._lines < _REFUSALS_LOGGED:
            self._lines += 1
            _logger.warning("connection %d refused: %s", fields["connection"], why, extra=fields)
        else:
            self._unsaid += 1
            self._flooded.set()

    async def run(self) -> None:
        """Say how many got no line once their second is over, until stopped."""
        with self._scope:
            while True:
                await self._flooded.wait()
                await trio.sleep_until(self._second_over)
                self.say_rest()

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._scope.cancel()

    def say_rest(self) -> None:
        """Say how many got no line, if any."""
        if self._unsaid:
            fields = {"endpoint": self._endpoint, "refused": self._unsaid}
            _logger.warning("%d more connections were refused", self._unsaid, extra=fields)
            self._unsaid = 0
            self._flooded = trio.Event()


def _changes_since(at_first: EndpointState, now: EndpointState | None) -> str:
    return "" if now is None else at_first.changes(now)


@overload
async def serve(
    handler: Handler[DetectionTask, DetectionResult],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    task_status: trio.TaskStatus[Server[DetectionTask, DetectionResult]] = trio.TASK_STATUS_IGNORED,
) -> None: ...


@overload
async def serve(
    handler: Handler[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
    task_status: trio.TaskStatus[Server[RequestT, ResponseT]] = trio.TASK_STATUS_IGNORED,
) -> None: ...


async def serve(
    handler: Handler[Any, Any],
    config: IpcConfig | None = None,
    *,
    contract: Contract[Any, Any] | None = None,
    peers: PeerPolicy | None = None,
    task_status: trio.TaskStatus[Server[Any, Any]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen at the configured endpoint and answer every request by the handler.

    Runs until it is cancelled, or until :meth:`Server.stop` is called and its grace is over. Use
    ``await nursery.start(serve, handler, config)`` to go on once it listens; that returns the
    :class:`Server`.

    Args:
        handler: ``async def handler(request, call) -> response``. It runs once at a time for each
            connection, in that connection's task, and is cancelled at ``call.deadline`` or when its
            client leaves. An exception from it becomes one failed response.
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        contract: the message types; None for DaemonEye's.
        peers: which users may connect; by default this process's own and root. On Windows the pipe itself
            admits them and nobody else; a Unix socket is its owner's and root's alone, and a policy can
            only narrow that.
        task_status: reports the running :class:`Server`.

    Raises:
        ConfigError: the environment holds a wrong setting, where ``config`` is None; or on Windows, the
            policy has a user that is no security identifier.
        EndpointError: the endpoint cannot be used, or stopped working.

    Cancellation closes everything at once and removes the endpoint; for a graceful end use
    :meth:`Server.stop`.
    """
    if config is None:
        config = IpcConfig.load()
    if contract is None:
        from .daemoneye import DETECTION  # noqa: PLC0415 - only who speaks it loads its messages

        contract = DETECTION
    peers = PeerPolicy.of(peers)
    listener = await open_channel_listener(config, peers)
    await serve_listener(handler, listener, config, contract=contract, peers=peers, task_status=task_status)


async def serve_listener(
    handler: Handler[RequestT, ResponseT],
    listener: trio.abc.Listener[Channel],
    config: IpcConfig,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
    task_status: trio.TaskStatus[Server[RequestT, ResponseT]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve like :func:`serve`, on a listener of channels that the caller has made.

    For sockets that were opened by somebody else, and for tests in memory. The listener is closed in
    the end.
    """
    server = Server(handler, listener, config=config, contract=contract, peers=PeerPolicy.of(peers))
    await server._run(task_status)  # noqa: SLF001 - the class is public to be used, not to be run
