from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support import (
    IN_MEMORY,
    ME,
    DetectionServer,
    MemoryEndpoint,
    frame,
    hang,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Call,
    ChannelClosedError,
    ConfigError,
    FramedChannel,
    IpcConfig,
    MessageEmptyError,
    PeerClosedError,
    PeerNotAllowedError,
    PeerPolicy,
    ReadTimeoutError,
    ServerNotFoundError,
    SharedClient,
    TurnTimeoutError,
    open_shared_client,
)
from trio_ipc.calling import nursery_of_our_own
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

CONFIG = IpcConfig(endpoint_path=IN_MEMORY)


@attrs.define
class Line:
    """A shared client over memory, the server's end of it as bytes, and calls in tasks of their own."""

    client: SharedClient[DetectionTask, DetectionResult]
    server: trio.abc.Stream
    nursery: trio.Nursery
    outcomes: dict[str, DetectionResult | Exception] = attrs.field(factory=dict)

    async def call(self, task_id: str) -> trio.CancelScope:
        """Start a call, and return what cancels it when it waits."""
        scope = trio.CancelScope()

        async def call() -> None:
            with scope:
                try:
                    self.outcomes[task_id] = await self.client.call(task(task_id))
                except Exception as exc:  # noqa: BLE001 - what it was is what is tested
                    self.outcomes[task_id] = exc

        self.nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        return scope

    async def answer(self, *task_ids: str) -> None:
        await self.server.send_all(b"".join(frame(success(task_id)) for task_id in task_ids))
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def line(**settings: int) -> AsyncIterator[Line]:
    near, far = trio.testing.memory_stream_pair()
    channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
    client = SharedClient(channel, CONFIG, contract=DETECTION, **settings)
    async with nursery_of_our_own() as nursery:
        nursery.start_soon(client.run)
        yield Line(client, far, nursery)


async def call_in_tasks(client: SharedClient[DetectionTask, DetectionResult], count: int) -> list[str]:
    """Make so many calls at a time, and return the ids in the order of the answers."""
    answered = []

    async def call(task_id: str) -> None:
        assert await client.call(task(task_id)) == success(task_id)
        answered.append(task_id)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(call, str(number))
    return answered


def counts_are_whole(client: SharedClient[DetectionTask, DetectionResult]) -> None:
    said = client.snapshot()
    assert said.calls == said.calls_answered + sum(said.calls_failed.values()) + said.calls_in_flight


# --- Calling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_in_flight", [1, 3, 64])
async def test_each_caller_gets_its_own_answer_and_no_more_are_under_way_than_allowed(
    config: IpcConfig, max_in_flight: int
) -> None:
    most = 0
    servers: list[DetectionServer] = []

    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        nonlocal most
        most = max(most, servers[0].snapshot().requests - servers[0].snapshot().requests_answered)
        return success(request.task_id)

    async with (
        serving(handle, config) as server,
        open_shared_client(config, max_in_flight=max_in_flight) as client,
    ):
        servers.append(server)
        answered = await call_in_tasks(client, 50)
        assert sorted(answered, key=int) == [str(number) for number in range(50)]
        said = client.snapshot()
        assert (said.calls, said.calls_answered, said.calls_in_flight) == (50, 50, 0)
        assert (said.frames_sent, said.frames_received) == (50, 50)
        assert said.transport == config.transport
        assert 1 <= most <= max_in_flight
        assert client.is_quiet()


async def test_calls_at_a_time_are_one_write_and_their_answers_wake_all_who_wait_at_once() -> None:
    async with line() as subject:
        for name in "123":
            subject.nursery.start_soon(subject.client.call, task(name))
        data = await subject.server.receive_some()
        assert len(data) == 3 * len(frame(task("1")))


async def test_a_turn_that_takes_too_long_sends_nothing_and_leaves_the_client_good(
    autojump_clock: MockClock,
) -> None:
    async with line(max_in_flight=1) as subject:
        await subject.call("1")
        await trio.sleep(25)
        await subject.server.send_all(frame(success("1"))[:5])  # so that its own deadline is a later one
        await subject.call("2")
        await trio.sleep(29)
        assert not subject.outcomes
        await subject.server.send_all(frame(success("1"))[5:])
        await trio.testing.wait_all_tasks_blocked()
        await subject.call("3")
        await trio.sleep(29)
        await subject.server.send_all(frame(success("2"))[:5])
        await trio.sleep(2)
        assert isinstance(subject.outcomes["3"], TurnTimeoutError)
        assert "behind 1 calls, the limit read_timeout_ms is 30000" in str(subject.outcomes["3"])
        await subject.server.send_all(frame(success("2"))[5:])
        await subject.call("4")
        await subject.answer("4")
        assert subject.outcomes["4"] == success("4")
        assert subject.client.snapshot().calls_failed["turn_timeout"] == 1


async def test_a_cancelled_caller_hurts_nobody_and_keeps_its_place_until_its_answer_was_dropped() -> None:
    async with line(max_in_flight=2) as subject:
        gone = await subject.call("gone")
        await subject.call("stays")
        await subject.call("waits")
        gone.cancel()
        await trio.testing.wait_all_tasks_blocked()
        sent = frame(task("gone")) + frame(task("stays"))
        assert await subject.server.receive_some() == sent, "the third has to wait all the same"
        await subject.answer("gone")
        assert await subject.server.receive_some() == frame(task("waits"))
        await subject.answer("stays", "waits")
        assert subject.outcomes == {name: success(name) for name in ("stays", "waits")}
        assert subject.client.snapshot().calls_failed["cancelled"] == 1
        assert not subject.client.is_broken
        counts_are_whole(subject.client)


async def test_a_request_that_cannot_be_sent_is_its_callers_alone_and_takes_no_place() -> None:
    async with line(max_in_flight=1) as subject:
        for _ in range(2):
            with pytest.raises(MessageEmptyError, match="^memory: "):
                await subject.client.call(DetectionTask())
            with pytest.raises(TypeError, match="the request is a DetectionResult, must be a DetectionTask"):
                await subject.client.call(DetectionResult())  # type: ignore[arg-type]
        await subject.call("1")
        await subject.answer("1")
        assert subject.outcomes == {"1": success("1")}
        assert subject.client.snapshot().calls_failed["request_unsendable"] == 2
        assert subject.client.snapshot().calls == 3, "a mistake of type is no call"


async def test_a_call_is_a_checkpoint_and_can_be_cancelled_before_it_sends() -> None:
    async with line() as subject:
        with trio.CancelScope() as scope:
            scope.cancel()
            await subject.client.call(task("never"))
        assert scope.cancelled_caught
        await subject.server.send_all(frame(success("1")))
        with trio.testing.assert_checkpoints():
            assert await subject.client.call(task("1")) == success("1")
        assert await subject.server.receive_some() == frame(task("1"))


# --- What ends it ---------------------------------------------------------------------------------------


async def test_a_server_that_does_not_answer_fails_all_who_wait_and_later_calls_say_why(
    autojump_clock: MockClock,
) -> None:
    async with line() as subject:
        await subject.call("1")
        await subject.call("2")
        await trio.sleep(31)
        assert [type(error) for error in subject.outcomes.values()] == [ReadTimeoutError] * 2
        assert subject.client.is_broken
        with pytest.raises(ChannelClosedError, match="was broken: timed out.*; open a new") as caught:
            await subject.client.call(task("3"))
        assert isinstance(caught.value.__cause__, ReadTimeoutError)
        failed = subject.client.snapshot().calls_failed
        assert (failed["read_timeout"], failed["closed"]) == (2, 1)
        counts_are_whole(subject.client)


async def test_a_server_that_closes_says_how_to_go_on_by_whether_it_ever_answered() -> None:
    async with line() as subject:
        await subject.call("1")
        await subject.server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(subject.outcomes["1"], PeerClosedError)
        assert "compare crc32_variant" in str(subject.outcomes["1"])
    async with line() as subject:
        await subject.call("1")
        await subject.answer("1")
        await subject.call("2")
        await subject.server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert "it may be stopping or gone" in str(subject.outcomes["2"])


async def test_closing_ends_the_calls_under_way_and_says_so(config: IpcConfig) -> None:
    async with serving(hang, config), open_shared_client(config) as client:

        async def call() -> None:
            with pytest.raises(ChannelClosedError, match="this connection was closed"):
                await client.call(task())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()
        with pytest.raises(ChannelClosedError, match="this connection was closed; open a new one"):
            await client.call(task())
        counts_are_whole(client)


async def test_the_end_of_the_block_ends_the_calls_of_other_tasks_and_closes(config: IpcConfig) -> None:
    errors: list[Exception] = []
    async with serving(hang, config) as server, trio.open_nursery() as others:
        async with open_shared_client(config) as client:

            async def call() -> None:
                try:
                    await client.call(task())
                except ChannelClosedError as exc:
                    errors.append(exc)

            others.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert len(errors) == 1
        server.stop()
        await server.wait_stopped()
        assert server.snapshot().connections_closed["peer_closed"] == 1


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
async def test_what_the_block_raises_comes_out_as_it_is(config: IpcConfig, kind: type[BaseException]) -> None:
    async def fail() -> None:
        async with open_shared_client(config) as client:
            await client.call(task())
            raise kind

    async with serving(succeed, config):
        with pytest.raises(kind):
            await fail()


# --- Opening --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1])
async def test_a_limit_that_lets_nobody_call_is_refused_before_anything_happens(number: int) -> None:
    with pytest.raises(ConfigError, match=f"max_in_flight must be at least 1, not {number}"):
        async with open_shared_client(CONFIG, max_in_flight=number):
            raise AssertionError("unreachable")


async def test_no_server_and_a_server_that_is_not_trusted_are_errors_of_their_own(config: IpcConfig) -> None:
    with pytest.raises(ServerNotFoundError):
        async with open_shared_client(config):
            raise AssertionError("unreachable")
    async with serving(succeed, config):
        with pytest.raises(PeerNotAllowedError):
            async with open_shared_client(config, peers=PeerPolicy.users([54321])):
                raise AssertionError("unreachable")


async def test_it_knows_where_it_leads_and_to_whom(config: IpcConfig) -> None:
    async with serving(succeed, config), open_shared_client(config, contract=DETECTION) as client:
        assert (client.endpoint, client.peer) == (config.endpoint_path, ME)


async def test_it_works_in_memory() -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(succeed, endpoint), nursery_of_our_own() as nursery:
        near, far = endpoint.ends.channels(CONFIG)
        endpoint.offer(far)
        client = SharedClient(near, CONFIG, contract=DETECTION)
        nursery.start_soon(client.run)
        await call_in_tasks(client, 20)
