"""Looks whether servers are well, because somebody wants to know.

A check is a call like any other: the contract's health check, or the cheapest request that there is.
This module must never open a breaker: who waits for a server that is not there yet would keep it away for
longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.client.nursery import nursery_of_our_own
from trio_ipc.contract import Contract
from trio_ipc.errors import CircuitOpenError, ContractError, IpcError, MessageError, NoEndpointError

from .calls import PendingCall, backoff
from .capabilities import Caller, is_health_check
from .connection import Connection
from .endpoints import Upstream
from .failures import failure, is_failure, not_healthy
from .settings import ResilientConfig

#: The longest wait between two checks of a server that is waited for, in seconds; also how soon one is
#: checked whose endpoint was added meanwhile. A wait that is longer would be noticed, and a check that finds
#: nobody costs less than a call.
_LONGEST_PAUSE: Final = 1.0


@attrs.frozen(kw_only=True)
class EndpointHealth:
    """What came of a look at one server.

    Attributes:
        endpoint_id: whose.
        healthy: where the contract has a health check, whether the server says that it is well; where
            it has a probe or a negotiation alone, whether it has answered; where there is nothing to ask,
            whether it could be connected to.
        error: why it is not, None if it is, or says so itself. A :exc:`~trio_ipc.PoolTimeoutError` says that
            all connections were in use, and nothing about the server.
        duration: seconds that it took.
    """

    endpoint_id: str
    healthy: bool
    error: IpcError | None
    duration: float


class HealthChecker:
    """Looks after the servers of one client.

    Args:
        contract: what they can be asked.
        settings: the first wait between two checks.
        call: makes a call.
        closed: set when the client is closed.
    """

    def __init__(
        self, contract: Contract[Any, Any], settings: ResilientConfig, *, call: Caller, closed: trio.Event
    ) -> None:
        self._contract = contract
        self._settings = settings
        self._call = call
        self._closed = closed

    @enable_ki_protection
    async def check(self, upstream: Upstream, seconds: float) -> EndpointHealth:
        """Look at one server.

        Args:
            upstream: whom.
            seconds: how long that may take.

        Raises:
            ContractError: the contract's functions returned what they must not, or its ``says_well`` raised
                something.
            NoEndpointError: the endpoint was removed.
            ChannelClosedError: the client was closed.

        Cancellation closes the connection that waits for the response, unless others share it.
        """
        began = trio.current_time()
        healthy = False
        error: IpcError | None = None
        request, is_done, says_well = self._question(upstream)
        await trio.lowlevel.checkpoint()
        try:
            now = trio.current_time()
            response = await self._call(
                PendingCall(
                    request,
                    began=now,
                    seconds=max(0.0, began + seconds - now),
                    repeatable=True,
                    only=upstream,
                    is_task=False,
                    counts=False,
                    is_done=is_done,
                )
            )
            healthy = response is None or says_well(response)
            if not healthy:
                upstream.failed()
        except (ContractError, NoEndpointError):
            raise
        except MessageError:
            healthy = True  # frames are too small to ask, so that the connection must do
        except IpcError as exc:
            if self._closed.is_set():
                raise
            error = exc
        return EndpointHealth(
            endpoint_id=upstream.endpoint.id,
            healthy=healthy,
            error=error,
            duration=trio.current_time() - began,
        )

    def _question(
        self, upstream: Upstream
    ) -> tuple[Any, Callable[[Connection], bool], Callable[[Any], bool]]:
        """Return what to ask, whether a connection need not be asked, and what a response means.

        The contract's health check comes first: that a server answers a probe does not say that it is
        well. That a connection was just answered on does not say it either, unless its negotiation was the
        health check.
        """
        contract = self._contract
        just_answered = partial(_was_made_since, upstream.connections_made)
        if is_health_check(contract):
            negotiation = _Negotiation(contract, upstream)
            return contract.health_request(), negotiation.is_answered, negotiation.says_well
        if contract.health is not None:
            return contract.health_request(), _never, contract.says_well
        if contract.has_probe:
            return contract.probe_request(), just_answered, _always
        if contract.negotiation is not None:
            return contract.capabilities_request(), just_answered, _always
        return None, _always, _always

    @enable_ki_protection
    async def wait_until_healthy(self, upstreams: Callable[[], Iterable[Upstream]], seconds: float) -> str:
        """Check all servers again and again until one is well, and return the id of its endpoint.

        Args:
            upstreams: tells which there are now.
            seconds: how long to wait.

        Raises:
            CallTimeoutError: none was well in time.
            NoEndpointError: there is no endpoint.
            ChannelClosedError: the client was closed.
            ContractError: the contract's functions returned what they must not, or its ``says_well`` raised
                something. What others raise comes out as it is.

        Cancellation ends all checks.
        """
        if not [*upstreams()]:
            await trio.lowlevel.checkpoint()
            raise failure([])
        waiting = _Waiting(self, trio.current_time() + seconds)
        with trio.CancelScope(deadline=waiting.deadline):
            await waiting.run(upstreams)
        if waiting.defect is not None:
            raise waiting.defect
        if waiting.found is None:
            raise not_healthy(seconds, [*waiting.errors.values()])
        return waiting.found

    @enable_ki_protection
    async def pause(self, error: IpcError | None, checks: int) -> None:
        """Wait between two checks, or until the client is closed."""
        seconds = min(_LONGEST_PAUSE, backoff(checks, self._settings, 0.0))
        if isinstance(error, CircuitOpenError):
            seconds = error.retry_after
        with trio.move_on_after(seconds):
            await self._closed.wait()


class _Negotiation:
    """A health check that is a negotiation as well, which may cost the server a lot: none is wasted."""

    def __init__(self, contract: Contract[Any, Any], upstream: Upstream) -> None:
        self._contract = contract
        self._upstream = upstream
        self._connections_made = upstream.connections_made
        self._number = 0
        self._process: int | None = None

    def is_answered(self, connection: Connection) -> bool:
        """Return whether the connection began with one that said well; if not, the server is asked now."""
        if connection.said_well and _was_made_since(self._connections_made, connection):
            return True
        self._number = self._upstream.next_question()
        self._process = connection.process
        return False

    def says_well(self, response: Any) -> bool:
        """Note what the server says that it can do, and return whether it says that it is well."""
        capabilities = self._contract.capabilities_in(response)
        self._upstream.learned(capabilities, question=self._number, process=self._process)
        return self._contract.says_well(response)


class _Waiting:
    """One wait for a server that is well.

    Attributes:
        deadline: of all of it.
        found: the id of the endpoint that is, None while there is none.
        errors: by what each was not, when it was checked last.
        defect: what ended the wait otherwise.
    """

    def __init__(self, checker: HealthChecker, deadline: float) -> None:
        self._checker = checker
        self._over = trio.Event()
        self.deadline = deadline
        self.found: str | None = None
        self.errors: dict[str, IpcError] = {}
        self.defect: BaseException | None = None

    @enable_ki_protection
    async def run(self, upstreams: Callable[[], Iterable[Upstream]]) -> None:
        watched: set[Upstream] = set()
        async with nursery_of_our_own() as nursery:
            while not self._over.is_set():
                for upstream in upstreams():
                    if upstream not in watched:
                        watched.add(upstream)
                        nursery.start_soon(self._watch, upstream)
                with trio.move_on_after(_LONGEST_PAUSE):
                    await self._over.wait()

    @enable_ki_protection
    async def _watch(self, upstream: Upstream) -> None:
        checks = 0
        try:
            while not upstream.removed:
                result = await self._checker.check(upstream, self.deadline - trio.current_time())
                if result.healthy:
                    self.found = result.endpoint_id
                    self._over.set()
                    return
                self.errors.pop(result.endpoint_id, None)
                if result.error is not None:
                    self.errors[result.endpoint_id] = result.error
                checks += 1
                await self._checker.pause(result.error, checks)
        except NoEndpointError:
            pass  # it was removed
        except BaseException as exc:  # raised there, and not in a group
            if not is_failure(exc):
                raise
            self.defect = exc
            self._over.set()
        self.errors.pop(upstream.endpoint.id, None)


def _always(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False


def _was_made_since(made: int, connection: Connection) -> bool:
    """Return whether a connection was made after so many, and so has just been answered on."""
    return connection.has_answered and connection.number > made
