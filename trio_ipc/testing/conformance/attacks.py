"""What is looked at by a client that breaks the protocol on purpose: S16 to S24.

Only who asks for it by ``hostile=True`` gets it: a server that breaks rules may break down by it, and others
may have to wait. Each function takes an :class:`~.asking.Asking` and notes what it sees.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

import trio

from trio_ipc.errors import ConnectError, plural

from .asking import Asking, NoResponseError
from .frames import HEADER, NO_MESSAGE, End, Frame, RawConnection, damaged, framed, too_slow

#: A frame of no bytes: the CRC-32 of nothing is 0 in both variants.
_ZERO: Final = HEADER.pack(0, 0)

#: Connections beyond those that may be served and may wait.
_TOO_MANY: Final = 4

#: Connections that are tried: each takes a descriptor of both sides, of which a process usually has 1,024.
_MOST_CONNECTIONS: Final = 500


async def too_large(asking: Asking) -> None:
    """S16."""
    size = asking.config.max_frame_bytes + 1
    await _violate(asking, "S16", HEADER.pack(size, 0), f"a header that announces {size:,} bytes")


async def zero(asking: Asking) -> None:
    """S17."""
    await _violate(asking, "S17", _ZERO, "a length of 0")


async def damage(asking: Asking) -> None:
    """S18."""
    request = asking.request()
    data = damaged(asking.payload(request), asking.variant)
    await _violate(asking, "S18", data, "a request with a wrong checksum", request)


async def no_message(asking: Asking) -> None:
    """S19."""
    await _violate(asking, "S19", framed(NO_MESSAGE, asking.variant), "a payload that is no message")


async def cut(asking: Asking) -> None:
    """S20."""
    request = asking.request()
    data = asking.framed(request)
    what = "an end of file inside a request"
    await _violate(asking, "S20", data[: (HEADER.size + len(data)) // 2], what, request, eof=True)


async def before(asking: Asking) -> None:
    """S21."""
    request = asking.request()
    async with asking.opened() as connection:
        await connection.send(asking.framed(request) + _ZERO, asking.patience)
        got = await connection.frame(asking.answer_within)
    if isinstance(got, End):
        why: str | None = asking.told(got)
    else:
        asking.judge(got, request, is_answer=False)
        why = asking.mismatch(request, got)
    if why is None:
        asking.notes.kept("S21", "a request with a broken frame behind it was answered")
    else:
        asking.notes.broken("S21", f"a request with a broken frame behind it was not answered: {why}")


async def others(asking: Asking) -> None:
    """S23."""
    notes = asking.notes
    async with asking.opened() as quiet:
        began = trio.current_time()
        try:
            async with asking.opened() as loud:
                await loud.send(NO_MESSAGE * 4, asking.patience)
                await loud.frame(asking.patience)
        except NoResponseError:
            notes.not_shown("S23", "while one connection is open no other one is served")
            return
        for rude in (HEADER.pack(64, 0)[:5], damaged(b"x", asking.variant), asking.framed(asking.request())):
            async with await asking.connect() as connection:
                await connection.send(rude, asking.patience)  # and it leaves, whatever comes
        slow = too_slow("to break the protocol on four connections", began, asking.config)
        got = await asking.exchange(quiet)
        if isinstance(got, End):
            if slow is not None and got.over:
                notes.not_shown("S23", slow)
                return
            notes.broken("S23", f"after others broke the protocol, a request: {asking.told(got)}")
            return
    try:
        async with asking.opened():
            pass
    except NoResponseError as exc:
        notes.broken("S23", f"after others broke the protocol, {exc}")
    else:
        notes.kept("S23", "beside and after four connections that broke the protocol requests were answered")


async def places(asking: Asking) -> None:
    """S24."""
    notes, may = asking.notes, 2 * asking.config.max_connections
    if may > _MOST_CONNECTIONS:
        why = f"it takes {may + _TOO_MANY:,} connections; {_MOST_CONNECTIONS:,} are tried at the most"
        notes.not_shown("S24", why)
        return
    most = f"max_connections is {asking.config.max_connections}, and as many may wait"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(asking.opened())
        began = trio.current_time()
        further: list[RawConnection] = []
        while len(further) < may + _TOO_MANY:
            try:
                further.append(await stack.enter_async_context(await asking.connect()))
            except ConnectError as exc:
                opened = len(further) + 1
                notes.not_shown("S24", f"after {opened} {plural(opened, 'connection')}: {exc.message}")
                return
        seen = [await one.frame(asking.patience if one is further[-1] else 0.01) for one in reversed(further)]
        said = [got for got in seen if not isinstance(got, End) or got in {End.CUT, End.PART}]
        closed = sum(isinstance(got, End) and got.over for got in seen)
        held = len(further) + 1 - closed
        if said:
            notes.broken("S24", f"{len(said)} of {len(further)} connections were told something; none is due")
            return
        if held > may:
            notes.broken("S24", f"{held} connections were open at a time; {most}")
            return
        slow = too_slow(f"to open {len(further)} connections", began, asking.config)
        got = await asking.exchange(first)
        if isinstance(got, End):
            if slow is not None and got.over:
                notes.not_shown("S24", slow)
                return
            notes.broken("S24", f"beside {len(further)} more, a connection with a place: {asking.told(got)}")
            return
    try:
        async with asking.opened():
            pass
    except NoResponseError as exc:
        notes.broken("S24", f"after {len(further)} connections were closed, {exc}")
    else:
        notes.kept("S24", f"of {len(further) + 1} connections {closed} were closed without a byte; {most}")


async def _violate(
    asking: Asking, number: str, data: bytes, what: str, request: Any = None, *, eof: bool = False
) -> None:
    """Send what breaks the protocol behind a request that was answered, and see whether that is the end.

    Args:
        asking: the client.
        number: the rule.
        data: what to send.
        what: the same, for people.
        request: what it must not be answered as, if it could be.
        eof: whether to close the sending side behind it.
    """
    notes = asking.notes
    async with asking.opened() as connection:
        if eof and not connection.can_half_close:
            notes.not_shown(number, "this kind of connection has no half-close")
            return
        await connection.send(data, asking.patience)
        if eof:
            await connection.send_eof()
        said, end = await asking.until_end(connection, await connection.frame(asking.patience))
    if request is not None and any(_answers(asking, request, frame) for frame in said):
        notes.broken(number, f"{what} was answered")
    elif not end.over:
        answered = f"; it said {asking.words(said[0])}" if said else ""
        notes.broken(number, f"{asking.patience:g} s after {what} the connection is still open{answered}")
    else:
        notes.kept(number, f"after {what} {end.value}")
        _judge_words(asking, said)


def _answers(asking: Asking, request: Any, frame: Frame) -> bool:
    """Whether a frame is a response to this request, and to no other."""
    return asking.mismatch(request, frame) is None and asking.mismatch(asking.request(), frame) is not None


def _judge_words(asking: Asking, said: list[Frame]) -> None:
    notes = asking.notes
    if not said:
        notes.kept("S22", "it closes without a word")
        return
    first = said[0]
    problem = first.problem_of_length
    if problem is None and not notes.is_broken("S2"):
        problem = first.problem_of_checksum
    if problem is None and first.variant is asking.variant.other and not notes.is_broken("S3"):
        problem = f"it is in {first.variant}, the connection was in {asking.variant}"
    if problem is None and not asking.is_message(first):
        problem = "it is no message"
    if len(said) > 1:
        notes.broken("S22", f"{len(said)} frames came after a broken one")
    elif problem is not None:
        notes.broken("S22", f"a frame came after a broken one, and {problem}")
    else:
        notes.kept("S22", f"it says {asking.words(first)}")
