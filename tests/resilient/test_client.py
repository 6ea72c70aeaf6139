"""A call's way through several servers."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import MIB, frame, hang, succeed, success, task
from trio_ipc import (
    Call,
    Channel,
    ChannelClosedError,
    ConfigError,
    EndpointPermissionError,
    FramedChannel,
    IpcConfig,
    MessageEmptyError,
    MessageTooLargeError,
    PeerClosedError,
    ReadTimeoutError,
    ServerRefusedError,
    UndecodableMessageError,
)
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
    failed,
)
from trio_ipc.errors import (
    AttemptsFailedError,
    CallTimeoutError,
    CircuitOpenError,
    NoEndpointError,
    PoolTimeoutError,
)
from trio_ipc.resilient import BreakerState, Endpoint, ResilientConfig, Strategy, open_resilient_client
from trio_ipc.resilient.calls import PendingCall
from trio_ipc.testing import MemoryStream, memory_streams

from .support import (
    PLAIN,
    UNREPEATABLE,
    A,
    B,
    C,
    DetectionResilientClient,
    FakeServer,
    Servers,
    calling,
    path_of,
)


async def fail(task: DetectionTask, _: Call) -> DetectionResult:
    return failed(task, "no such process")


def servers(names: str, **settings: Any) -> list[FakeServer]:
    return [FakeServer(name, **settings) for name in names]


async def who_answered(client: DetectionResilientClient, count: int) -> str:
    return "".join([(await client.ask(task(str(number)))).endpoint_id for number in range(count)])


# --- Which server --------------------------------------------------------------------------------------


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


# --- Failover ---------------------------------------------------------------------------------------------


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
            AttemptsFailedError, match=f"no server answered, 3 tries failed: {A}: .*{B}: .*{C}: "
        ) as caught:
            await client.call(task())
        assert [error.endpoint for error in caught.value.attempts] == [A, B, C]
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert caught.value.__cause__.exceptions == caught.value.attempts
        assert [one.asked for one in three] == [["t"]] * 3
        assert trio.current_time() == pytest.approx(3)


async def test_a_failed_result_is_an_answer(autojump_clock: MockClock) -> None:
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


# --- What may not be repeated -----------------------------------------------------------------------------


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


# --- Circuit breakers -------------------------------------------------------------------------------------


async def open_breaker(client: DetectionResilientClient) -> None:
    for _ in range(5):
        with pytest.raises(ReadTimeoutError):
            await client.call(task())


async def test_five_failed_calls_open_the_breaker_and_the_next_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await open_breaker(client)
        asked = len(server.asked)
        began = trio.current_time()
        with pytest.raises(
            CircuitOpenError, match=f"{A}: left alone after 5 failures in a row.*30.0 s"
        ) as caught:
            await client.call(task())
        assert (trio.current_time(), len(server.asked)) == (began, asked)
        assert caught.value.retry_after == 30
        assert client.metrics().circuit_breaker_activations_total == 1


async def test_an_open_breaker_is_not_waited_for_where_another_server_is_only_away(
    autojump_clock: MockClock,
) -> None:
    a, b = servers("ab", read_timeout_ms=1_000)
    a.handler = hang
    b.crash()
    async with calling(a, b) as client, trio.open_nursery() as nursery:
        for _ in range(5):
            client._upstreams["a"].breaker.admit().fail()  # type: ignore[union-attr]

        async def come_back() -> None:
            await trio.sleep(1)
            b.restart()

        nursery.start_soon(come_back)
        answer = await client.ask(task())
        assert answer.endpoint_id == "b"
        assert sum(isinstance(error, CircuitOpenError) for error in answer.attempts) == 1


async def test_all_breakers_open_is_one_error_that_says_when_to_come_again(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    async with calling(a, b) as client:
        for name in "ab":
            for _ in range(5):
                client._upstreams[name].breaker.admit().fail()  # type: ignore[union-attr]
            await trio.sleep(10)
        with pytest.raises(CircuitOpenError, match=f"all 2 endpoints are left alone.*{A}: .*{B}: ") as caught:
            await client.call(task())
        assert caught.value.retry_after == 10
        assert len(caught.value.attempts) == 2


async def test_one_call_at_a_time_tries_a_half_open_server_and_three_close_it(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await open_breaker(client)
        await trio.sleep(30)
        release = trio.Event()

        async def wait(task: DetectionTask, _: Call) -> DetectionResult:
            await release.wait()
            return success(task.task_id)

        server.handler = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.call, task("probe"), timeout=1))
            await wait_all_tasks_blocked()
            with pytest.raises(
                CircuitOpenError, match="left alone until the one call that tries it .* come again in 1.0 s"
            ) as caught:
                await client.call(task("other"))
            assert caught.value.retry_after == 1
            release.set()
        for successes in 1, 2:
            assert client.statistics()[0].breaker.state is BreakerState.HALF_OPEN
            assert client.statistics()[0].breaker.successes == successes
            await client.call(task())
        assert client.statistics()[0].breaker.state is BreakerState.CLOSED
        assert "other" not in server.asked


async def test_who_sleeps_as_long_as_it_is_told_does_not_spin(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    refusals = 0
    async with calling(server, call_timeout_ms=4_000) as client, trio.open_nursery() as nursery:
        await open_breaker(client)

        async def patient() -> None:
            nonlocal refusals
            while True:
                try:
                    await client.call(task())
                except CircuitOpenError as exc:
                    refusals += 1
                    assert refusals <= 10 * 3 * 2, "which is where the clock stands still, if it spins"
                    await trio.sleep(exc.retry_after)
                except ReadTimeoutError:
                    pass

        for _ in range(3):
            nursery.start_soon(patient)
        await trio.sleep(310)  # ten times 30 s open, 1 s with a probe
        assert refusals > 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("as_it", ["cannot do the task", "is turned away", "has no connection in time"])
async def test_a_call_that_goes_on_to_another_server_makes_room_for_the_next_probe(
    autojump_clock: MockClock, as_it: str
) -> None:
    a, b = servers("ab", read_timeout_ms=1_000_000)
    network = DetectionTask(task_id="n", task_type=TaskType.MONITOR_NETWORK_CONNECTIONS)
    settings: dict[str, Any] = {"strategy": "priority", "priorities": [1, 2], "pool_timeout_ms": 1_000}
    async with (
        calling(a, b, contract=DETECTION, max_connections_per_endpoint=1, **settings) as client,
        trio.open_nursery() as nursery,
    ):
        b.handler = CapabilityGate(hang, Capabilities([MonitoringDomain.NETWORK]))
        a.handler = b.handler
        if as_it == "cannot do the task":
            a.handler = CapabilityGate(hang, Capabilities([MonitoringDomain.PROCESS]))
        else:
            # Its only connection is in use by a call from before its breaker opened.
            nursery.start_soon(partial(client.call, network, timeout=1000))
            await wait_all_tasks_blocked()
            a.asked.clear()
        for _ in range(5):
            client._upstreams["a"].breaker.admit().fail()  # type: ignore[union-attr]
        await trio.sleep(30)
        nursery.start_soon(partial(client.call, network, timeout=1000))
        await wait_all_tasks_blocked()
        if as_it == "is turned away":
            assert client.statistics()[0].breaker.probing
            client._upstreams["a"].failed()
        elif as_it == "has no connection in time":
            assert client.statistics()[0].breaker.probing
            await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert b.asked[-1] == "n"
        assert "n" not in a.asked
        said = client.statistics()[0].breaker
        assert (said.state, said.probing) == (BreakerState.HALF_OPEN, False)
        nursery.cancel_scope.cancel()


async def test_a_probe_that_cannot_connect_opens_it_again_without_trying_longer(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await open_breaker(client)
        await trio.sleep(30)
        server.crash()
        tries = server.tries
        await wait_all_tasks_blocked()
        with pytest.raises(ServerRefusedError, match="connection refused"):
            await client.call(task())
        assert server.tries == tries + 1
        assert client.statistics()[0].breaker.state is BreakerState.OPEN


async def test_a_cancelled_probe_makes_room_for_the_next(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await open_breaker(client)
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task())
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        said = client.statistics()[0].breaker
        assert (said.state, said.probing) == (BreakerState.HALF_OPEN, False)
        server.handler = succeed
        await client.call(task())


# --- Deadlines and cancellation ----------------------------------------------------------------------------


async def test_one_deadline_holds_over_failover_retry_and_waiting(autojump_clock: MockClock) -> None:
    a, b, c = servers("abc", read_timeout_ms=2_000)
    a.handler = b.handler = hang
    c.crash()
    async with calling(a, b, c) as client:
        with pytest.raises(
            CallTimeoutError, match=f"timeout of 4500 ms; .*tries had failed: .*{A}: .*{B}: "
        ) as caught:
            await client.call(task(), timeout=4.5)
        assert trio.current_time() == pytest.approx(4.5)
        assert len(caught.value.attempts) >= 3
        assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_the_default_deadline_is_the_settings(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=100_000)
    async with calling(server, call_timeout_ms=7_000) as client:
        with pytest.raises(CallTimeoutError, match=f"^{A}: .*it was waiting for the answer of {A}; see what"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(7)
        [said] = client.statistics()
        assert (said.failures, said.breaker.failures, said.healthy) == (1, 1, False), "it had its time"
        assert server.connections.now == 0, "the answer may still come: nobody must read it"


async def test_a_call_that_took_too_long_says_where_the_time_went(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a", hang, read_timeout_ms=3_000), FakeServer("b", hang, read_timeout_ms=60_000)
    settings: dict[str, Any] = {"contract": UNREPEATABLE, "max_connections_per_endpoint": 1}
    async with (
        calling(a, b, strategy="priority", priorities=[1, 2], **settings) as client,
        trio.open_nursery() as nursery,
    ):

        async def hold_a_for_3_s() -> None:
            with pytest.raises(ReadTimeoutError):
                await client.call(task("holds"))

        nursery.start_soon(hold_a_for_3_s)
        await wait_all_tasks_blocked()
        with pytest.raises(
            CallTimeoutError,
            match=f"^{A}: .*timeout of 5000 ms; it was waiting for the answer of {B}; "
            f"it had spent 3000 ms waiting for a connection to {A}, 2000 ms waiting for the answer of {B}; "
            "make fewer calls at a time",
        ):
            await client.call(task("x"), timeout=5)
        nursery.cancel_scope.cancel()


async def test_a_deadline_while_connecting_is_the_servers_failure(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.connecting = trio.sleep_forever
    async with calling(server) as client:
        with pytest.raises(
            CallTimeoutError, match=f"^{A}: .*it was connecting to {A}; see whether"
        ) as caught:
            await client.call(task(), timeout=1)
        assert "lower accept_timeout_ms" in caught.value.hint
        assert client.statistics()[0].breaker.failures == 1
        assert client.metrics().connection_failures_total == 1


@pytest.mark.parametrize("at", ["connecting", "waiting for the answer", "waiting to connect again"])
async def test_a_cancelled_call_is_cancelled_and_blames_nobody(autojump_clock: MockClock, at: str) -> None:
    server = FakeServer("a", hang)
    if at == "connecting":
        server.connecting = trio.sleep_forever
    elif at == "waiting to connect again":
        server.crash()
    async with calling(server) as client:
        with trio.move_on_after(0.05) as scope:
            await client.call(task())
        assert scope.cancelled_caught
        assert client.statistics()[0].breaker.failures == 0
        assert client.metrics().active_connections_current == 0
        assert server.connections.now == 0, "the connection was not kept"
        server.handler, server.connecting = succeed, trio.lowlevel.checkpoint
        server.restart()
        assert await client.call(task("next")) == success("next")


async def test_a_call_is_a_checkpoint_and_sends_nothing_where_it_is_cancelled_already(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    async with calling(server) as client:
        await client.call(task("1"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call(task("2"))
        assert scope.cancelled_caught
        with trio.testing.assert_checkpoints():
            await client.call(task("3"))
        assert server.asked == ["1", "3"]
        assert server.connections.total == 1, "a call that sent nothing costs no connection"


async def test_who_waits_for_a_server_that_fails_goes_to_another(autojump_clock: MockClock) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)
    a.handler = hang
    async with calling(a, b, strategy="priority", priorities=[1, 2]) as client:
        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(client.call, task(str(number)))
        assert trio.current_time() == pytest.approx(2), "the twelve that waited did not wait their own 2 s"
        assert len(a.asked) == 4
        assert len(b.asked) == 16


async def test_a_call_for_a_removed_server_goes_to_another(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    a.handler = hang
    settings: dict[str, Any] = {"strategy": "priority", "max_connections_per_endpoint": 1}
    async with calling(a, b, priorities=[1, 2], **settings) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        nursery.start_soon(client.call, task("2"))
        await wait_all_tasks_blocked()
        client.remove_endpoint("a")
        await wait_all_tasks_blocked()
        assert b.asked == ["2"]
        nursery.cancel_scope.cancel()


# --- What is the caller's fault ---------------------------------------------------------------------------


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


# --- Opening and closing ----------------------------------------------------------------------------------


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_resilient_client(PLAIN, []):
            raise ZeroDivisionError


async def test_a_keyboard_interrupt_in_a_cancelled_block_is_not_lost() -> None:
    async def interrupted() -> None:
        with trio.CancelScope() as scope:
            async with open_resilient_client(PLAIN, []):
                scope.cancel()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await interrupted()


async def test_cancelling_the_block_closes_everything(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang)
    with trio.move_on_after(1) as scope:
        async with calling(server) as client, trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(client.call, task(str(number)))
    assert scope.cancelled_caught
    assert (server.connections.now, server.connections.total) == (0, 4)


async def test_two_endpoints_of_one_id_are_refused() -> None:
    a = FakeServer("a")
    with pytest.raises(ConfigError):
        async with open_resilient_client(DETECTION, [a.endpoint(), a.endpoint()]):
            raise AssertionError("unreachable")


async def test_metrics_are_what_happened(autojump_clock: MockClock) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)

    async def slowly(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(1)
        return success(task.task_id)

    async def connect_slowly() -> None:
        await trio.sleep(0.5)

    a.handler = b.handler = slowly
    a.connecting = b.connecting = connect_slowly
    async with calling(a, b) as client:
        fresh = client.metrics()
        assert (fresh.success_rate, fresh.connection_success_rate) == (1, 1)
        assert (fresh.average_task_duration_ms, fresh.average_connection_duration_ms) == (0, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("1"))
            nursery.start_soon(client.call, task("2"))
            await trio.sleep(1)
            during = client.metrics()
            assert (during.tasks_sent_total, during.tasks_completed_total) == (2, 0)
            assert (during.active_connections_current, during.pooled_connections_current) == (2, 0)
        with trio.move_on_after(0.1):
            await client.call(task("3"))
        a.crash()
        b.crash()
        with pytest.raises(CallTimeoutError):
            await client.call(task("4"), timeout=3)
        metrics = client.metrics()
        assert metrics.transport == "interprocess"
        assert (metrics.tasks_sent_total, metrics.tasks_completed_total, metrics.tasks_failed_total) == (
            4,
            2,
            2,
        )
        assert metrics.success_rate == 0.5
        assert metrics.task_duration_ms_total == pytest.approx(3_000)
        assert metrics.average_task_duration_ms == pytest.approx(1_500)
        assert metrics.connections_established_total == 2
        assert metrics.connection_duration_ms_total == pytest.approx(1_000)
        assert metrics.average_connection_duration_ms == pytest.approx(500)
        assert metrics.connection_attempts_total == a.tries + b.tries
        assert metrics.connection_failures_total == a.tries + b.tries - 2
        assert metrics.connection_success_rate == 2 / metrics.connection_attempts_total
        assert (metrics.active_connections_current, metrics.pooled_connections_current) == (0, 0)
        assert metrics.bytes_sent_total == 3 * len(frame(task("1")))
        assert metrics.bytes_received_total == 2 * len(frame(success("1")))
        assert metrics.circuit_breaker_activations_total == 0


async def test_statistics_count_calls_as_the_breaker_does_and_tries_as_the_metrics_do(
    autojump_clock: MockClock,
) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)
    a.crash()
    async with calling(a, b, breaker_failures=3, breaker_reset_ms=10_000) as client:
        for number in range(3):
            await client.call(task(str(number)))
            await trio.sleep(10)  # so that it is thought healthy, and asked again
        b.handler = hang
        with trio.move_on_after(1):
            await client.call(task("cancelled"))
        with pytest.raises(AttemptsFailedError):
            await client.call(task("fails"))
        first, second = client.statistics()
        assert (first.answers, second.answers) == (0, 3)
        assert second.failures == second.breaker.failures == 1
        assert first.failures == first.breaker.failed_total
        metrics = client.metrics()
        assert first.answers + second.answers == metrics.tasks_completed_total
        assert first.connection_failures + second.connection_failures == metrics.connection_failures_total
        assert first.connection_failures == a.tries
        activations = first.breaker.activations + second.breaker.activations
        assert activations == metrics.circuit_breaker_activations_total > 0


async def test_a_server_that_was_not_reached_has_failed_though_the_call_gave_up_waiting_for_it(
    autojump_clock: MockClock,
) -> None:
    a = FakeServer("a")
    a.failing = ServerRefusedError("connection refused", endpoint=A)
    async with (
        calling(a, max_connections_per_endpoint=1, pool_timeout_ms=1_000, breaker_failures=9) as client,
        trio.open_nursery() as nursery,
    ):

        async def unlucky() -> None:
            with pytest.raises(AttemptsFailedError) as caught:
                await client.call(task())
            assert [type(error) for error in caught.value.attempts] == [ServerRefusedError, PoolTimeoutError]

        nursery.start_soon(unlucky)  # it is refused at once, and waits to connect again
        await trio.sleep(0.01)
        a.connecting = trio.sleep_forever
        with trio.move_on_after(5):
            await client.call(task("takes the only place"))
        [said] = client.statistics()
        assert said.failures == said.breaker.failures == 1


# --- Found by a hostile review ------------------------------------------------------------------------------


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_an_interrupt_in_a_task_of_the_clients_own_is_not_lost(max_in_flight: int) -> None:
    """Not even where a scope around the block is cancelled later."""

    def interrupt(request: DetectionTask, _: DetectionResult) -> str | None:
        raise KeyboardInterrupt

    server = FakeServer("a")
    world = Servers(server)
    contract = attrs.evolve(PLAIN, mismatch=interrupt)
    settings = ResilientConfig(max_in_flight=max_in_flight)

    async def interrupted() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            with trio.CancelScope() as around:
                try:
                    async with open_resilient_client(
                        contract, [server.endpoint()], settings, connect=world.connect
                    ) as client:
                        await client.call(task())
                finally:
                    around.cancel()
            nursery.cancel_scope.cancel()

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        await interrupted()


async def test_a_server_that_the_call_gave_up_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    async with calling(server, breaker_failures=1) as client:
        server.crash()

        async def in_a_hurry() -> None:
            with pytest.raises(CallTimeoutError):
                await client.call(task(), timeout=0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_a_hurry)  # it opens the breaker while the other call waits
            with pytest.raises(AttemptsFailedError):
                await client.call(task())
            assert trio.current_time() < 1


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_closing_the_client_ends_a_call_that_waits_to_connect_again(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    server = FakeServer("a")
    server.failing = ServerRefusedError("connection refused")

    async def call(client: DetectionResilientClient) -> None:
        with pytest.raises(ChannelClosedError, match="this client was closed; open a new one"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(1)

    async with trio.open_nursery() as nursery:
        async with calling(server, max_in_flight=max_in_flight) as client:
            nursery.start_soon(call, client)
            await trio.sleep(1)
    with pytest.raises(ChannelClosedError):
        client.add_endpoint(FakeServer("b").endpoint())


async def test_one_connection_that_breaks_under_many_calls_is_one_failure(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    a.handler = hang
    async with calling(
        a, b, strategy="priority", priorities=[1, 2], max_connections_per_endpoint=1, max_in_flight=8
    ) as client:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(client.call, task(str(number)))
            await trio.sleep(0.1)
            assert a.connections.total == 1
            a.drop_connections()
        found = client.statistics()[0]
        assert (found.breaker.failures, found.failures) == (1, 1)
        assert found.breaker.state is BreakerState.CLOSED


async def test_an_endpoint_added_again_has_no_more_connections_than_before(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang)
    async with calling(server) as client, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(client.call, task())
        await trio.sleep(0.1)
        client.remove_endpoint("a")
        client.add_endpoint(server.endpoint())
        for _ in range(4):
            nursery.start_soon(client.call, task())
        await trio.sleep(0.1)
        assert server.connections.most == 4
        nursery.cancel_scope.cancel()


async def test_a_server_that_hangs_is_known_though_the_callers_own_deadline_is_the_same(
    autojump_clock: MockClock,
) -> None:
    async with calling(FakeServer("a", hang)) as client:
        for _ in range(5):
            with trio.move_on_after(5):
                await client.call(task(), timeout=5)
        found = client.statistics()[0]
        assert found.breaker.state is BreakerState.OPEN
        assert found.breaker.failures == found.failures == 5


@pytest.mark.parametrize("seconds", [10**400, 10**5_000, -(10**5_000)], ids=["large", "huge", "huge below 0"])
async def test_a_timeout_beyond_all_floats_is_a_short_error(seconds: int) -> None:
    async with calling(FakeServer("a")) as client:
        with pytest.raises(ValueError, match=r"timeout is .*, must be ") as caught:
            await client.call(task(), timeout=seconds)
        assert len(str(caught.value)) < 250
        assert client.metrics().tasks_sent_total == 0


@pytest.mark.parametrize("seconds", [-1, float("nan")])
async def test_a_timeout_that_is_no_time_is_refused(seconds: float) -> None:
    async with calling(FakeServer("a")) as client:
        with pytest.raises(ValueError, match="must be 0 or more seconds, or None for the setting"):
            await client.call(task(), timeout=seconds)
        assert client.metrics().tasks_sent_total == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_call_that_is_overdue_on_a_shared_connection_is_one_failure(
    autojump_clock: MockClock, late: bool
) -> None:
    async def slow(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(10 if late else 10**6)
        return success(request.task_id)

    async with calling(FakeServer("a", slow), max_in_flight=4) as client:
        with pytest.raises(CallTimeoutError):
            await client.call(task(), timeout=5)
        await trio.sleep(60)
        found = client.statistics()[0]
        assert (found.failures, found.breaker.failures) == (1, 1)


async def test_who_needs_another_server_is_not_passed_by_sharers(
    autojump_clock: MockClock,
) -> None:
    async def slow(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(0.5)
        return success(request.task_id)

    a, b = servers("ab")
    a.handler = b.handler = slow
    async with (
        calling(a, b, max_connections=1, max_in_flight=2, strategy="priority", priorities=[1, 2]) as client,
        trio.open_nursery() as nursery,
    ):

        async def keep_busy() -> None:
            while True:
                await client.call(task())

        for _ in range(3):
            nursery.start_soon(keep_busy)
            await trio.sleep(0.17)
        asked = len(a.asked)
        with trio.fail_after(5):
            connection = await client._pool.wait(
                client._upstreams["b"], PendingCall(task("b"), seconds=100, repeatable=True)
            )
        assert len(a.asked) - asked <= 4
        client._pool.release(connection)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_what_follows_the_negotiation_is_nobodys_answer(max_in_flight: int) -> None:
    """Not even where the contract could not tell whose answer it is."""
    config = IpcConfig(endpoint_path=A)
    contract = attrs.evolve(DETECTION, mismatch=lambda _request, _response: None)

    async def lie(stream: trio.abc.Stream) -> None:
        async with stream:
            while await stream.receive_some():
                await stream.send_all(frame(success("a lie")) * 2)

    async with trio.open_nursery() as nursery:

        async def connect(_: IpcConfig) -> Channel:
            near, far = memory_streams(A)
            nursery.start_soon(lie, far)
            return FramedChannel(near, config, endpoint=A, peer=near.peer)

        settings = ResilientConfig(max_in_flight=max_in_flight, connect_attempts=1)
        async with open_resilient_client(contract, [Endpoint(config)], settings, connect=connect) as client:
            with pytest.raises(PeerClosedError, match="sent more than it was asked for"):
                await client.call(task("mine"))
        nursery.cancel_scope.cancel()
