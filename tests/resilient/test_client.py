"""A call's way through several servers."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from tests.support import MIB, hang, succeed, success, task
from trio_ipc import (
    Call,
    ConfigError,
    EndpointPermissionError,
    IpcConfig,
    MessageEmptyError,
    MessageTooLargeError,
    PeerClosedError,
    ReadTimeoutError,
    UndecodableMessageError,
)
from trio_ipc.daemoneye import (
    DetectionResult,
    DetectionTask,
    failed,
)
from trio_ipc.errors import (
    AttemptsFailedError,
    NoEndpointError,
)
from trio_ipc.resilient import Endpoint, Strategy
from trio_ipc.testing import MemoryStream

from .support import (
    UNREPEATABLE,
    A,
    B,
    C,
    DetectionResilientClient,
    FakeServer,
    calling,
    path_of,
    servers,
)


async def fail(task: DetectionTask, _: Call) -> DetectionResult:
    return failed(task, "no such process")


async def who_answered(client: DetectionResilientClient, count: int) -> str:
    return "".join([(await client.ask(task(str(number)))).endpoint_id for number in range(count)])


# --- Which server -------------------------------------------------------------------------------------------


async def test_a_new_client_works_on_its_first_call(autojump_clock: MockClock) -> None:
    for strategy in Strategy:
        async with calling(*servers("abc"), strategy=strategy) as client:
            answer = await client.ask(task())
            assert (answer.response, answer.attempts) == (success(), ())
            assert [one.healthy for one in client.statistics()] == [True] * 3


async def test_calls_go_round(autojump_clock: MockClock) -> None:
    async with calling(*servers("abc")) as client:
        assert await who_answered(client, 6) == "abcabc"


async def test_priority_prefers_the_smallest_number_as_long_as_it_is_well(autojump_clock: MockClock) -> None:
    one, two = servers("ab")
    async with calling(one, two, strategy="priority", priorities=[2, 1]) as client:
        assert await who_answered(client, 3) == "bbb"
        two.crash()
        assert await who_answered(client, 3) == "aaa"
        two.restart()
        await trio.sleep(30)
        assert await who_answered(client, 3) == "bbb"


async def test_weighted_calls_follow_the_scores(autojump_clock: MockClock) -> None:
    async with calling(*servers("ab"), strategy="weighted", priorities=[1, 4], seed=7) as client:
        shares = Counter(await who_answered(client, 500))
        assert 360 < shares["a"] < 440  # 4 of 5


async def test_endpoints_come_and_go_while_calls_are_made(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    async with calling(a, b) as client:
        client.remove_endpoint("b")
        assert await who_answered(client, 2) == "aa"
        client.add_endpoint(b.endpoint())
        assert await who_answered(client, 2) == "ba"
        with pytest.raises(ConfigError, match=f"{B}: there is an endpoint of the id 'b' already"):
            client.add_endpoint(b.endpoint())
        with pytest.raises(NoEndpointError, match="there is no endpoint 'c'; there are: a, b"):
            client.remove_endpoint("c")
        client.remove_endpoint("a")
        client.remove_endpoint("b")
        with pytest.raises(NoEndpointError, match="no endpoint to ask"):
            await client.call(task())


async def test_an_endpoint_is_called_by_its_path_unless_it_has_an_id() -> None:
    assert Endpoint(IpcConfig(endpoint_path=path_of("x"))).id == path_of("x")
    with pytest.raises(ConfigError, match="priority is 0"):
        Endpoint(IpcConfig(), priority=0)


async def test_where_none_is_healthy_the_one_that_failed_longest_ago_is_asked_first(
    autojump_clock: MockClock,
) -> None:
    three = servers("abc")
    async with calling(*three) as client:
        for name in "bca":
            client._upstreams[name].failed()
            await trio.sleep(1)
        assert not any(one.healthy for one in client.statistics())
        assert await who_answered(client, 1) == "b"


# --- Failover -----------------------------------------------------------------------------------------------


def undecodable(server: FakeServer) -> None:
    """Make the server's end answer by what is no message."""
    for channel, stream in zip(server.channels, server.streams, strict=True):

        def send_nowait(_: object, stream: MemoryStream = stream) -> bool:
            stream.write(bytes.fromhex("040000007fc95c840a02fffe"))
            return True

        channel.send_nowait = send_nowait  # type: ignore[method-assign, assignment]


async def test_a_server_that_is_not_there_is_passed_over(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    a.crash()
    async with calling(a, b) as client:
        answer = await client.ask(task())
        assert (answer.endpoint_id, trio.current_time()) == ("b", 0), "nobody waited for the dead one"
        assert [type(error).__name__ for error in answer.attempts] == ["ServerRefusedError"]
        first, second = client.statistics()
        assert (first.healthy, first.failures, first.breaker.failures) == (False, 1, 1)
        assert (second.healthy, second.answers) == (True, 1)
        assert await who_answered(client, 3) == "bbb"
        await trio.sleep(30)
        a.restart()
        assert set(await who_answered(client, 4)) == {"a", "b"}, "it was given another chance"


@pytest.mark.parametrize("how", ["hangs", "garbage", "permission"])
async def test_one_that_fails_is_asked_once_and_another_answers(autojump_clock: MockClock, how: str) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)
    async with calling(a, b) as client:
        expected: type[Exception] = ReadTimeoutError
        if how == "hangs":
            a.handler = hang
        elif how == "garbage":
            await client.call(task("warm-up"))
            await client.call(task("warm-up"))
            undecodable(a)
            expected = UndecodableMessageError
        else:
            a.failing = EndpointPermissionError("no", endpoint=A)
            expected = EndpointPermissionError
        answer = await client.ask(task("x"))
        assert answer.endpoint_id == "b"
        [error] = answer.attempts
        assert isinstance(error, expected)
        assert error.endpoint == A
        assert a.asked.count("x") <= 1


async def test_every_server_is_asked_once_and_the_error_tells_of_each(autojump_clock: MockClock) -> None:
    three = [FakeServer(name, hang, read_timeout_ms=1_000) for name in "abc"]
    async with calling(*three) as client:
        with pytest.raises(
            AttemptsFailedError, match=f"no server answered, 3 attempts failed: {A}: .*{B}: .*{C}: "
        ) as caught:
            await client.call(task())
        assert [error.endpoint for error in caught.value.attempts] == [A, B, C]
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert caught.value.__cause__.exceptions == caught.value.attempts
        assert [one.asked for one in three] == [["t"]] * 3
        assert trio.current_time() == pytest.approx(3)


async def test_a_failed_result_is_a_response(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a", fail), FakeServer("b", fail)
    async with calling(a, b) as client:
        assert (await client.call(task())).error_message == "no such process"
        assert (a.asked, b.asked) == (["t"], [])
        assert client.statistics()[0].healthy


async def test_a_server_that_restarts_under_a_call_is_asked_once_more(autojump_clock: MockClock) -> None:
    server = FakeServer("a")

    async def crash_once(task: DetectionTask, _: Call) -> DetectionResult:
        if server.asked.count(task.task_id) == 1:
            server.crash()
            await trio.sleep_forever()
        return success(task.task_id)

    server.handler = crash_once
    async with calling(server) as client, trio.open_nursery() as nursery:

        async def restart() -> None:
            await trio.sleep(0.5)
            server.restart()

        nursery.start_soon(restart)
        assert await client.call(task("x")) == success("x")
        assert server.asked == ["x", "x"]


async def test_but_not_more_than_once(autojump_clock: MockClock) -> None:
    server = FakeServer("a")

    async def crash(_task: DetectionTask, _call: Call) -> DetectionResult:
        server.drop_connections()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    server.handler = crash
    async with calling(server) as client:
        with pytest.raises(AttemptsFailedError) as caught:
            await client.call(task("x"))
        assert server.asked == ["x", "x"]
        assert [type(error) for error in caught.value.attempts] == [PeerClosedError] * 2
        assert client.statistics()[0].breaker.failures == 1


# --- What may not be repeated -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hangs", "closes", "garbage"])
async def test_a_call_that_may_have_reached_a_server_is_not_repeated_unless_that_is_harmless(
    autojump_clock: MockClock, how: str
) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)
    async with calling(a, b, contract=UNREPEATABLE) as client:
        await client.call(task("1"))
        await client.call(task("2"))

        async def close(_task: DetectionTask, _call: Call) -> DetectionResult:
            a.drop_connections()
            return await hang(_task, _call)

        a.handler = {"hangs": hang, "closes": close, "garbage": succeed}[how]
        if how == "garbage":
            undecodable(a)
        expected = {"hangs": ReadTimeoutError, "closes": PeerClosedError, "garbage": UndecodableMessageError}
        with pytest.raises(expected[how]):
            await client.call(task("x"))
        assert a.asked.count("x") + b.asked.count("x") == 1


async def test_but_one_that_reached_nobody_goes_to_another(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    a.crash()
    async with calling(a, b, contract=UNREPEATABLE) as client:
        assert (await client.ask(task())).endpoint_id == "b"


# --- What is the caller's fault -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "error"),
    [(DetectionTask(), MessageEmptyError), (DetectionTask(task_id="x" * MIB), MessageTooLargeError)],
)
@pytest.mark.parametrize("max_in_flight", [1, 8])
async def test_a_request_that_cannot_be_sent_is_the_callers_error(
    autojump_clock: MockClock, request_: DetectionTask, error: type[Exception], max_in_flight: int
) -> None:
    a, b = servers("ab")
    async with calling(a, b, max_in_flight=max_in_flight) as client:
        with pytest.raises(error, match=f"^{A}: "):
            await client.call(request_)
        assert client.statistics()[0].failures == 0
        assert client.metrics().pooled_connections_current == 1, "and the connection is good"
        assert b.tries == 0


async def test_a_request_of_another_type_is_a_type_error(autojump_clock: MockClock) -> None:
    async with calling(FakeServer("a")) as client:
        with pytest.raises(TypeError, match="the request is a DetectionResult, must be a DetectionTask"):
            await client.call(DetectionResult())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the contract plain has no negotiation"):
            await client.call(task(), needs=lambda _: True)
        assert client.metrics().tasks_sent_total == 0
