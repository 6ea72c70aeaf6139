"""What is looked at by a client that does nothing wrong: S6 to S15.

Each function takes an :class:`~.asking.Asking` and notes what it sees. This module must never send what the
protocol forbids.
"""

from __future__ import annotations

import enum
import os
import stat
from typing import Final

import trio

from trio_ipc.errors import plural
from trio_ipc.testing.endpoints import SystemEndpoint
from trio_ipc.transports.findings import HAS_FILE

from .asking import Asking
from .frames import BYTE_BY_BYTE, HEADER, LARGEST, End, Frame, framed, padded, too_slow

#: Requests that are sent ahead: enough to be answered in a wrong order, few for a handler that is slow.
_AHEAD: Final = 4


async def once(asking: Asking) -> None:
    """S6."""
    async with asking.opened() as connection:
        got = await connection.frame(asking.settle)
        if isinstance(got, Frame):
            asking.notes.broken("S6", f"after the response came another frame, of {got.length:,} bytes")
        elif got in {End.PART, End.CUT}:
            asking.notes.broken("S6", f"after the response came {connection.partial}")
        else:
            asking.notes.kept("S6", f"nothing came after the response for {asking.settle:g} s")


async def again(asking: Asking) -> None:
    """S8."""
    async with asking.opened() as connection:
        for answered in range(1, _AHEAD):
            got = await asking.exchange(connection)
            if isinstance(got, End):
                asking.notes.broken("S8", f"request {answered + 1} was not answered: {asking.told(got)}")
                return
    asking.notes.kept("S8", f"{_AHEAD} requests on one connection were answered")


async def other_variant(asking: Asking) -> None:
    """S3: a first request in the other variant, as clients send it that find out the variant."""
    ours, other = asking.variant, asking.variant.other
    request = asking.request()
    async with await asking.connect() as connection:
        await connection.send(framed(asking.payload(request), other), asking.patience)
        got = await connection.frame(asking.answer_within)
        if isinstance(got, Frame) and asking.mismatch(request, got) is None:
            if got.variant is ours:
                asking.notes.broken("S3", f"the request was in {other}, its response in {ours}")
            else:
                asking.notes.kept("S3", f"it answers {ours} and {other}, each in its own")
            return
        said, end = await asking.until_end(connection, got)
    if end.over:
        words = f"; it said {asking.words(said[0])}" if said else ""
        asking.notes.kept("S3", f"it speaks {ours}; at {other} {end.value}{words}")
    else:
        asking.notes.broken("S3", f"a request in {other} was neither answered nor did it end the connection")


async def order(asking: Asking) -> None:
    """S7."""
    requests = [asking.request() for _ in range(_AHEAD)]
    async with asking.opened() as connection:
        await connection.send(b"".join(map(asking.framed, requests)), asking.patience)
        for number, request in enumerate(requests, 1):
            got = await connection.frame(asking.answer_within)
            if isinstance(got, End):
                why = f"of {_AHEAD} requests in one write number {number} had no response: {asking.told(got)}"
                asking.notes.broken("S7", why)
                return
            asking.judge(got, request, is_answer=False)
            answered = [n for n, one in enumerate(requests, 1) if asking.mismatch(one, got) is None]
            if len(answered) > 1:
                asking.notes.not_shown("S7", "by this contract one response cannot be told from another")
                return
            if answered and answered != [number]:
                asking.notes.broken("S7", f"response {number} answers request {answered[0]}")
                return
            if not answered:
                asking.notes.broken("S5", f"response {number} answers no request: {asking.words(got)}")
                return
    asking.notes.kept("S7", f"{_AHEAD} requests in one write were answered in their order")


async def pieces(asking: Asking) -> None:
    """S9."""
    request = asking.request()
    data = asking.framed(request)
    async with asking.opened() as connection:
        began, within = trio.current_time(), asking.config.read_timeout_ms / 2000  # half of its deadline
        number = await connection.send_one_by_one(data[:BYTE_BY_BYTE], within)
        slow = too_slow("to send its first bytes", began, asking.config)
        await connection.send(data[number:], asking.patience)
        got = await connection.frame(asking.answer_within)
        why = await asking.no_response(connection, request, got)
    if why is None:
        asking.notes.kept(
            "S9", f"a request was answered of which {number} {plural(number, 'byte')} came one by one"
        )
    elif slow is not None and isinstance(got, End) and got.over:
        asking.notes.not_shown("S9", slow)
    else:
        asking.notes.broken("S9", f"a request that came byte by byte was not answered: {why}")


async def limit(asking: Asking) -> None:
    """S10."""
    request, most = asking.request(), asking.config.max_frame_bytes
    if most > LARGEST:
        asking.notes.not_shown("S10", f"the limit is {most:,} bytes: more than {LARGEST:,} are not tried")
        return
    payload = padded(asking.payload(request), most)
    if payload is None:
        asking.notes.not_shown("S10", f"a request cannot be made of exactly {most:,} bytes")
        return
    async with asking.opened() as connection:
        await connection.send(framed(payload, asking.variant), asking.answer_within)
        why = await asking.no_response(connection, request, await connection.frame(asking.answer_within))
    if why is None:
        asking.notes.kept("S10", f"a request of {most:,} bytes was answered")
    else:
        asking.notes.broken("S10", f"a request of {most:,} bytes was not answered: {why}")


async def half_close(asking: Asking) -> None:
    """S11 and S12."""
    notes = asking.notes
    data = b"".join(asking.framed(asking.request()) for _ in range(_AHEAD))
    async with asking.opened() as connection:
        if not connection.can_half_close:
            for number in ("S11", "S12"):
                notes.not_shown(number, "this kind of connection has no half-close")
            return
        await connection.send(data, asking.patience)
        await connection.send_eof()
        for answered in range(_AHEAD):
            got = await connection.frame(asking.answer_within)
            if isinstance(got, End):
                notes.broken("S11", f"after {answered} of {_AHEAD} responses: {asking.told(got)}")
                return
            asking.judge(got, None, is_answer=False)
        notes.kept("S11", f"{_AHEAD} requests and an end of file: all were answered")
        got = await connection.frame(asking.patience)
        if isinstance(got, Frame):
            notes.broken("S12", f"after its last response came another frame, of {got.length:,} bytes")
        elif got is End.CUT or got is End.PART:
            notes.broken("S12", f"after its last response came {connection.partial}")
        elif got is End.SILENT:
            notes.broken("S12", f"it still had not closed {asking.patience:g} s after its last response")
        else:
            notes.kept("S12", "it closed after its last response")


async def permissions(asking: Asking) -> None:
    """S13."""
    await trio.lowlevel.checkpoint()
    path = asking.endpoint.path
    if not isinstance(asking.endpoint, SystemEndpoint):
        asking.notes.not_shown("S13", "this endpoint is no file")
    elif not HAS_FILE:
        asking.notes.not_shown("S13", "the access list of a pipe is not read")
    else:
        try:
            mode, way = stat.S_IMODE(os.stat(path).st_mode), _way_for_others(path)
        except OSError as exc:
            asking.notes.not_shown("S13", f"the socket cannot be looked at: {exc.strerror}")
            return
        if mode & stat.S_IWOTH and way is not _Way.NONE:
            asking.notes.broken("S13", f"its mode is {mode:04o}, and everybody can pass its directories")
        elif way is _Way.WRITE:
            asking.notes.broken("S13", "everybody may write its directory, and put another socket there")
        else:
            asking.notes.kept("S13", f"its mode is {mode:04o}; of its directories others may {way.value}")


class _Way(enum.Enum):
    """What others may do with the directories of a path."""

    NONE = "not pass all"
    GO = "pass all of them"
    WRITE = "write the last one"


def _way_for_others(path: str) -> _Way:
    """Return what others may do: pass all directories of a path, or even write the last one; or nothing."""
    directory = os.path.dirname(os.path.realpath(path))
    last = stat.S_IMODE(os.stat(directory).st_mode)
    above = directory
    while True:
        if not os.stat(above).st_mode & stat.S_IXOTH:
            return _Way.NONE
        if above == os.path.dirname(above):
            break
        above = os.path.dirname(above)
    # With the sticky bit they may add files, and cannot replace one that is not theirs.
    return _Way.WRITE if last & stat.S_IWOTH and not last & stat.S_ISVTX else _Way.GO


async def idle(asking: Asking) -> None:
    """S14."""
    async with asking.opened() as connection:
        began = trio.current_time()
        got = await connection.frame(asking.config.read_timeout_ms / 1000 + asking.patience)
        took = trio.current_time() - began
    if isinstance(got, End) and got.over and got is not End.CUT:
        asking.notes.kept("S14", f"{got.value} after {took:.1f} s")
    elif got is End.SILENT:
        asking.notes.broken("S14", f"after {took:.1f} s without a request it is still open")
    else:
        asking.notes.broken("S14", f"after {took:.1f} s it said what nobody had asked for")


async def part(asking: Asking) -> None:
    """S15."""
    async with asking.opened() as connection:
        await connection.send(HEADER.pack(16, 0)[:5], asking.patience)
        began = trio.current_time()
        within = asking.config.read_timeout_ms / 1000 + asking.patience
        got = await connection.frame(within)
        if isinstance(got, Frame) and got.readable:  # words, as of any other broken frame
            got = await connection.frame(asking.patience)
        took = trio.current_time() - began
    if isinstance(got, End) and got.over:
        asking.notes.kept("S15", f"{got.value} {took:.1f} s after the beginning of a frame")
    else:
        asking.notes.broken("S15", f"{took:.1f} s after the beginning of a frame it is still open")
