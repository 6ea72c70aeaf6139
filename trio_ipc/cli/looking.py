"""What can be found out about an endpoint from outside: its file, who listens, and what they answer.

Files are judged by plain functions, which never raise for what they find. Nothing is changed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import stat
import sys
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

_KINDS: Final = (
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISREG, "regular file"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)

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
        file: what stands at the path, as :func:`file_at` says it.
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
        response: its answer, None where there is none.
        why: why there is none.
    """

    variant: Crc32Variant | None = None
    response: Any = None
    why: str | None = None


def file_at(path: str) -> dict[str, Any] | None:
    """Return what stands at the path of a socket, None where nothing can be seen. Pipes have no file."""
    if sys.platform == "win32":
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return {
        "kind": kind_of(found.st_mode),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "user": user_name(found.st_uid),
        "gid": found.st_gid,
        "group": group_name(found.st_gid),
        "made": _time(found.st_mtime),
    }


def kind_of(mode: int) -> str:
    """Return the name of a kind of file."""
    return next((name for is_it, name in _KINDS if is_it(mode)), "something else")


def user_name(uid: int | None) -> str | None:
    """Return a user's name, None where there is none."""
    if sys.platform == "win32" or uid is None:
        return None
    import pwd  # noqa: PLC0415 - Unix has it

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return None


def group_name(gid: int | None) -> str | None:
    """Return a group's name, None where there is none."""
    if sys.platform == "win32" or gid is None:
        return None
    import grp  # noqa: PLC0415 - Unix has it

    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return None


def process_of(peer: PeerCredentials) -> dict[str, Any]:
    """Return what is known of a peer, while the connection to it is open."""
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
        # Of the process that is known to run, and of no later one with its number.
        "started": started(peer.pid) if runs and peer.pid is not None else None,
    }


def started(pid: int) -> str | None:
    """Return since when a process runs (proc_pid_stat(5), starttime), None where the system does not tell."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may have blanks and parentheses itself.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        return _time(booted + ticks / os.sysconf("SC_CLK_TCK"))
    return None


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


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
    timeout: float,  # noqa: ASYNC109 - one answer's
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
