"""What the checker says that it has seen, word for word: numbers and seconds in it are counted right."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.support import succeed
from tests.testing import hand_server
from tests.testing.hand_server import GoodServer
from tests.testing.test_conformance_servers import checked_by_hand
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import MemoryEndpoint, Verdict, check_server, open_server


def quoted(error_message: str) -> str:
    return repr(f'error_message: "{error_message}"')


OF_A_GOOD_SERVER = {
    "S1": "a response of 63 bytes",
    "S2": "the checksum is right, as ieee",
    "S3": "it speaks ieee; at castagnoli it closed; it said " + quoted("protocol violation: checksum"),
    "S4": "it is a trio_ipc.daemoneye.v1.DetectionResult",
    "S5": "it answers the request, and would answer no other one",
    "S6": "nothing came after the response for 0.3 s",
    "S7": "4 requests in one write were answered in their order",
    "S8": "4 requests on one connection were answered",
    "S9": "a request was answered of which 12 bytes came one by one",
    "S10": "a request of 4,096 bytes was answered",
    "S11": "4 requests and an end of file: all were answered",
    "S12": "it closed after its last response",
    "S13": "this endpoint is no file",
    "S14": "it closed after 20.0 s",
    "S15": "it closed 20.0 s after the beginning of a frame",
    "S16": "after a header that announces 4,097 bytes it closed",
    "S17": "after a length of 0 it closed",
    "S18": "after a request with a wrong checksum it closed",
    "S19": "after a payload that is no message it closed",
    "S20": "after an end of file inside a request it closed",
    "S21": "a request with a broken frame behind it was answered",
    "S22": "it says " + quoted("protocol violation: length"),
    "S23": "beside and after four connections that broke the protocol requests were answered",
    "S24": "of 11 connections 8 were closed without a byte; max_connections is 3, and as many may wait",
}


async def test_what_is_seen_of_a_good_server(autojump_clock: MockClock) -> None:
    found = await checked_by_hand(GoodServer())
    assert {one.rule.number: one.seen for one in found.findings} == OF_A_GOOD_SERVER


#: Text where a header should be.
SPOILT = (
    "a frame came after a broken one, and its length is 1,953,460,848, which is 1,886,547,828 in big-endian"
)


@pytest.mark.parametrize(
    ("kind", "number", "seen"),
    [
        (hand_server.LooksAtNoChecksum, "S3", "the request was in castagnoli, its response in ieee"),
        (hand_server.LooksAtNoChecksum, "S18", "a request with a wrong checksum was answered"),
        (hand_server.AnswersTwice, "S6", "after the response came another frame, of 63 bytes"),
        (hand_server.NeedsWholeFrames, "S9", "a request that came byte by byte was not answered: it closed"),
        (
            hand_server.TakesLessThanTheLimit,
            "S10",
            "a request of 4,096 bytes was not answered: it was answered by "
            + quoted("protocol violation: length"),
        ),
        (hand_server.DropsWhatIsAskedAtTheEnd, "S11", "after 0 of 4 responses: it closed"),
        (hand_server.SpeaksAfterTheEnd, "S12", "after its last response came another frame, of 10 bytes"),
        (hand_server.ClosesTooLate, "S12", "it still had not closed 2 s after its last response"),
        (hand_server.KeepsIdleConnections, "S14", "after 22.0 s without a request it is still open"),
        (hand_server.WaitsForTheRestForEver, "S15", "22.0 s after the beginning of a frame it is still open"),
        (
            hand_server.TakesNothingForATask,
            "S17",
            "2 s after a length of 0 the connection is still open; it said 'success: true'",
        ),
        (
            hand_server.SkipsWhatIsNoMessage,
            "S19",
            "2 s after a payload that is no message the connection is still open",
        ),
        (
            hand_server.StaysAfterACutFrame,
            "S20",
            "2 s after an end of file inside a request the connection is still open",
        ),
        (
            hand_server.SaysItInABadFrame,
            "S22",
            SPOILT,
        ),
        (hand_server.SaysItTwice, "S22", "2 frames came after a broken one"),
        (hand_server.TakesItOutOnOthers, "S23", "after others broke the protocol, a request: it closed"),
        (hand_server.SaysThatItIsFull, "S24", "8 of 10 connections were told something; none is due"),
    ],
)
async def test_what_is_seen_of_a_broken_one(
    autojump_clock: MockClock, kind: type[GoodServer], number: str, seen: str
) -> None:
    assert (await checked_by_hand(kind()))[number].seen == seen


async def test_what_is_seen_of_a_server_that_closes_depends_on_who_is_first(
    autojump_clock: MockClock,
) -> None:
    # A connection is reset that is closed with a request unread, and closed where that came later.
    seen = (await checked_by_hand(hand_server.ClosesAfterEachResponse()))["S8"].seen
    assert seen in {f"request 2 was not answered: it {did}" for did in ("closed", "reset the connection")}


async def test_a_place_is_not_shown_to_be_lost_where_its_read_deadline_may_have_passed(
    autojump_clock: MockClock,
) -> None:
    endpoint = MemoryEndpoint()
    async with open_server(succeed, DETECTION, endpoint, read_timeout_ms=300):
        found = await check_server(DETECTION, endpoint, hostile=True, read_timeout_ms=300)
    assert found.broken == ()
    assert found["S24"].verdict is Verdict.NOT_SHOWN
    assert found["S24"].seen.startswith("to open 36 connections took 3")
