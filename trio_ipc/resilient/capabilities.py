"""Keeps what is known of a server's capabilities fresh, over connections that are there.

Nothing is connected for this alone: where there is no connection, the next one will ask. This module must
never end the client, whatever a server or the contract's functions do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import trio

from trio_ipc.contract import Contract
from trio_ipc.errors import ContractError, IpcError
from trio_ipc.logs import Log

from .calls import PendingCall
from .endpoints import Upstream
from .settings import ResilientConfig

_log = Log(__name__)

_BROKEN: Final = "the contract's negotiation failed"

#: Makes a call, and returns its response.
Caller: TypeAlias = Callable[[PendingCall], Awaitable[Any]]


class Refresher:
    """Asks servers again what they can do.

    Args:
        contract: how they are asked.
        settings: how often, and how long an answer may take.
        call: makes a call.
        has_connection: says whether there is a connection to ask by.
    """

    def __init__(
        self,
        contract: Contract[Any, Any],
        settings: ResilientConfig,
        *,
        call: Caller,
        has_connection: Callable[[Upstream], bool],
    ) -> None:
        self._contract = contract
        self._believed = settings.capabilities_refresh_ms / 1000
        self._timeout = settings.call_timeout_ms / 1000
        self._call = call
        self._has_connection = has_connection

    @trio.lowlevel.enable_ki_protection
    async def run(self, upstream: Upstream) -> None:
        """Ask a server every so often, until its keeper is cancelled."""
        with upstream.keeper:
            await upstream.capabilities_learnt.wait()
            due = trio.current_time() + self._believed
            while True:
                await trio.sleep_until(due)
                due = (upstream.capabilities_at or 0.0) + self._believed
                if due > trio.current_time():
                    continue  # a new connection has asked meanwhile
                if self._has_connection(upstream):
                    await self._ask(upstream)
                    due = trio.current_time() + self._believed
                else:
                    upstream.capabilities_learnt = trio.Event()
                    await upstream.capabilities_learnt.wait()

    async def _ask(self, upstream: Upstream) -> None:
        fields = {"endpoint": upstream.path}
        try:
            request = self._contract.capabilities_request()
            response = await self._call(
                PendingCall(request, seconds=self._timeout, repeatable=False, only=upstream)
            )
            upstream.learned(self._contract.capabilities_in(response))
        except ContractError:
            _log.exception(_BROKEN, extra=fields)
        except IpcError as exc:
            # What it says about the server is noted; the next connection will ask again. Its text may
            # hold what the server sent, and no payload is logged.
            _log.debug("capabilities were not refreshed: %s", type(exc).__name__, extra=fields)
        except Exception:  # noqa: BLE001 - logged
            # The contract's functions are users' code; what they raise must not end the client.
            _log.exception(_BROKEN, extra=fields)
