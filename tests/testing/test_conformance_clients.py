"""The checker as a server: our clients keep every rule; others break just theirs."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.testing.hand_client import BROKEN, LIMIT, READ_TIMEOUT, GoodClient, ViolationError
from tests.testing.test_conformance_servers import told
from trio_ipc import (
    Contract,
    Crc32Variant,
    Endpoint,
    EndpointInUseError,
    IpcError,
    MessageEmptyError,
    open_resilient_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import IpcEndpoint, MemoryEndpoint, open_client_at, temporary_endpoint
from trio_ipc.testing.conformance import CLIENT_RULES, Conformance, Finding, check_client
from trio_ipc.testing.conformance.frames import End, RawConnection, framed

EVERYTHING: dict[str, Any] = {"hostile": True, "deadlines": True}
SETTINGS: dict[str, Any] = {"max_frame_bytes": LIMIT, "read_timeout_ms": int(1000 * READ_TIMEOUT)}


async def checked(endpoint: IpcEndpoint, client: Any, *arguments: Any, **options: Any) -> Conformance:
    """Check what comes while this async function runs, which is cancelled in the end."""
    found: list[Conformance] = []
    options = {"answer": succeed, "crc32_variant": "auto", **SETTINGS, **EVERYTHING, **options}

    async def check(*, task_status: trio.TaskStatus[None]) -> None:
        found.append(await check_client(DETECTION, endpoint, task_status=task_status, **options))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(check)
        nursery.start_soon(client, endpoint, *arguments)
    return found[0]


def succeed(task: DetectionTask) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True)


async def asks_on(endpoint: IpcEndpoint, settings: dict[str, Any]) -> None:
    """Our client, on a new connection after each failure."""
    for number in range(1_000):
        try:
            async with open_client_at(DETECTION, endpoint, **settings) as client:
                while True:
                    await client.call(DetectionTask(task_id=str(number)))
                    await trio.sleep(0.05)
        except IpcError:
            pass


async def asks_resiliently(endpoint: MemoryEndpoint, settings: dict[str, Any]) -> None:
    config = endpoint.config(**settings)
    async with open_resilient_client(DETECTION, [Endpoint(config)], connect=endpoint.open_channel) as client:
        for number in itertools.count():
            with contextlib.suppress(IpcError):
                await client.call(DetectionTask(task_id=str(number)))
            await trio.sleep(0.05)


async def asks_once_each_time(endpoint: IpcEndpoint) -> None:
    """A program that is run again and again."""
    for number in range(1_000):
        try:
            async with open_client_at(DETECTION, endpoint, **SETTINGS) as client:
                await client.call(DetectionTask(task_id=str(number)))
        except IpcError:
            pass


# --- Good ones ----------------------------------------------------------------------------------------------


async def test_a_client_by_hand_keeps_every_rule(autojump_clock: MockClock) -> None:
    found = await checked(MemoryEndpoint(), GoodClient().run)
    assert found.kept == tuple(CLIENT_RULES), told(found)
    assert found.ok


@pytest.mark.parametrize("variant", ["ieee", "castagnoli", "auto"])
async def test_our_client_keeps_every_rule(autojump_clock: MockClock, variant: str) -> None:
    found = await checked(MemoryEndpoint(), asks_on, {**SETTINGS, "crc32_variant": variant})
    assert found.kept == tuple(CLIENT_RULES), told(found)


async def test_our_resilient_client_keeps_every_rule(autojump_clock: MockClock) -> None:
    found = await checked(MemoryEndpoint(), asks_resiliently, SETTINGS)
    assert found.broken == (), told(found)
    assert {*CLIENT_RULES} - {*found.kept} <= {"C14"}, told(found)


@pytest.mark.parametrize("transport", ["interprocess", "legacy"])
async def test_our_clients_keep_every_rule_over_what_the_system_has(transport: str) -> None:
    settings = {**SETTINGS, "read_timeout_ms": 300}
    with temporary_endpoint(transport) as endpoint:
        found = await checked(endpoint, asks_on, settings, patience=1.0, read_timeout_ms=300)
    assert found.broken == (), told(found)
    assert {*CLIENT_RULES} - {*found.kept} <= {"C12"}, told(found)  # pipes have no half-close


async def test_a_deadline_shorter_than_all_pauses_between_bytes_is_kept_to(autojump_clock: MockClock) -> None:
    found = await checked(MemoryEndpoint(), asks_on, {**SETTINGS, "read_timeout_ms": 50}, read_timeout_ms=50)
    assert found.kept == tuple(CLIENT_RULES), told(found)


async def test_of_a_client_that_asks_once_some_things_cannot_be_seen(autojump_clock: MockClock) -> None:
    found = await checked(MemoryEndpoint(), asks_once_each_time)
    assert found.broken == (), told(found)
    assert found.not_shown == ("C5", "C6"), told(found)
    assert found["C5"].seen == "whether it was taken cannot be seen: it closed after it"


async def test_of_a_client_that_asks_ahead_its_next_request_shows_nothing(autojump_clock: MockClock) -> None:
    async def ask_two_and_leave(endpoint: IpcEndpoint) -> None:
        client = GoodClient()
        while True:
            async with await endpoint.connect() as stream:
                await stream.send_all(client.frame(client.task(1)) + client.frame(client.task(2)))
                with contextlib.suppress(ViolationError, trio.BrokenResourceError):
                    await client.receive(stream)
                client.buffer = b""
            await trio.sleep(0.1)

    found = await checked(MemoryEndpoint(), ask_two_and_leave, hostile=False, deadlines=False)
    assert found.broken == (), told(found)
    assert found.not_shown[:2] == ("C5", "C6"), told(found)


# --- Broken ones --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_client_fails_where_it_is_broken(
    autojump_clock: MockClock, kind: type[GoodClient]
) -> None:
    found = await checked(MemoryEndpoint(), kind().run)
    assert found.broken == BROKEN[kind], told(found)


def test_each_rule_has_a_client_that_breaks_it() -> None:
    assert {number for numbers in BROKEN.values() for number in numbers} == {*CLIENT_RULES}


async def test_a_client_of_another_variant_than_is_set_is_told(autojump_clock: MockClock) -> None:
    found = await checked(MemoryEndpoint(), GoodClient().run, crc32_variant="castagnoli", hostile=False)
    assert found.broken == ("C3",)
    assert found["C3"].seen == "it speaks ieee, the setting crc32_variant is castagnoli"


# --- How it ends --------------------------------------------------------------------------------------------


async def test_nothing_that_is_forbidden_is_sent_unless_it_is_asked_for(autojump_clock: MockClock) -> None:
    client = GoodClient()
    found = await checked(MemoryEndpoint(), client.run, hostile=False, deadlines=False)
    assert found.kept == tuple(f"C{number}" for number in range(1, 7))
    assert client.answers in {4, 5}  # a plain one, two in their ways, and who asked last is answered


async def test_it_ends_when_nobody_comes_or_asks_any_more(autojump_clock: MockClock) -> None:
    found = await check_client(DETECTION, MemoryEndpoint(), wait=5.0)
    assert trio.current_time() == pytest.approx(5.0)
    assert found.kept == found.broken == ()
    assert not found.ok
    assert found["C1"].seen == "no client came"

    async def ask_once(endpoint: MemoryEndpoint) -> None:
        async with open_client_at(DETECTION, endpoint, **SETTINGS) as client:
            await client.call(DetectionTask(task_id="1"))

    found = await checked(MemoryEndpoint(), ask_once, wait=5.0)
    assert found.kept == ("C1", "C2", "C3", "C4")
    assert "run the client again while this listens" in found["C8"].seen


async def test_it_ends_when_a_client_asks_on_and_nothing_more_can_be_seen_of_it(
    autojump_clock: MockClock,
) -> None:
    async def asks_ahead_and_stays(endpoint: MemoryEndpoint) -> None:
        async with RawConnection(await endpoint.connect(), LIMIT) as connection:
            asked = framed(DetectionTask(task_id="1").SerializeToString(), Crc32Variant.IEEE)
            await connection.send(asked * 3, 1)
            while await connection.frame(1) is not End.CLOSED:
                await trio.sleep(0.5)
                await connection.send(asked, 1)

    with trio.fail_after(600):
        found = await checked(
            MemoryEndpoint(), asks_ahead_and_stays, hostile=False, deadlines=False, wait=10.0
        )
    assert "the client asks ahead" in found["C5"].seen
    assert "C6" in found.kept


async def test_it_ends_when_it_is_told_to_with_what_was_seen(autojump_clock: MockClock) -> None:
    stop = trio.Event()

    async def ask_once(endpoint: MemoryEndpoint) -> None:
        async with open_client_at(DETECTION, endpoint, **SETTINGS) as client:
            await client.call(DetectionTask(task_id="1"))
            stop.set()

    found = await checked(MemoryEndpoint(), ask_once, stop=stop)
    assert trio.current_time() < 1
    assert found.kept == ("C1", "C2", "C3", "C4")


async def test_each_finding_is_told_once(autojump_clock: MockClock) -> None:
    seen: list[Finding] = []
    found = await checked(MemoryEndpoint(), GoodClient().run, on_finding=seen.append)
    assert sorted(one.rule.number for one in seen) == sorted(CLIENT_RULES)
    assert {*seen} == {*found.findings}


async def test_it_listens_where_nobody_else_does_and_leaves_nothing_behind() -> None:
    with temporary_endpoint() as endpoint:
        stop = trio.Event()
        stop.set()
        listener = await endpoint.listen_streams()
        async with listener:
            with pytest.raises(EndpointInUseError):
                await check_client(DETECTION, endpoint)
        assert not (await check_client(DETECTION, endpoint, stop=stop)).ok
        async with await endpoint.listen_streams():
            pass


async def test_a_response_that_cannot_be_sent_is_an_error_of_its_own(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await checked(MemoryEndpoint(), asks_once_each_time, answer=lambda _: DetectionResult())
    assert raised.group_contains(MessageEmptyError, depth=1)


async def test_a_contract_without_failures_is_answered_all_the_same(autojump_clock: MockClock) -> None:
    loose = Contract(name="loose", request_type=DetectionTask, response_type=DetectionResult)
    endpoint = MemoryEndpoint()

    async def ask(place: IpcEndpoint) -> None:
        for number in range(1_000):
            try:
                async with open_client_at(loose, place, **SETTINGS) as client:
                    while True:
                        await client.call(DetectionTask(task_id=str(number)))
                        await trio.sleep(0.05)  # or the clock would never jump
            except IpcError:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, endpoint)
        found = await check_client(loose, endpoint, **SETTINGS, **EVERYTHING)
        nursery.cancel_scope.cancel()
    assert found.broken == (), told(found)
    assert found.not_shown == ("C13",), told(found)


@pytest.mark.parametrize("name", ["patience", "wait"])
async def test_seconds_are_numbers(name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        await check_client(DETECTION, MemoryEndpoint(), **cast(Any, {name: -1}))


async def test_what_is_no_response_is_told_as_what_it_is(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await checked(MemoryEndpoint(), asks_once_each_time, answer=lambda request: request)
    assert raised.group_contains(
        TypeError, match="answer returned DetectionTask, must be DetectionResult", depth=1
    )
