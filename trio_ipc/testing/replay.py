"""Plays a recording again: its requests to a server, or its responses to a client.

This module must never send what was not recorded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic

import attrs
from google.protobuf import text_format
from google.protobuf.message import Message

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import IpcError
from trio_ipc.server import Call

from .checking import check_callable
from .recording import Exchange, Recording, recording_of


@attrs.frozen
class Difference(Generic[RequestT, ResponseT]):
    """A request that was answered otherwise than when it was recorded.

    Attributes:
        connection, number: which one, as in :class:`Exchange`.
        request: what was asked.
        expected: what was answered then, None if nothing was.
        got: what was answered now, None if nothing was.
        error: why nothing was.
    """

    connection: int
    number: int
    request: RequestT
    expected: ResponseT | None
    got: ResponseT | None
    error: IpcError | None = None


async def replay_requests(
    recording: Recording,
    contract: Contract[RequestT, ResponseT],
    connect: Callable[[], Awaitable[Channel]],
    *,
    same: Callable[[ResponseT, ResponseT], bool] = lambda expected, got: expected == got,
) -> list[Difference[RequestT, ResponseT]]:
    """Make the recorded requests of a server again, and compare its responses.

    Each recorded connection becomes one, one after the other; after an error a connection's other requests
    are left out. Requests are sent as they were recorded, byte for byte, and only whole ones.

    Args:
        recording: what was recorded.
        contract: the message types.
        connect: opens a channel to the server, such as ``partial(endpoint.open_channel, config)``.
        same: whether a response is as expected; by default it must be equal.

    Returns:
        What differs, in order; nothing if all is as it was.

    Raises:
        ConnectError: the server can't be reached.
        UndecodableMessageError: the recording is one of another contract.
        TypeError: an argument can't be.

    Cancellation closes the connection.
    """
    check_callable("connect", connect, awaited=True)
    check_callable("same", same)
    differences = []
    exchanges = recording_of(recording).exchanges()
    for connection in dict.fromkeys(exchange.connection for exchange in exchanges):
        channel = await connect()
        try:
            for exchange in exchanges:
                if exchange.connection != connection:
                    continue
                difference = await _replay(channel, exchange, contract, same)
                if difference is not None:
                    differences.append(difference)
                if difference is not None and difference.error is not None:
                    break
        finally:
            await close_at_once(channel)
    return differences


async def _replay(
    channel: Channel,
    exchange: Exchange,
    contract: Contract[RequestT, ResponseT],
    same: Callable[[ResponseT, ResponseT], bool],
) -> Difference[RequestT, ResponseT] | None:
    request = contract.decode_request(exchange.request)
    expected = None if exchange.response is None else contract.decode_response(exchange.response)
    got, error = None, None
    try:
        await channel.send(exchange.request)
        got = contract.decode_response(await channel.receive())
    except IpcError as exc:
        error = exc
    as_before = got is None if expected is None else got is not None and same(expected, got)
    if as_before:
        return None
    return Difference(exchange.connection, exchange.number, request, expected, got, error)


class RecordedHandler(Generic[RequestT, ResponseT]):
    """A handler that answers as a recorded server did; for tests of clients.

    Args:
        recording: what was recorded.
        contract: the message types.
        answer: given a request, and a recorded request with its response, returns the response if they belong
            together, else None. By default the request must be equal. For DaemonEye's tasks, whose ids are
            new each time, there is :func:`~trio_ipc.testing.same_task`.

    A response is given once, in the order of the recording; when all of a request's are used up, the last is
    given again.

    Raises:
        UndecodableMessageError: the recording is one of another contract.
        TypeError: an argument can't be.

    Attributes:
        unused: the exchanges that nobody has asked for yet.
    """

    def __init__(
        self,
        recording: Recording,
        contract: Contract[RequestT, ResponseT],
        *,
        answer: Callable[[RequestT, RequestT, ResponseT], ResponseT | None] | None = None,
    ) -> None:
        contract = self._contract = contract_of(contract)
        check_callable("answer", answer, optional=True)
        self.unused: list[Exchange] = [
            exchange for exchange in recording_of(recording).exchanges() if exchange.response is not None
        ]
        self._answer = answer or _if_equal
        self._recorded = [
            (exchange, contract.decode_request(exchange.request), contract.decode_response(exchange.response))
            for exchange in self.unused
            if exchange.response is not None
        ]

    async def __call__(self, request: RequestT, _call: Call) -> ResponseT:
        """Return the recorded response.

        Raises:
            AssertionError: there is none, or ``answer`` fails or returns no response. In
                :func:`~trio_ipc.testing.open_server` that fails the test.
        """
        found: ResponseT | None = None
        for exchange, recorded, response in self._recorded:
            answer = self._answer_to(request, recorded, response)
            if answer is not None:
                found = answer
                if exchange in self.unused:
                    self.unused.remove(exchange)
                    break
        if found is None:
            raise AssertionError(f"no such request was recorded and answered: {_shown(request)}")
        return found

    def _answer_to(self, request: RequestT, recorded: RequestT, response: ResponseT) -> ResponseT | None:
        """Return what the test's own function makes of a recorded response; a mistake of it is the test's."""
        try:
            answer = self._answer(request, recorded, response)
        except Exception as exc:
            raise AssertionError(f"answer of a RecordedHandler failed: {type(exc).__name__}: {exc}") from exc
        if isinstance(answer, self._contract.response_type | None):
            return answer
        wanted = self._contract.response_type.__name__
        raise AssertionError(
            f"answer of a RecordedHandler returned {type(answer).__name__}, must be a {wanted} or None"
        )


def _if_equal(request: Any, recorded: Any, response: Any) -> Any:
    return response if request == recorded else None


def _shown(request: Message) -> str:
    return f"{type(request).__name__} {text_format.MessageToString(request, as_one_line=True, as_utf8=False)}"
