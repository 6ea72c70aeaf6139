"""A client played against any server: which looks there are, in which order, and what each needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import ConnectError
from trio_ipc.testing.checking import check_callable, check_seconds
from trio_ipc.testing.endpoints import IpcEndpoint
from trio_ipc.testing.pair import config_for

from . import attacks, looks
from .asking import Asking, NoResponseError
from .rules import SERVER_RULES, Conformance, Finding, Notes


@attrs.frozen
class _Look:
    """One look at a server.

    Attributes:
        rules: what it shows something of; the first is blamed where the server breaks down by it.
        make: looks.
        after: rules without which nothing can be seen.
        risky: whether a server that breaks rules may break down by it.
    """

    rules: tuple[str, ...]
    make: Callable[[Asking], Awaitable[None]]
    after: tuple[str, ...] = ("S6", "S8")
    risky: bool = False


#: Where it is looked at what a response says.
_READABLE: Final = ("S4", "S5", "S6", "S8")

_LOOKS: Final = (
    _Look(("S6",), looks.once, after=()),
    _Look(("S8",), looks.again, after=("S6",)),
    _Look(("S3",), looks.other_variant, after=("S6",), risky=True),
    _Look(("S7",), looks.order, after=_READABLE),
    _Look(("S9",), looks.pieces, after=_READABLE),
    _Look(("S10",), looks.limit, after=_READABLE),
    _Look(("S11", "S12"), looks.half_close),
    _Look(("S13",), looks.permissions, after=()),
    _Look(("S16", "S22"), attacks.too_large, risky=True),
    _Look(("S17", "S22"), attacks.zero, risky=True),
    _Look(("S18", "S22"), attacks.damage, risky=True),
    _Look(("S19", "S22"), attacks.no_message, risky=True),
    _Look(("S20", "S22"), attacks.cut, risky=True),
    _Look(("S21",), attacks.before, after=_READABLE, risky=True),
    _Look(("S23",), attacks.others, risky=True),
    _Look(("S24",), attacks.places, risky=True),
    _Look(("S14",), looks.idle),
    _Look(("S15",), looks.part),
)


#: What every response shows something of, and is final in the end.
_GOING_ON: Final = {"S1", "S2", "S3", "S4", "S5", "S22"}


async def check_server(
    contract: Contract[RequestT, ResponseT],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    request: Callable[[], RequestT] | None = None,
    hostile: bool = False,
    deadlines: bool = False,
    patience: float = 2.0,
    on_finding: Callable[[Finding], object] | None = None,
    **settings: Any,
) -> Conformance:
    """Play a client against the server at an endpoint, and tell which rules it keeps.

    One connection at a time, but for two rules of ``hostile``. Without that, nothing is sent that a good
    client does not send.

    Args:
        contract: the message types.
        endpoint: where the server listens.
        config: what the server is said to be set to: limits, deadlines, ``crc32_variant`` (``"auto"`` finds
            it out). None for the defaults. Path and transport are the endpoint's.
        request: makes a request that does no harm, a new one each time; None for the contract's negotiation.
        hostile: whether to send what the protocol forbids as well, and to take every place. A server that
            breaks rules may break down by it.
        deadlines: whether to wait for the server's read deadline, twice.
        patience: seconds in which the server has to do what takes no handler, such as closing.
        on_finding: called with each finding as soon as it is final.
        settings: fields of ``config`` to change.

    Returns:
        What was found of each rule in ``SERVER_RULES``.

    Raises:
        ConnectError: nobody could be reached to begin with.
        ConfigError: a setting is wrong.
        MessageError: the request cannot be sent.
        ContractError: a function of the contract returned what it must not.
        TypeError: there is no ``request``, and the contract has no negotiation; or what is to be called
            cannot be.
        ValueError: ``patience`` is no number of seconds.

    Cancellation ends it at once and leaves no connection open.
    """
    contract_of(contract)
    check_seconds("patience", patience)
    check_callable("request", request, optional=True)
    check_callable("on_finding", on_finding, optional=True)
    if request is None:
        if contract.negotiation is None:
            raise TypeError(f"the contract {contract.name} has no negotiation: give a harmless request")
        request = contract.capabilities_request
    notes = Notes(SERVER_RULES, hostile=hostile, deadlines=deadlines, on_finding=on_finding)
    made = config_for(endpoint, config, settings)
    asking = Asking(contract, endpoint, made, patience=patience, request=request, notes=notes)
    otherwise = await _look_at_all(asking)
    return notes.result(endpoint.path, "server", otherwise)


async def _look_at_all(asking: Asking) -> str:
    """Make all looks; return why there is nothing to be said of what was not looked at."""
    notes = asking.notes
    try:
        await asking.find_variant()
    except NoResponseError as exc:
        if not notes.is_broken("S1"):
            notes.broken("S1", str(exc))
        await looks.permissions(asking)
        return "no request was answered"
    for look in _LOOKS:
        wanted = [number for number in look.rules if notes.wanted(number)]
        missing = [number for number in look.after if notes.is_broken(number)]
        if missing:
            for number in wanted:
                notes.not_shown(number, f"it cannot be seen where {missing[0]} is broken")
        elif wanted and not await _survives(asking, look):
            return f"the server serves nobody since {look.rules[0]} was tried"
        notes.tell(number for number in look.rules if number not in _GOING_ON)
    return "nothing was seen of it"


async def _survives(asking: Asking, look: _Look) -> bool:
    """Make a look; return whether the server can be asked still. If not, the look's first rule is broken."""
    notes = asking.notes
    try:
        try:
            await look.make(asking)
        except NoResponseError as exc:
            for number in look.rules:
                notes.not_shown(number, str(exc))
            return True  # it did not come to it
        if look.risky:
            async with asking.opened():
                pass
    except (ConnectError, NoResponseError) as exc:
        why = exc.message if isinstance(exc, ConnectError) else str(exc)
        notes.blame(look.rules[0], f"the server serves nobody since then: {why}")
        return False
    return True
