"""What the checker is made of: frames by hand, what is told of wrong ones, and how long it tries."""

from __future__ import annotations

import zlib

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.testing import test_conformance_clients as clients
from tests.testing.hand_client import GoodClient
from tests.testing.hand_server import GoodServer, ViolationError
from tests.testing.test_conformance_servers import checked_by_hand, told
from trio_ipc import Crc32Variant
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.errors import quote
from trio_ipc.testing import (
    MemoryEndpoint,
    MemoryStream,
    check_server,
    memory_streams,
    simulate_collector,
)
from trio_ipc.testing.conformance import Verdict, frames
from trio_ipc.testing.conformance.asking import Asking
from trio_ipc.testing.conformance.frames import (
    BETWEEN_BYTES,
    HEADER,
    End,
    Frame,
    RawConnection,
    damaged,
    framed,
)
from trio_ipc.transports import LocalStream
from trio_ipc.wire import checksum_for

IEEE, CASTAGNOLI = Crc32Variant.IEEE, Crc32Variant.CASTAGNOLI

LIMIT = 100


# --- Frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", Crc32Variant)
def test_nothing_is_wrong_with_a_right_frame(variant: Crc32Variant) -> None:
    frame = Frame(1, checksum_for(variant)(b"a"), b"a", readable=True)
    assert frame.variant is variant
    assert frame.problem_of_length is frame.problem_of_checksum is None


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (9 << 24, "its length is 150,994,944, which is 9 in big-endian"),
        (9, "its length is 9"),
        (0x01010101, "its length is 16,843,009"),
        (0, "its length is 0"),
    ],
)
def test_a_length_that_may_be_turned_round_is_told(length: int, told: str) -> None:
    assert Frame(length, 0, b"", readable=False).problem_of_length == told


def test_a_checksum_that_is_wrong_is_told_with_the_right_ones() -> None:
    right = zlib.crc32(b"a")
    theirs = checksum_for(CASTAGNOLI)(b"a")
    assert Frame(1, 7, b"a", readable=True).problem_of_checksum == (
        f"its checksum is 00000007, must be {right:08x} (ieee) or {theirs:08x} (castagnoli)"
    )
    for variant, value in (("ieee", right), ("castagnoli", theirs)):
        turned = int.from_bytes(value.to_bytes(4, "little"), "big")
        problem = Frame(1, turned, b"a", readable=True).problem_of_checksum
        assert problem == f"its checksum {turned:08x} is that of {variant} with its bytes turned round"


def test_a_damaged_frame_has_the_checksum_of_neither_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    assert damaged(b"a", IEEE) == HEADER.pack(1, zlib.crc32(b"a") ^ 0x5A5A5A5A) + b"a"
    alike = {IEEE: 0, CASTAGNOLI: 0x5A5A5A5A}
    monkeypatch.setattr(frames, "checksum_for", lambda variant: lambda _: alike[variant])
    assert damaged(b"a", IEEE) == HEADER.pack(1, 0x5A5A5A5B) + b"a"


def test_which_ends_are_ends() -> None:
    assert [end for end in End if not end.over] == [End.SILENT, End.PART]


# --- Connections --------------------------------------------------------------------------------------------


async def test_a_frame_is_read_up_to_the_limit_and_after_a_wrong_length_nothing_is() -> None:
    near, far = memory_streams()
    async with RawConnection(near, LIMIT) as connection, far:
        assert not connection.has_more
        await far.send_all(framed(bytes(LIMIT), IEEE) + framed(b"a", IEEE))
        assert connection.has_more
        first = Frame(LIMIT, zlib.crc32(bytes(LIMIT)), bytes(LIMIT), readable=True)
        assert await connection.frame(1) == first
        assert connection.has_more, "it was read, and not taken"
        assert await connection.frame(1) == Frame(1, zlib.crc32(b"a"), b"a", readable=True)
        assert not connection.has_more
        for length in (0, LIMIT + 1):
            await far.send_all(HEADER.pack(length, 5) + b"what follows")
            assert await connection.frame(1) == Frame(length, 5, b"", readable=False)
            assert not connection.has_more


async def test_what_comes_in_place_of_a_frame(autojump_clock: MockClock) -> None:
    near, far = memory_streams()
    async with RawConnection(near, LIMIT) as connection:
        assert await connection.frame(7) is End.SILENT
        assert trio.current_time() == 7
        await far.send_all(HEADER.pack(5, 0)[:3])
        assert await connection.frame(1) is End.PART
        assert connection.partial == "3 bytes of a header"
        await far.send_all(HEADER.pack(5, 0)[3:])
        assert await connection.frame(1) is End.PART
        assert connection.partial == "0 of the 5 bytes that it announced"
        await far.send_all(b"12")
        assert await connection.frame(1) is End.PART
        assert connection.partial == "2 of the 5 bytes that it announced"
        await far.aclose()
        assert await connection.frame(1) is End.CUT
    for leave, end in ((MemoryStream.close, End.CLOSED), (MemoryStream.reset, End.RESET)):
        near, far = memory_streams()
        async with RawConnection(near, LIMIT) as connection:
            leave(far)
            assert await connection.frame(1) is end


async def test_bytes_are_sent_until_the_peer_takes_no_more(autojump_clock: MockClock) -> None:
    near, far = memory_streams(buffer_bytes=2)
    async with RawConnection(near, LIMIT) as connection:
        assert await connection.send(b"ab", 5)
        assert not await connection.send(b"c", 5)
        assert trio.current_time() == 5
        assert await connection.send(b"", 5)
        await far.aclose()
        assert not await connection.send(b"d", 5)
    assert not await connection.send(b"d", 5), "it is closed here"
    assert trio.current_time() == 5


@pytest.mark.parametrize(("within", "number"), [(100.0, 5), (2 * BETWEEN_BYTES, 2), (2.5 * BETWEEN_BYTES, 3)])
async def test_bytes_are_sent_one_by_one_for_as_long_as_there_is_time(
    within: float, number: int, autojump_clock: MockClock
) -> None:
    near, far = memory_streams()
    came: list[tuple[float, bytes]] = []

    async def receive() -> None:
        while data := await far.receive_some():
            came.append((round(trio.current_time() / BETWEEN_BYTES, 3), bytes(data)))

    async with RawConnection(near, LIMIT) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        assert await connection.send_one_by_one(b"abcde", within) == number
        await trio.testing.wait_all_tasks_blocked()
        assert came == [(at, b"abcde"[at : at + 1]) for at in range(number)]
        nursery.cancel_scope.cancel()


async def test_bytes_are_sent_one_by_one_until_the_peer_closes(autojump_clock: MockClock) -> None:
    near, far = memory_streams()
    await far.aclose()
    async with RawConnection(near, LIMIT) as connection:
        assert await connection.send_one_by_one(b"ab", 1) == 0


async def test_one_byte_that_the_peer_does_not_take_is_not_waited_for(autojump_clock: MockClock) -> None:
    near, _ = memory_streams(buffer_bytes=2)
    async with RawConnection(near, LIMIT) as connection:
        assert await connection.send_one_by_one(b"abcde", 5) == 2
    assert trio.current_time() == 5
    assert await connection.send_one_by_one(b"ab", 5) == 0, "it is closed here"


def stands_still_while_sending_bytes(monkeypatch: pytest.MonkeyPatch, clock: MockClock) -> None:
    """Let the first byte be followed by 25 s in which nobody runs, as on a machine that is suspended."""
    send_one_by_one = RawConnection.send_one_by_one

    async def send_late(connection: RawConnection, data: bytes, within: float) -> int:
        sent = await send_one_by_one(connection, data[:1], within)
        if data:
            clock.jump(25)
            await trio.testing.wait_all_tasks_blocked()  # the peer, whose deadline is over, closes
        return sent

    monkeypatch.setattr(RawConnection, "send_one_by_one", send_late)


async def test_where_this_machine_stood_still_no_server_is_blamed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_still_while_sending_bytes(monkeypatch, autojump_clock)
    found = await checked_by_hand(GoodServer())
    assert found.broken == (), told(found)
    assert found["S9"].verdict is Verdict.NOT_SHOWN, told(found)
    assert found["S9"].seen == "to send its first bytes took 25005 ms here, and read_timeout_ms is 20000"


async def test_who_answers_wrongly_is_blamed_though_this_machine_stood_still(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnswersAnotherLate(GoodServer):
        answered_at = 0.0

        def seconds_to_end(self) -> float:
            return 1_000.0

        def result(self, task: DetectionTask) -> bytes:
            late = trio.current_time() - self.answered_at > 20
            self.answered_at = trio.current_time()
            return super().result(DetectionTask(task_id="another") if late else task)

    stands_still_while_sending_bytes(monkeypatch, autojump_clock)
    found = await checked_by_hand(AnswersAnotherLate(), deadlines=False)
    assert found["S9"].verdict is Verdict.BROKEN, told(found)


async def test_where_this_machine_stood_still_no_client_is_blamed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_still_while_sending_bytes(monkeypatch, autojump_clock)
    found = await clients.checked(MemoryEndpoint(), GoodClient().run)
    assert found.broken == (), told(found)
    assert found.not_shown == ("C5",), told(found)
    assert found["C5"].seen == "to send its first bytes took 25005 ms here, and read_timeout_ms is 20000"


async def test_where_others_took_longer_than_the_deadline_of_one_that_waits_no_server_is_blamed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Asking.connect

    async def connect_late(asking: Asking) -> RawConnection:
        autojump_clock.jump(25)
        await trio.testing.wait_all_tasks_blocked()
        return await connect(asking)

    monkeypatch.setattr(Asking, "connect", connect_late)
    found = await checked_by_hand(GoodServer())
    assert found.broken == (), told(found)
    seen = {number: found[number].seen for number in ("S23", "S24") if number in found.not_shown}
    assert seen == {
        "S23": "to break the protocol on four connections took 100000 ms here, and read_timeout_ms is 20000",
        "S24": "to open 10 connections took 252010 ms here, and read_timeout_ms is 20000",
    }


# --- How long it tries, and how much it reads ---------------------------------------------------------------


async def test_a_server_that_had_no_place_is_tried_again_for_as_long_as_patience_lasts(
    autojump_clock: MockClock,
) -> None:
    async with simulate_collector() as collector:
        collector.close_next = 3
        found = await check_server(DETECTION, collector.endpoint, crc32_variant="ieee")
        assert found.ok

        collector.connections, collector.close_next = 0, 10_000
        began = trio.current_time()
        found = await check_server(DETECTION, collector.endpoint, crc32_variant="ieee", patience=1.0)
        assert found.broken == ("S1",)
        assert found["S1"].seen == (
            "a request was not answered (checksum variant tried: ieee): it reset the connection. It may "
            "refuse this user, have no place, or speak another variant"
        )
        assert 1 <= trio.current_time() - began < 1.1
        assert collector.connections in {21, 22}, "one each 50 ms"


class SaysALot(GoodServer):
    """Says what it has to say about a violation again and again."""

    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        for _ in range(20):
            await super().violated(stream, exc)


class SaysLongWords(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        await stream.send_all(self.frame(DetectionResult(error_message="x" * 500).SerializeToString()))


class SaysNoMessage(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        await stream.send_all(self.frame(b"\xff" * 12))


class SaysItInTheOtherVariant(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        await stream.send_all(framed(DetectionResult(error_message="no").SerializeToString(), CASTAGNOLI))


@pytest.mark.parametrize(
    ("kind", "broken", "seen"),
    [
        (SaysALot, True, "8 frames came after a broken one"),
        (SaysLongWords, False, "it says " + quote('error_message: "' + "x" * 500 + '"', 200)),
        (SaysNoMessage, True, "a frame came after a broken one, and it is no message"),
        (
            SaysItInTheOtherVariant,
            True,
            "a frame came after a broken one, and it is in castagnoli, the connection was in ieee",
        ),
    ],
)
async def test_what_is_said_about_a_violation(
    autojump_clock: MockClock, kind: type[GoodServer], broken: bool, seen: str
) -> None:
    found = await checked_by_hand(kind())
    assert ("S22" in found.broken) is broken
    assert found["S22"].seen == seen
