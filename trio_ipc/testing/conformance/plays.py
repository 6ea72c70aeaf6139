"""What a server does to a client in order to see what that does next: C5 to C14.

Each play is about one request. It answers it in its way, and says of what follows whether the rule was kept.
"""

from __future__ import annotations

import abc

import trio

from trio_ipc.errors import ResponseMismatchError, plural

from .answering import Answering, Asked
from .frames import (
    BYTE_BY_BYTE,
    HEADER,
    LARGEST,
    NO_MESSAGE,
    End,
    Frame,
    RawConnection,
    damaged,
    framed,
    padded,
    too_slow,
)


class Play(abc.ABC):
    """One way of answering.

    Attributes:
        rule: its number.
        ends: whether the client has to end the connection.
        tries: how often it may be played before nothing is shown.
    """

    rule: str
    ends: bool = True
    tries: int = 2

    @abc.abstractmethod
    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Send something; return why that can't be done here, None where it was."""

    async def judge(self, answering: Answering, connection: RawConnection, asked: Asked) -> Frame | None:
        """Note what follows; return the client's next request, None where the connection is over.

        As it is here, for what ends a connection: requests may have been in flight already.
        """
        del asked
        began = trio.current_time()
        further = 0
        while True:
            within = began + answering.patience - trio.current_time()
            got = await connection.frame(max(0.0, within))
            if isinstance(got, End):
                break
            further += 1
            if not got.readable:
                break
        self._note(answering, got, further)
        return None

    def _note(self, answering: Answering, got: Frame | End, further: int) -> None:
        if isinstance(got, End) and got.over:
            answering.notes.kept(self.rule, f"{got.value}")
            return
        asked = f", and {further} more {plural(further, 'request')} came" if further else ""
        why = f"{answering.patience:g} s later the connection is still open{asked}"
        answering.notes.broken(self.rule, why)


class _Good(Play):
    """A good response, in a form that not every client may expect.

    A client that closes after it shows nothing: it may have asked for the last time. It shows something where
    the response was to the first request of a connection, and the client is known to ask more than one.
    """

    ends = False
    _ahead = False  # whether further requests were there before the response was whole
    _slow: str | None = None  # why it cannot be blamed for having closed

    async def _send(
        self, answering: Answering, connection: RawConnection, data: bytes, *, one_by_one: int = 0
    ) -> None:
        """Send a response, and its last byte by itself."""
        began, within = trio.current_time(), answering.answer_within
        sent = await connection.send_one_by_one(data[:one_by_one], within / 2)  # half of its deadline
        self._slow = too_slow("to send its first bytes", began, answering.config)
        await connection.send(data[sent:-1], within)
        self._ahead = connection.has_more
        await connection.send(data[-1:], answering.patience)

    async def judge(self, answering: Answering, connection: RawConnection, asked: Asked) -> Frame | None:
        """Note whether the client goes on with the connection, and return what it asks."""
        got = await connection.frame(answering.wait)
        if isinstance(got, Frame):
            if self._ahead:
                why = "whether it was taken cannot be seen: the client asks ahead"
                answering.notes.not_shown(self.rule, why)
            else:
                why = "it was taken: the client asked again on the same connection"
                answering.notes.kept(self.rule, why)
            return got
        if got.over and self._slow is not None:
            answering.notes.not_shown(self.rule, self._slow)
        elif got.over and asked.first and answering.stays:
            why = f"{got.value} after it, though it goes on after other responses"
            answering.notes.broken(self.rule, why)
        else:
            why = f"whether it was taken cannot be seen: {got.value} after it"
            answering.notes.not_shown(self.rule, why)
        return None


class Plain(_Good):
    """A response in one piece, of which no rule speaks."""

    rule = ""

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer."""
        await connection.send(asked.framed(answering.response_to(asked.request)), answering.patience)
        return None

    async def judge(self, answering: Answering, connection: RawConnection, asked: Asked) -> Frame | None:
        """Return what the client asks next."""
        del asked
        got = await connection.frame(answering.wait)
        return got if isinstance(got, Frame) else None


class Pieces(_Good):
    """C5."""

    rule = "C5"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer byte by byte."""
        data = asked.framed(answering.response_to(asked.request))
        await self._send(answering, connection, data, one_by_one=min(BYTE_BY_BYTE, len(data) - 1))
        return None


class Limit(_Good):
    """C6."""

    rule = "C6"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer in a payload of exactly the limit."""
        most = answering.config.max_frame_bytes
        if most > LARGEST:
            return f"the limit is {most:,} bytes: more than {LARGEST:,} are not tried"
        payload = padded(answering.response_to(asked.request), most)
        if payload is None:
            return f"a response cannot be made of exactly {most:,} bytes"
        await self._send(answering, connection, asked.framed(payload))
        return None


class Silence(Play):
    """C7."""

    rule = "C7"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer nothing."""
        del answering, connection, asked
        await trio.lowlevel.checkpoint()
        return None

    async def judge(self, answering: Answering, connection: RawConnection, asked: Asked) -> Frame | None:
        """Note whether the client gives up."""
        del asked
        began = trio.current_time()
        within = answering.config.read_timeout_ms / 1000 + answering.patience
        got: Frame | End = End.SILENT
        while (left := began + within - trio.current_time()) > 0:
            got = await connection.frame(left)
            if isinstance(got, End) or not got.readable:
                break
        took = trio.current_time() - began
        if isinstance(got, End) and got.over:
            answering.notes.kept(self.rule, f"{got.value} after {took:.1f} s")
        else:
            answering.notes.broken(self.rule, f"after {took:.1f} s without a response it is still open")
        return None


class TooLarge(Play):
    """C8."""

    rule = "C8"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Announce more than allowed, and nothing else."""
        del asked
        size = answering.config.max_frame_bytes + 1
        await connection.send(HEADER.pack(size, 0), answering.patience)
        return None


class Zero(Play):
    """C9."""

    rule = "C9"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer by a frame of no bytes."""
        del asked
        await connection.send(HEADER.pack(0, 0), answering.patience)
        return None


class Damage(Play):
    """C10."""

    rule = "C10"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer with a wrong checksum."""
        payload = answering.response_to(asked.request)
        await connection.send(damaged(payload, asked.variant), answering.patience)
        return None


class NoMessage(Play):
    """C11."""

    rule = "C11"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer by a good frame of what is no message."""
        await connection.send(framed(NO_MESSAGE, asked.variant), answering.patience)
        return None


class Cut(Play):
    """C12."""

    rule = "C12"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer by half a frame, and end."""
        if not connection.can_half_close:
            return "this kind of connection has no half-close"
        data = asked.framed(answering.response_to(asked.request))
        await connection.send(data[: (HEADER.size + len(data)) // 2], answering.patience)
        await connection.send_eof()
        return None


class Mismatch(Play):
    """C13."""

    rule = "C13"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer another request, by the failure that stands for one which could not be read."""
        other = answering.response_to(None)
        try:
            answering.contract.decode_answer(asked.request, other)
        except ResponseMismatchError:
            await connection.send(asked.framed(other), answering.patience)
            return None
        return "by this contract a response to no request answers every request"


class Unsolicited(Play):
    """C14. A client that asks no more need not see it: its next request is what counts."""

    rule = "C14"

    async def answer(self, answering: Answering, connection: RawConnection, asked: Asked) -> str | None:
        """Answer twice."""
        frame = asked.framed(answering.response_to(asked.request))
        await connection.send(frame + frame, answering.patience)
        return None

    def _note(self, answering: Answering, got: Frame | End, further: int) -> None:
        if got is End.SILENT and not further:
            answering.notes.not_shown(self.rule, "the client asked nothing more on that connection")
        else:
            super()._note(answering, got, further)


def all_plays() -> list[Play]:
    """Return every play with a rule: good ones first, as a client may give up after a bad one."""
    good: list[Play] = [Pieces(), Limit()]
    return [*good, TooLarge(), Zero(), Damage(), NoMessage(), Cut(), Mismatch(), Unsolicited(), Silence()]
