"""What every look at a server builds on: connections, requests, and the judgement of each response.

Each connection begins with a request that is answered, so that it is known to have its place: a server whose
places are taken closes as one does that refuses. This module must never send what the protocol forbids.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from google.protobuf import text_format

from trio_ipc.config import AUTO, Crc32Variant, IpcConfig
from trio_ipc.contract import OTHER_VARIANT, Contract, encode
from trio_ipc.errors import (
    ConnectTimeoutError,
    MessageEmptyError,
    ResponseMismatchError,
    UndecodableMessageError,
    quote,
)
from trio_ipc.testing.endpoints import IpcEndpoint

from .frames import End, Frame, RawConnection, framed
from .rules import Notes

#: Seconds between two tries for a place that a connection before may hold still.
_PAUSE: Final = 0.05

#: Seconds in which a further response would come, if one did: it would be sent with the first.
_SETTLE: Final = 0.3

#: Frames in place of an end that are read, at the most.
_MOST_WORDS: Final = 8

#: Characters of a peer's words in a finding.
_LONGEST_WORDS: Final = 200


class NoResponseError(Exception):
    """A request that every server answers was not answered, so that nothing further can be looked at."""


class Asking:
    """A client by hand, of one server.

    Args:
        contract: the message types.
        endpoint: where the server listens.
        config: the limits and deadlines that the server is said to have.
        patience: seconds in which it has to do what takes no handler.
        request: makes a request that does no harm, a new one each time.
        notes: where findings go.

    Attributes:
        contract, endpoint, config, patience, notes: as given.
        variant: which checksum the server speaks, once :meth:`find_variant` is done.
        answer_within: seconds in which a response must come.
        settle: seconds after which nothing more comes.
    """

    def __init__(
        self,
        contract: Contract[Any, Any],
        endpoint: IpcEndpoint,
        config: IpcConfig,
        *,
        patience: float,
        request: Callable[[], Any],
        notes: Notes,
    ) -> None:
        self.contract = contract
        self.endpoint = endpoint
        self.config = config
        self.patience = patience
        self.notes = notes
        self.variant = Crc32Variant.IEEE
        self.answer_within = config.handler_timeout
        self.settle = min(patience, _SETTLE)
        self._request = request

    # --- Requests and connections ---

    def request(self) -> Any:
        """Return a new request."""
        made = self._request()
        self.contract.check_request(made)
        return made

    def payload(self, request: Any) -> bytes:
        """Return the bytes of a request.

        Raises:
            MessageEmptyError: there are none.
        """
        payload = encode(request)
        if not payload:
            raise MessageEmptyError(
                f"the {type(request).__name__} to ask with encodes to no bytes, which no frame can carry",
                hint="set a field in it",
            )
        return payload

    def framed(self, request: Any) -> bytes:
        """Return the frame of a request."""
        return framed(self.payload(request), self.variant)

    async def connect(self) -> RawConnection:
        """Connect.

        Raises:
            ConnectError: in the precise form that fits.
        """
        with trio.move_on_after(self.config.accept_timeout_ms / 1000):
            return RawConnection(await self.endpoint.connect(), self.config.max_frame_bytes)
        raise ConnectTimeoutError(
            "the server did not take the connection in time, the limit accept_timeout_ms is "
            f"{self.config.accept_timeout_ms}",
            endpoint=self.endpoint.path,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[RawConnection]:
        """Give a connection on which one request was answered already.

        Raises:
            NoResponseError: none could be had for as long as patience lasts.
            ConnectError: nobody listens.
        """
        give_up = trio.current_time() + self.patience
        while True:
            async with await self.connect() as connection:
                got = await self.exchange(connection)
                if isinstance(got, Frame):
                    yield connection
                    return
            if not got.over or trio.current_time() >= give_up:
                raise NoResponseError(f"a request on a new connection was not answered: {self.told(got)}")
            await trio.sleep(_PAUSE)

    async def exchange(self, connection: RawConnection) -> Frame | End:
        """Ask once, and judge the response; what came in its place is returned, and is no finding."""
        request = self.request()
        await connection.send(self.framed(request), self.patience)
        got = await connection.frame(self.answer_within)
        if isinstance(got, Frame):
            self.judge(got, request)
        return got

    async def find_variant(self) -> None:
        """Find out which checksum variant the server speaks, by a request that does no harm.

        Raises:
            NoResponseError: it answers in neither, or not in the one that is set.
            ConnectError: nobody listens.
        """
        setting = self.config.crc32_variant
        candidates = [*Crc32Variant] if setting == AUTO else [setting]
        give_up = trio.current_time() + self.patience
        why: str | None = None
        while True:
            for candidate in candidates:
                self.variant = candidate
                why = await self._answers_in(candidate)
                if why is None:
                    return
            if trio.current_time() >= give_up:
                break
            await trio.sleep(_PAUSE)
        spoken = " and ".join(candidates)
        raise NoResponseError(
            f"a request was not answered (checksum variant tried: {spoken}): {why}. It may refuse this user, "
            "have no place, or speak another variant"
        )

    async def _answers_in(self, variant: Crc32Variant) -> str | None:
        """Say why a request in this variant has no response, None where it has one."""
        request = self.request()
        async with await self.connect() as connection:
            await connection.send(framed(self.payload(request), variant), self.patience)
            got = await connection.frame(self.answer_within)
        if isinstance(got, End):
            if not got.over:
                raise NoResponseError(f"a request was not answered: {self.told(got)}")
            return got.value
        if self.is_refusal_of_variant(got, request):
            return f"it said {self.words(got)}"
        self.judge(got, request)
        return None

    async def until_end(self, connection: RawConnection, got: Frame | End) -> tuple[list[Frame], End]:
        """Read until the connection ends or patience does; return the frames until then.

        Args:
            connection: where something has ended the connection.
            got: what came first.
        """
        said: list[Frame] = []
        while isinstance(got, Frame):
            said.append(got)
            if not got.readable or len(said) == _MOST_WORDS:
                return said, End.CUT
            got = await connection.frame(self.patience)
        return said, got

    # --- Judging what came ---

    def judge(self, frame: Frame, request: Any, *, is_answer: bool = True) -> None:
        """Note what a response shows of S1 to S5.

        Args:
            frame: the response.
            request: what it should answer.
            is_answer: whether it is to be judged by that, too.

        Raises:
            NoResponseError: what comes after it cannot be read.
        """
        notes = self.notes
        problem = frame.problem_of_length
        if problem is not None:
            notes.broken("S1", f"{problem}; the limit max_frame_bytes is {self.config.max_frame_bytes:,}")
            raise NoResponseError("the frames of the server cannot be read")
        notes.kept("S1", f"a response of {frame.length:,} bytes")
        problem = frame.problem_of_checksum
        if problem is not None:
            notes.broken("S2", problem)
        else:
            notes.kept("S2", f"the checksum is right, as {frame.variant}")
            if frame.variant is not self.variant:
                notes.broken("S3", f"the request was in {self.variant}, its response in {frame.variant}")
        try:
            self.contract.decode_response(frame.payload)
        except UndecodableMessageError as exc:
            notes.broken("S4", exc.message)
            return
        notes.kept("S4", f"it is a {self.contract.response_type.DESCRIPTOR.full_name}")
        if is_answer:
            self._judge_answer(frame, request)

    def _judge_answer(self, frame: Frame, request: Any) -> None:
        why = self.mismatch(request, frame)
        if why is not None:
            self.notes.broken("S5", why)
        elif self.mismatch(self.request(), frame) is None:
            self.notes.not_shown("S5", "by this contract every response answers every request")
        else:
            self.notes.kept("S5", "it answers the request, and would answer no other one")

    def mismatch(self, request: Any, frame: Frame) -> str | None:
        """Say why a frame does not answer a request, None where it does."""
        try:
            self.contract.decode_answer(request, frame.payload)
        except (ResponseMismatchError, UndecodableMessageError) as exc:
            return exc.message
        return None

    async def no_response(self, connection: RawConnection, request: Any, got: Frame | End) -> str | None:
        """Say why what came does not answer a request, None where it does and the connection goes on."""
        if isinstance(got, End):
            return self.told(got)
        self.judge(got, request, is_answer=False)
        if self.mismatch(request, got) is not None:
            return f"it was answered by {self.words(got)}"
        after = await self.exchange(connection)
        return None if isinstance(after, Frame) else f"it was answered, and then: {after.value}"

    def told(self, end: End) -> str:
        """Say what came in place of a response."""
        return end.value if end.over else f"{end.value} within {self.answer_within:g} s"

    def is_refusal_of_variant(self, frame: Frame, request: Any) -> bool:
        """Whether a frame says that the server speaks another checksum variant."""
        return OTHER_VARIANT.encode() in frame.payload and self.mismatch(request, frame) is not None

    def words(self, frame: Frame) -> str:
        """Return what a frame says, for people."""
        try:
            said = text_format.MessageToString(self.contract.decode_response(frame.payload), as_one_line=True)
        except UndecodableMessageError:
            said = frame.payload[:_LONGEST_WORDS].hex(" ")
        return quote(said, _LONGEST_WORDS)

    def is_message(self, frame: Frame) -> bool:
        """Whether a frame's payload decodes as a response."""
        try:
            self.contract.decode_response(frame.payload)
        except UndecodableMessageError:
            return False
        return True
