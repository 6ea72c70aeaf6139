"""Asking a server whether it is well, by whatever its contract has for that.

This module must never know a message.
"""

from __future__ import annotations

import enum

from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.transports import PeerPolicy

from .client import open_client, seconds_of


class Health(enum.StrEnum):
    """What is known of a server that could be reached."""

    WELL = "well"
    """It answered that it is."""
    UNWELL = "unwell"
    """It answered that it is not."""
    LISTENING = "listening"
    """It listens, as a user who is trusted. Its contract has no question for more."""


async def check_health(
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    timeout: float = 5.0,  # noqa: ASYNC109 - as Client.call has it
) -> Health:
    """Ask a server whether it is well, on a connection of its own.

    It takes one of the server's places for that long; a server that has none free is one that raises.

    Args:
        contract: its :attr:`~Contract.health` says how that is asked.
        config: where, and how; as for :func:`open_client`.
        peers: as which users the server may run, likewise.
        timeout: seconds that the response may take, once connected.

    Raises:
        IpcError: nobody could be asked, or nobody answered: in the precise form that fits, as
            :func:`open_client` and :meth:`Client.call` raise it.
        ContractError: the contract's own functions failed, or returned what they must not.
        TypeError, ValueError: an argument is of the wrong type, or the timeout no valid one.

    Cancellation leaves nothing open.
    """
    contract_of(contract)
    if timeout is not None:
        seconds_of(timeout)
    async with open_client(contract, config, peers=peers) as client:
        if contract.health is None:
            return Health.LISTENING
        response = await client.call(contract.health_request(), timeout=timeout)
        return Health.WELL if contract.says_well(response) else Health.UNWELL
