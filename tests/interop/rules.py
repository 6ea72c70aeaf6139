"""Each peer's server and client judged by the rules that have numbers, by the library's own checker."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    CLIENT_RULES,
    SERVER_RULES,
    Conformance,
    SystemEndpoint,
    Verdict,
    check_client,
    check_server,
)

from . import programs
from .matrix import Outcome
from .peers import Peer
from .programs import PATIENCE, PeerError, Settings

#: Of every program. A small frame, as one peer computes CRC-32C a byte at a time; few places, to take all.
LIMIT: Final = 64 * 1024
PLACES: Final = 3


@attrs.frozen
class Mode:
    """What the checker is asked for, and the deadline that the peer gets for it.

    Attributes:
        name: for people.
        timeout_ms: short where it is waited for. Else so long that a busy machine does not run into it, and
            that a peer which just waits is not taken for one that closes.
        options: of the checker.
    """

    name: str
    timeout_ms: int
    options: dict[str, bool]

    def settings(self, variant: str) -> Settings:
        return Settings(variant, LIMIT, PLACES, self.timeout_ms)

    def checked_as(self, variant: str) -> dict[str, Any]:
        """Return what the checker is told of the peer."""
        return {
            "crc32_variant": variant,
            "max_frame_bytes": LIMIT,
            "max_connections": PLACES,
            "read_timeout_ms": self.timeout_ms,
            "handler_timeout_ms": 20_000,
            **self.options,
        }


MODES: Final = (
    Mode("default", 30_000, {}),
    Mode("deadlines", 1_000, {"deadlines": True}),
    Mode("hostile", 30_000, {"hostile": True}),
)


def variants(peer: Peer) -> tuple[str, ...]:
    """Return the checksum variants that a peer can be set to."""
    return ("ieee", "castagnoli", "auto") if peer.has_auto else ("ieee", "castagnoli")


@contextlib.contextmanager
def _endpoint() -> Iterator[SystemEndpoint]:
    """A place whose last directory everybody may pass, so that the mode of the socket itself counts."""
    with tempfile.TemporaryDirectory(prefix="ipc-") as directory:
        Path(directory).chmod(0o755)
        yield SystemEndpoint(f"{directory}/s.sock")


async def judge_server(peer: Peer, variant: str, mode: Mode) -> Conformance:
    """Check a peer's server."""
    with _endpoint() as endpoint:
        async with programs.server(peer, endpoint.path, mode.settings(variant)):
            return await check_server(DETECTION, endpoint, **mode.checked_as(variant))


async def judge_client(peer: Peer, variant: str, mode: Mode) -> Conformance:
    """Check a peer's client."""
    found: list[Conformance] = []

    async def check(endpoint: SystemEndpoint, *, task_status: trio.TaskStatus[None]) -> None:
        told = mode.checked_as(variant)
        found.append(
            await check_client(DETECTION, endpoint, answer=_succeed, task_status=task_status, **told)
        )
        nursery.cancel_scope.cancel()

    with _endpoint() as endpoint:
        async with trio.open_nursery() as nursery:
            await nursery.start(check, endpoint)
            nursery.start_soon(_ask_on, peer, endpoint.path, mode.settings(variant))
    return found[0]


async def _ask_on(peer: Peer, path: str, settings: Settings) -> None:
    """Have a client ask on and on, after each failure on a new connection."""
    numbers = itertools.count()
    async with programs.client(peer) as program:
        while True:
            with contextlib.suppress(PeerError):
                await program.open(path, settings)
                while True:
                    await program.call(DetectionTask(task_id=str(next(numbers))))


def _succeed(task: DetectionTask) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True)


# --- For the matrix -----------------------------------------------------------------------------------------


async def run_server(peer: Peer) -> list[Outcome]:
    """Check a peer's server in every variant and way; what came of each rule."""
    found, why = await _all(judge_server, peer)
    return [Outcome(number, peer.name, "", *_sum(found, number, why)) for number in SERVER_RULES]


async def run_client(peer: Peer) -> list[Outcome]:
    """Check a peer's client in every variant and way; what came of each rule."""
    found, why = await _all(judge_client, peer)
    return [Outcome(number, "", peer.name, *_sum(found, number, why)) for number in CLIENT_RULES]


async def _all(
    judge: Callable[[Peer, str, Mode], Awaitable[Conformance]], peer: Peer
) -> tuple[list[Conformance], str]:
    found: list[Conformance] = []
    try:
        for variant in variants(peer):
            for mode in MODES:
                with trio.fail_after(PATIENCE):
                    found.append(await judge(peer, variant, mode))
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        return found, traceback.format_exc()
    return found, ""


def _sum(found: Iterable[Conformance], number: str, why: str) -> tuple[bool | None, str]:
    """Say whether a rule was kept wherever it was shown, and what was seen where it was not."""
    findings = [one[number] for one in found]
    broken = [one.seen for one in findings if one.verdict is Verdict.BROKEN]
    if why or broken:
        return False, "\n".join([*broken, why])
    return (True if any(one.verdict is Verdict.KEPT for one in findings) else None), ""
