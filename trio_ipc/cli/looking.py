"""What can be found out about an endpoint from outside: its file, who listens, and what they answer.

Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import trio

from trio_ipc import Contract, IpcConfig, IpcError, PeerCredentials, PeerPolicy, open_client
from trio_ipc.channel import close_at_once
from trio_ipc.client.variants import means_other_variant, says_other_variant
from trio_ipc.config import AUTO, Crc32Variant
from trio_ipc.errors import (
    ConnectError,
    ConnectTimeoutError,
    EndpointPermissionError,
    ServerNotFoundError,
    ServerRefusedError,
)
from trio_ipc.opening import open_channel
from trio_ipc.transports.accounts import group_name, user_name
from trio_ipc.transports.findings import file_at
from trio_ipc.transports.peer_process import start_of

#: What an endpoint is by how connecting to it ended; anything else is "unusable".
_STATES: Final[tuple[tuple[type[ConnectError], str], ...]] = (
    (ServerNotFoundError, "absent"),
    (ServerRefusedError, "stale"),
    (EndpointPermissionError, "forbidden"),
    (ConnectTimeoutError, "busy"),
)


@attrs.frozen(kw_only=True)
class Look:
    """An endpoint at one moment.

    Attributes:
        endpoint: in full.
        state: "alive", "absent", "stale", "forbidden", "busy" or "unusable".
        why: what connecting failed with, None where somebody listens.
        advice: what to do about that, likewise.
        file: what stands at the path, as :func:`~trio_ipc.transports.findings.file_at` says it.
        server: who listens, as :func:`process_of` says it; None where nobody does.
        trusted: whether the policy allows that one, None where nobody listens.
        allowed: whom the policy allows.
    """

    endpoint: str
    state: str
    why: str | None
    advice: str | None
    file: dict[str, Any] | None
    server: dict[str, Any] | None
    trusted: bool | None
    allowed: str


@attrs.frozen(kw_only=True)
class Answer:
    """What a server answers to a question that does no harm.

    Attributes:
        variant: the checksum variant in which it answers, None where it does in neither.
        response: its response, None where there is none.
        why: why there is none.
    """

    variant: Crc32Variant | None = None
    response: Any = None
    why: str | None = None


def process_of(peer: PeerCredentials) -> dict[str, Any]:
    """Return what is known of a peer, while the connection to it is open."""
    # Read before it is known to run still: a number of a process that has ended may be another one's by then.
    since = None if peer.pid is None else start_of(peer.pid)
    runs = peer.still_runs()
    program = peer.executable()
    return {
        "pid": peer.pid,
        "runs": runs,
        "uid": peer.uid,
        "user": user_name(peer.uid),
        "gid": peer.gid,
        "group": group_name(peer.gid),
        "sid": peer.sid,
        "program": None if program is None else str(program),
        "started": since.isoformat(timespec="seconds") if runs and since is not None else None,
    }


async def look_at(config: IpcConfig, policy: PeerPolicy) -> Look:
    """Connect to an endpoint, see who is there, and leave without a word."""
    path = config.endpoint_path
    known: dict[str, Any] = {"endpoint": path, "file": file_at(path), "allowed": str(policy)}
    try:
        channel = await open_channel(config)
    except ConnectError as exc:
        await trio.lowlevel.checkpoint()
        state = next((name for kind, name in _STATES if isinstance(exc, kind)), "unusable")
        known.update(why=exc.message, advice=exc.hint)
        return Look(**known, state=state, server=None, trusted=None)
    try:
        peer = channel.peer or PeerCredentials()
        allowed = policy.judge(channel.peer).allowed
        known.update(why=None, advice=None)
        return Look(**known, state="alive", server=process_of(peer), trusted=allowed)
    finally:
        await close_at_once(channel)


async def ask(
    contract: Contract[Any, Any],
    config: IpcConfig,
    policy: PeerPolicy,
    timeout: float,  # noqa: ASYNC109 - one response's
) -> Answer | None:
    """Ask a server by the contract's negotiation, or its question for health, until a variant is answered.

    The second variant is only tried where the first may be the wrong one: a server complains of such frames.

    Returns:
        None where the contract has no such request.
    """
    if contract.negotiation is not None:
        question = contract.capabilities_request
    elif contract.health is not None:
        question = contract.health_request
    else:
        return None
    whys = []
    given = config.crc32_variant
    first = Crc32Variant.IEEE if given == AUTO else Crc32Variant(given)
    for variant in (first, first.other):
        try:
            async with open_client(contract, config.replace(crc32_variant=variant), peers=policy) as client:
                response = await client.call(question(), timeout=timeout)
        except IpcError as exc:
            whys.append(f"{variant}: {exc.message}")
            if not means_other_variant(exc, answered=False):
                break
        else:
            if not says_other_variant(response):
                return Answer(variant=variant, response=response)
            whys.append(f"{variant}: the server speaks the other variant")
    return Answer(why="; ".join(whys))


def not_asked(contract: Contract[Any, Any]) -> str:
    """Return what is said in place of a response where :func:`ask` returns None."""
    return f"not asked: the contract {contract.name} has no question for it"


# --- As text -----------------------------------------------------------------------------------------------


def lines(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give names and values of what is known, for people; what is not known is left out."""
    for name, one in value.items():
        if isinstance(one, dict) and prefix == "" and name in {"file", "server"}:
            yield from lines(one, f"{name} ")
        elif one is not None:
            yield f"{prefix}{name}", _text(one)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
