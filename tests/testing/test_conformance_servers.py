"""The checker as a client: our servers and simulated ones keep every rule; others break just theirs."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.platforms import unix_only
from tests.support import hang, succeed
from tests.testing import hand_server
from tests.testing.hand_server import BROKEN, LIMIT, PLACES, READ_TIMEOUT, GoodServer, ViolationError
from trio_ipc import Contract, Crc32Variant, MessageEmptyError, ServerNotFoundError
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    MemoryEndpoint,
    SystemEndpoint,
    open_server,
    simulate_collector,
    simulate_reference,
    temporary_endpoint,
)
from trio_ipc.testing.conformance import (
    SERVER_RULES,
    Conformance,
    Finding,
    Verdict,
    check_server,
    servers,
)
from trio_ipc.testing.conformance.frames import damaged, framed, padded
from trio_ipc.transports import LocalStream

EVERYTHING: dict[str, Any] = {"hostile": True, "deadlines": True}


@asynccontextmanager
async def running(server: GoodServer, endpoint: MemoryEndpoint) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, endpoint)
        yield
        nursery.cancel_scope.cancel()


async def checked_by_hand(server: GoodServer, **options: Any) -> Conformance:
    endpoint = MemoryEndpoint()
    options = {"crc32_variant": "auto", **EVERYTHING, **options}
    async with running(server, endpoint):
        return await check_server(
            DETECTION,
            endpoint,
            max_frame_bytes=LIMIT,
            max_connections=PLACES,
            read_timeout_ms=int(1000 * READ_TIMEOUT),
            **options,
        )


def told(found: Conformance) -> str:
    return "\n".join(f"{one.rule.number} {one.verdict} {one.seen}" for one in found.findings)


# --- Good ones ----------------------------------------------------------------------------------------------


async def test_a_server_by_hand_keeps_every_rule(autojump_clock: MockClock) -> None:
    found = await checked_by_hand(GoodServer())
    assert found.broken == (), told(found)
    assert found.not_shown == ("S13",), told(found)
    assert found.ok
    assert found["S1"].verdict is Verdict.KEPT


@pytest.mark.parametrize("variant", ["ieee", "castagnoli", "auto"])
async def test_our_server_keeps_every_rule_in_memory(autojump_clock: MockClock, variant: str) -> None:
    endpoint = MemoryEndpoint()
    settings: dict[str, Any] = {"max_frame_bytes": LIMIT, "max_connections": 2, "crc32_variant": variant}
    async with open_server(succeed, DETECTION, endpoint, **settings):
        found = await check_server(DETECTION, endpoint, **{**settings, "crc32_variant": "auto"}, **EVERYTHING)
    assert found.broken == (), told(found)
    assert found.not_shown == ("S13",), told(found)
    assert found["S3"].seen.startswith("it answers ieee and castagnoli" if variant == "auto" else "it speaks")


@pytest.mark.parametrize("transport", ["interprocess", "legacy"])
async def test_our_servers_keep_every_rule_over_what_the_system_has(transport: str) -> None:
    settings: dict[str, Any] = {"max_connections": 2, "read_timeout_ms": 300}
    with temporary_endpoint(transport) as endpoint:
        async with open_server(succeed, DETECTION, endpoint, **settings):
            found = await check_server(DETECTION, endpoint, patience=1.0, **settings, **EVERYTHING)
    assert found.broken == (), told(found)
    half = ("S11", "S12", "S13", "S20") if sys.platform == "win32" else ()
    assert found.not_shown == half, told(found)


@pytest.mark.parametrize("read_timeout_ms", [10, 50])
async def test_a_deadline_shorter_than_all_pauses_between_bytes_is_kept_to(
    read_timeout_ms: int, autojump_clock: MockClock
) -> None:
    endpoint = MemoryEndpoint()
    settings: dict[str, Any] = {"max_connections": 2, "read_timeout_ms": read_timeout_ms}
    async with open_server(succeed, DETECTION, endpoint, **settings):
        found = await check_server(DETECTION, endpoint, **settings, **EVERYTHING)
    assert found.broken == (), told(found)
    assert found["S9"].verdict is Verdict.KEPT, told(found)


async def test_simulated_collectors_keep_every_rule(autojump_clock: MockClock) -> None:
    async with simulate_collector(max_frame_bytes=LIMIT) as collector:
        collector.places = 4
        settings: dict[str, Any] = {"max_frame_bytes": LIMIT, "max_connections": 4, "hostile": True}
        found = await check_server(DETECTION, collector.endpoint, **settings)
    assert found.broken == (), told(found)
    assert found.not_shown == ("S13", "S14", "S15"), told(found)

    async with simulate_reference() as collector:
        found = await check_server(
            DETECTION, collector.endpoint, crc32_variant="auto", max_connections=1, hostile=True
        )
    assert found.broken == (), told(found)
    assert found.not_shown == ("S13", "S14", "S15", "S23"), told(found)  # it has one place
    assert found["S3"].seen == "it speaks castagnoli; at ieee it closed"
    assert found["S22"].seen == "it closes without a word"


class FallsSilent(GoodServer):
    """Answers nobody once a frame was too large."""

    is_silent = False

    async def answer(self, stream: LocalStream, task: DetectionTask) -> None:
        if not self.is_silent:
            await super().answer(stream, task)

    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        self.is_silent = self.is_silent or str(exc) == "length"
        await super().violated(stream, exc)


class AnswersAndABit(GoodServer):
    async def answer(self, stream: LocalStream, task: DetectionTask) -> None:
        await stream.send_all(self.frame(self.result(task)) + b"bit")


class EndsWithABit(GoodServer):
    async def end(self, stream: LocalStream) -> None:
        await stream.send_all(b"bit")


class StaysWithABit(EndsWithABit):
    async def end(self, stream: LocalStream) -> None:
        await super().end(stream)
        await trio.sleep(5)  # longer than patience


class TakesLengthsOutOnOthers(GoodServer):
    """Closes all connections where one announces a frame that is too large, and for nothing else."""

    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        if str(exc) == "length":
            for scope in self.connections:
                scope.cancel()
        else:
            await super().violated(stream, exc)


# --- Broken ones --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_server_fails_where_it_is_broken(
    autojump_clock: MockClock, kind: type[GoodServer]
) -> None:
    found = await checked_by_hand(kind())
    assert found.broken == BROKEN[kind], told(found)
    assert not found.ok


def test_each_rule_but_that_of_the_file_has_a_server_that_breaks_it() -> None:
    assert {number for numbers in BROKEN.values() for number in numbers} == {*SERVER_RULES} - {"S13"}


@pytest.mark.parametrize(
    ("kind", "number", "seen"),
    [
        (hand_server.LengthTurnedRound, "S1", "in big-endian"),
        (hand_server.EmptyAnswers, "S1", "its length is 0; the limit max_frame_bytes is 4,096"),
        (hand_server.ChecksumTurnedRound, "S2", "is that of ieee with its bytes turned round"),
        (hand_server.AnswersInTheOtherVariant, "S3", "the request was in ieee, its response in castagnoli"),
        (hand_server.AnswersAnother, "S5", "the response has task_id 'another'"),
        (hand_server.AnswersOutOfOrder, "S7", "response 1 answers request 4"),
        (
            hand_server.HasNoLimit,
            "S16",
            "2 s after a header that announces 4,097 bytes the connection is still",
        ),
        (hand_server.BreaksDown, "S16", "the server serves nobody since then: no server: nobody listens"),
        (AnswersAndABit, "S6", "after the response came 3 bytes of a header"),
        (EndsWithABit, "S12", "after its last response came 3 bytes of a header"),
        (StaysWithABit, "S12", "after its last response came 3 bytes of a header"),
        (TakesLengthsOutOnOthers, "S23", "after others broke the protocol, a request: "),
        (FallsSilent, "S16", "the server serves nobody since then: a request on a new connection was not"),
        (hand_server.HasPlacesForEverybody, "S24", "11 connections were open at a time"),
    ],
)
async def test_it_says_what_was_seen(
    autojump_clock: MockClock, kind: type[GoodServer], number: str, seen: str
) -> None:
    assert seen in (await checked_by_hand(kind()))[number].seen


def test_after_each_look_that_breaks_the_protocol_the_server_is_asked_again() -> None:
    hostile = [look for look in servers._LOOKS if SERVER_RULES[look.rules[0]].hostile]
    assert len(hostile) > 5
    assert all(look.risky for look in hostile)


class SilentOnce(GoodServer):
    """Says nothing on its second connection, which is that of the first look."""

    came = 0

    async def serve(self, stream: LocalStream) -> None:
        self.came += 1
        if self.came == 2:
            await trio.sleep(60)
        await super().serve(stream)


async def test_a_look_that_it_did_not_come_to_is_not_shown_and_those_after_it_are_made(
    autojump_clock: MockClock,
) -> None:
    found = await checked_by_hand(SilentOnce(), crc32_variant="ieee")
    assert found["S6"].verdict is Verdict.NOT_SHOWN
    assert found["S6"].seen.startswith("a request on a new connection was not answered: ")
    assert found["S8"].verdict is found["S24"].verdict is Verdict.KEPT


@unix_only
async def test_a_socket_for_everybody_breaks_its_rule() -> None:
    with tempfile.TemporaryDirectory(prefix="ipc-", dir="/tmp") as directory:
        endpoint = SystemEndpoint(f"{directory}/s.sock")
        async with open_server(succeed, DETECTION, endpoint):
            Path(endpoint.path).chmod(0o666)
            found = await check_server(DETECTION, endpoint)
            assert found.broken == ()  # nobody else can pass the directory
            assert "of its directories others may not pass all" in found["S13"].seen
            Path(directory).chmod(0o755)
            found = await check_server(DETECTION, endpoint)
            assert found.broken == ("S13",)
            assert found["S13"].seen.startswith("its mode is 0666")
            Path(endpoint.path).chmod(0o600)
            Path(directory).chmod(0o777)
            found = await check_server(DETECTION, endpoint)
            assert found.broken == ("S13",)
            Path(directory).chmod(stat.S_ISVTX | 0o777)
            assert (await check_server(DETECTION, endpoint)).broken == ()


# --- What is asked for --------------------------------------------------------------------------------------


async def test_nothing_that_is_forbidden_is_sent_unless_it_is_asked_for(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint()
    async with open_server(succeed, DETECTION, endpoint, crc32_variant="auto") as server:
        found = await check_server(DETECTION, endpoint, crc32_variant="auto")
        counted = server.snapshot()
    assert found.ok
    assert found.not_shown == ("S13", "S14", "S15", *(f"S{number}" for number in range(16, 25)))
    assert "hostile bytes, which were not asked for" in found["S17"].seen
    assert "the read deadline, which was not asked for" in found["S14"].seen
    assert counted.connections_closed == {"peer_closed": counted.connections_accepted} or (
        counted.connections_closed["protocol_error"] == 0
    )


async def test_each_finding_is_told_once(autojump_clock: MockClock) -> None:
    seen: list[Finding] = []
    found = await checked_by_hand(GoodServer(), on_finding=seen.append)
    assert sorted(one.rule.number for one in seen) == sorted(SERVER_RULES)
    assert {*seen} == {*found.findings}


async def test_the_result_is_plain_values_too(autojump_clock: MockClock) -> None:
    found = (await checked_by_hand(hand_server.AnswersTwice())).as_dict()
    assert (found["endpoint"], found["side"], found["ok"]) == (MemoryEndpoint().path, "server", False)
    assert found["rules"][5] == {
        "rule": "S6",
        "says": "A request has one response.",
        "verdict": "broken",
        "seen": "after the response came another frame, of 63 bytes",
    }


async def test_a_server_that_never_answers_is_told_in_time(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint()
    async with open_server(hang, DETECTION, endpoint, handler_timeout_ms=1_000_000):
        began = trio.current_time()
        found = await check_server(DETECTION, endpoint, read_timeout_ms=5_000, **EVERYTHING)
    assert trio.current_time() - began < 6
    assert found.broken == ("S1",)
    assert found["S1"].seen == "a request was not answered: nothing came within 5 s"
    assert found["S9"].seen == "no request was answered"


async def test_a_server_that_speaks_another_variant_is_told(autojump_clock: MockClock) -> None:
    async with simulate_reference() as collector:
        found = await check_server(DETECTION, collector.endpoint, crc32_variant=Crc32Variant.IEEE)
    assert found.broken == ("S1",)
    assert "checksum variant tried: ieee" in found["S1"].seen


async def test_without_a_server_it_is_an_error() -> None:
    with pytest.raises(ServerNotFoundError):
        await check_server(DETECTION, MemoryEndpoint())


async def test_a_contract_that_cannot_tell_answers_apart(autojump_clock: MockClock) -> None:
    loose = Contract(name="loose", request_type=DetectionTask, response_type=DetectionResult)
    endpoint = MemoryEndpoint()
    with pytest.raises(TypeError, match="the contract loose has no negotiation: give a harmless request"):
        await check_server(loose, endpoint)
    async with open_server(succeed, loose, endpoint, max_connections=2):
        found = await check_server(
            loose, endpoint, max_connections=2, request=lambda: DetectionTask(task_id="1"), **EVERYTHING
        )
        assert found.broken == (), told(found)
        assert found.not_shown == ("S5", "S7", "S13"), told(found)
        with pytest.raises(MessageEmptyError):
            await check_server(loose, endpoint, request=DetectionTask)
        with pytest.raises(TypeError, match="the request is a DetectionResult"):
            await check_server(loose, endpoint, request=DetectionResult)  # type: ignore[arg-type]


@pytest.mark.parametrize("patience", [-1, "2", float("nan")])
async def test_patience_is_a_number_of_seconds(patience: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="patience"):
        await check_server(DETECTION, MemoryEndpoint(), patience=patience)


async def test_a_cancelled_check_leaves_no_connection(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint()
    async with open_server(hang, DETECTION, endpoint) as server:
        with trio.move_on_after(1):
            await check_server(DETECTION, endpoint)
        await trio.sleep(1)  # in which the server has a look at the client of a handler
        assert server.snapshot().connections_active == 0


# --- Frames by hand -----------------------------------------------------------------------------------------


def test_a_message_is_padded_to_every_size() -> None:
    payload = DetectionTask(task_id="t").SerializeToString()
    assert padded(payload, len(payload)) == payload
    assert padded(payload, len(payload) + 5) is None
    for more in [*range(6, 300), *range(16_380, 16_410)]:
        made = padded(payload, len(payload) + more)
        assert made is not None
        assert len(made) == len(payload) + more
        assert DetectionTask.FromString(made).task_id == "t"


def test_frames_are_those_of_the_vectors() -> None:
    file = Path(os.path.dirname(__file__), os.pardir, "vectors", "frames.json")
    vectors = json.loads(file.read_text(encoding="utf-8"))
    for vector in vectors["valid"]:
        whole = bytes.fromhex(vector["frame_hex"])
        assert framed(whole[8:], Crc32Variant(vector["crc32_variant"])) == whole
        assert damaged(whole[8:], Crc32Variant(vector["crc32_variant"])) != whole


async def test_what_would_take_too_much_is_not_tried(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint()
    settings: dict[str, Any] = {"max_frame_bytes": 2**31 - 1, "max_connections": 10_000}
    async with open_server(succeed, DETECTION, endpoint, **settings):
        found = await check_server(DETECTION, endpoint, hostile=True, **settings)
    assert found.broken == (), told(found)
    assert found["S10"].seen == "the limit is 2,147,483,647 bytes: more than 67,108,864 are not tried"
    assert found["S24"].seen == "it takes 20,004 connections; 500 are tried at the most"
