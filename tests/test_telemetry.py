"""Nothing is counted twice or not at all."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from google.protobuf.descriptor_pb2 import UninterpretedOption
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support import (
    IN_MEMORY,
    ME,
    MIB,
    DetectionClient,
    DetectionServer,
    MemoryEndpoint,
    frame,
    hang,
    read_results,
    read_to_end,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    LATENCY_BOUNDS,
    Call,
    Client,
    ClientSnapshot,
    Contract,
    FramedChannel,
    HistogramSnapshot,
    IpcConfig,
    IpcError,
    PeerClosedError,
    ReadTimeoutError,
    ServerCounts,
    ServerSnapshot,
    open_client,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.server.connection import _MOST_AT_ONCE
from trio_ipc.telemetry.histogram import Histogram
from trio_ipc.transports import connect

CONFIG = IpcConfig(
    endpoint_path=IN_MEMORY,
    max_connections=2,
    max_frame_bytes=1_000,
    accept_timeout_ms=1_000,
    read_timeout_ms=3_000,
    write_timeout_ms=2_000,
    handler_timeout_ms=1_500,
    shutdown_grace_ms=1_000,
)


def disagreements(snapshot: ServerSnapshot) -> list[str]:
    """Which of the sums in ServerCounts' docstring do not hold."""
    wrong = []
    for name, part in {"": snapshot, **snapshot.by_transport}.items():
        sums = {
            "accepted": (
                part.connections_accepted,
                sum(part.connections_refused.values())
                + part.connections_left
                + part.connections_waiting
                + part.connections_served,
            ),
            "served": (
                part.connections_served,
                part.connections_active + sum(part.connections_closed.values()),
            ),
            "requests": (
                part.requests,
                part.requests_answered + sum(part.requests_failed.values()) + part.requests_in_flight,
            ),
            "handler timeouts": (part.timeouts["handler"], part.requests_failed["handler_timeout"]),
        }
        wrong += [f"{name} {what}: {one} is not {sum_}" for what, (one, sum_) in sums.items() if one != sum_]
        if not part.requests - part.requests_in_flight <= part.handler_seconds.count <= part.requests:
            wrong.append(f"{name} handlers: {part.handler_seconds.count} of {part.requests}")
        if part.requests_in_flight > (_MOST_AT_ONCE + 1) * part.connections_active:
            wrong.append(f"{name} in flight: {part.requests_in_flight}")
    return wrong


def client_disagreements(snapshot: ClientSnapshot) -> list[str]:
    ended = snapshot.calls_answered + sum(snapshot.calls_failed.values())
    wrong = []
    if snapshot.calls != ended + snapshot.calls_in_flight:
        wrong.append(f"calls: {snapshot}")
    if snapshot.call_seconds.count != snapshot.calls_answered:
        wrong.append(f"answered: {snapshot}")
    return wrong


class Auditor(trio.abc.Instrument):
    """Checks the sums after every step of every task."""

    def __init__(self, server: DetectionServer) -> None:
        self._server = server
        self.clients: list[DetectionClient] = []
        self.found: list[str] = []
        self.steps = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        self.found += disagreements(self._server.snapshot())
        for client in self.clients:
            self.found += client_disagreements(client.snapshot())


# --- Random conversations -----------------------------------------------------------------------------------


class Handler:
    """Behaves as the task says, and knows how often it ran."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    async def __call__(self, task: DetectionTask, _: Call) -> DetectionResult:
        self.begun += 1
        try:
            return await self._behave(task)
        finally:
            self.ended += 1

    async def _behave(self, task: DetectionTask) -> DetectionResult:
        if task.task_id == "slow":
            await trio.sleep(0.7)
        elif task.task_id == "hang":
            await trio.sleep_forever()
        elif task.task_id == "raise":
            raise ValueError("no such thing")
        elif task.task_id == "late":
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            return DetectionResult(task_id="late", error_message="x" * 2_000)
        elif task.task_id == "large":
            return DetectionResult(task_id="large", error_message="x" * 2_000)
        elif task.task_id == "wrong":
            return None  # type: ignore[return-value]
        return success(task.task_id)


Stream: TypeAlias = trio.StapledStream[Any, Any]
Link: TypeAlias = tuple[Stream, Stream]
#: How a client behaves, from when, for how long, what it asks, and whether by a stream without a buffer.
Behaviour: TypeAlias = tuple[str, float, float, list[str], bool]
BEHAVIOURS = ["calls", "shares", "garbage", "truncated", "leaves", "idles", "deaf", "stranger", "broken"]
KINDS = ["quick", "slow", "hang", "raise", "late", "large", "wrong", "too large"]
MOMENTS = st.sampled_from([0.0, 0.1, 0.7, 1.5, 2.0, 3.0])
CLIENTS = st.lists(
    st.tuples(
        st.sampled_from(BEHAVIOURS),
        MOMENTS,
        MOMENTS,
        st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


class Broken(FramedChannel):
    """Has a defect."""

    async def fill(self, deadline: float | None = None) -> bool:
        raise RuntimeError("a defect")


class Clients:
    """Clients of all kinds against one server in memory."""

    def __init__(self) -> None:
        self.endpoint = MemoryEndpoint(CONFIG)
        self.handler = Handler()
        self.outcomes: Counter[str] = Counter()
        self.offered = 0

    async def run(self, clients: list[Behaviour], end: float, graceful: bool) -> None:
        async with trio.open_nursery() as nursery:
            async with serving(self.handler, self.endpoint) as server:
                auditor = Auditor(server)
                trio.lowlevel.add_instrument(auditor)
                for client in clients:
                    nursery.start_soon(self._behave, auditor, client)
                await trio.sleep(end)
                if graceful:
                    server.stop()
                    await server.wait_stopped()
        trio.lowlevel.remove_instrument(auditor)
        self._check(server.snapshot(), auditor)

    async def _behave(self, auditor: Auditor, behaviour: Behaviour) -> None:
        how, begin, seconds, kinds, lockstep = behaviour
        await trio.sleep(begin)
        pair: Callable[[], Link] = (
            trio.testing.lockstep_stream_pair
            if lockstep or how == "deaf"
            else trio.testing.memory_stream_pair
        )
        near, far = pair()
        kind_of_channel = Broken if how == "broken" else FramedChannel
        peer = None if how == "stranger" else ME
        try:
            self.endpoint.offer(kind_of_channel(far, CONFIG, endpoint="memory", peer=peer))
        except trio.BrokenResourceError:
            return  # the server has ended
        self.offered += 1
        async with near:
            with trio.move_on_after(10):
                if how in {"calls", "shares"}:
                    await self._call(auditor, near, kinds, seconds, together=how == "shares")
                else:
                    await self._misbehave(near, how, seconds, kinds)

    async def _call(
        self, auditor: Auditor, near: trio.abc.Stream, kinds: list[str], seconds: float, together: bool
    ) -> None:
        config = CONFIG.replace(read_timeout_ms=1_000) if together else CONFIG
        client = Client(FramedChannel(near, config, endpoint="memory", peer=ME), DETECTION, config)
        auditor.clients.append(client)
        async with trio.open_nursery() as nursery:
            for kind in kinds:
                if together:
                    nursery.start_soon(self._call_once, client, kind, seconds)
                else:
                    await self._call_once(client, kind, seconds)

    async def _call_once(self, client: DetectionClient, kind: str, seconds: float) -> None:
        request = task("x" * 2_000) if kind == "too large" else task(kind)
        outcome = "cancelled"
        try:
            with trio.move_on_after(seconds or math.inf):
                await client.call(request)
                outcome = "answered"
        except IpcError:
            outcome = "failed"
        finally:
            self.outcomes[outcome] += 1

    async def _misbehave(self, near: Stream, how: str, seconds: float, kinds: list[str]) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            if how == "garbage":
                await near.send_all(frame(task(kinds[0])) + bytes(8))
                await read_to_end(near)
            elif how == "truncated":
                await near.send_all(frame(task())[:5])
                await trio.sleep(seconds)
            elif how == "leaves":
                await near.send_all(b"".join(frame(task(kind)) for kind in kinds))
                await trio.sleep(seconds)
            elif how == "deaf":
                await near.send_all(frame(task(kinds[0])))
                await trio.sleep_forever()
            else:
                await read_to_end(near)

    def _check(self, whole: ServerSnapshot, auditor: Auditor) -> None:
        assert auditor.found == []
        assert auditor.steps > 0
        assert disagreements(whole) == []
        assert (whole.connections_waiting, whole.connections_active, whole.requests_in_flight) == (0, 0, 0)
        # Those that the stop found in the queue of the listener were never accepted.
        assert whole.connections_accepted <= self.offered
        assert whole.requests == self.handler.begun
        assert whole.handler_seconds.count == self.handler.ended == self.handler.begun
        assert whole.frames_received >= whole.requests
        clients = [client.snapshot() for client in auditor.clients]
        assert sum(client.calls for client in clients) == self.outcomes.total()
        assert sum(client.calls_answered for client in clients) == self.outcomes["answered"]
        assert sum(client.calls_in_flight for client in clients) == 0
        cancelled = sum(client.calls_failed["cancelled"] for client in clients)
        assert cancelled == self.outcomes["cancelled"]
        failed = sum(sum(client.calls_failed.values()) for client in clients)
        assert failed == self.outcomes["cancelled"] + self.outcomes["failed"]


@settings(deadline=None, max_examples=150)
@given(CLIENTS, st.sampled_from([0.3, 1.0, 2.2, 4.0, 60.0]), st.booleans())
def test_whatever_clients_do_the_sums_hold_at_every_step(
    clients: list[Behaviour], end: float, graceful: bool
) -> None:
    clock = MockClock(autojump_threshold=0)
    trio.run(Clients().run, clients, end, graceful, clock=clock)


async def test_what_both_sides_count_is_the_same(config: IpcConfig) -> None:
    """Over the real transport, several clients, to their ends."""
    handler = Handler()
    async with serving(handler, config) as server:
        clients: list[ClientSnapshot] = []

        async def talk(kind: str) -> None:
            async with open_client(DETECTION, config) as client:
                for _ in range(20):
                    await client.call(task(kind))
                clients.append(client.snapshot())

        async with trio.open_nursery() as nursery:
            for kind in ("quick", "raise", "wrong", "large", "quick"):
                nursery.start_soon(talk, kind)
        server.stop()
        await server.wait_stopped()
    whole = server.snapshot()
    assert disagreements(whole) == []
    assert whole.requests == sum(client.calls_answered for client in clients) == 100
    assert dict(whole.requests_failed) == dict.fromkeys(whole.requests_failed, 0) | {"handler": 40}
    assert whole.requests_answered == 60
    for mine, theirs in (("received", "sent"), ("sent", "received")):
        for what in ("frames", "bytes"):
            counted = sum(getattr(client, f"{what}_{theirs}") for client in clients)
            assert getattr(whole, f"{what}_{mine}") == counted
    assert whole.connections_closed["peer_closed"] + whole.connections_closed["stopped"] == 5


# --- What was once miscounted -------------------------------------------------------------------------------


async def test_who_waits_when_the_server_is_cancelled_has_left(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server:
        for _ in range(3):
            await endpoint.connect().send_all(frame(task()))
        await trio.sleep(0.5)
        assert server.snapshot().connections_waiting == 1
    assert server.snapshot().connections_left == 1
    assert disagreements(server.snapshot()) == []


async def test_a_request_whose_handler_failed_and_whose_response_was_cut_off_failed_once(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def fail(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise ValueError("x" * 900)

    config = config.replace(write_timeout_ms=60_000)
    async with serving(fail, config) as server, await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()) * 4_000)  # and reads nothing
        await trio.sleep(1)
        server.stop()
        await server.wait_stopped()
        whole = server.snapshot()
    assert whole.requests_failed["handler"] == whole.requests > whole.frames_sent
    assert whole.requests_failed["cut_off"] == 0
    assert whole.connections_closed["cut_off"] == 1
    assert disagreements(whole) == []


async def test_a_response_that_cannot_be_delivered_is_a_failed_request(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def large(_task: DetectionTask, _call: Call) -> DetectionResult:
        return DetectionResult(task_id="t", error_message="x" * (MIB - 100))

    async with serving(large, config) as server, await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()))
        await trio.sleep(11)
        whole = server.snapshot()
    assert (whole.requests, whole.requests_failed["response_undelivered"]) == (1, 1)
    assert (whole.timeouts["write"], whole.connections_closed["write_timeout"]) == (1, 1)


async def test_a_write_timeout_while_a_violator_is_told_counts_though_the_violation_ended_it(
    autojump_clock: MockClock,
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    near, far = trio.testing.lockstep_stream_pair()
    async with serving(succeed, endpoint) as server:
        endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
        await near.send_all(bytes(8))
        await trio.sleep(3)
        whole = server.snapshot()
    assert (whole.connections_closed["protocol_error"], whole.connections_closed["write_timeout"]) == (1, 0)
    assert whole.timeouts["write"] == 1


async def test_who_is_cut_off_while_being_told_of_a_violation_was_ended_by_the_violation(
    autojump_clock: MockClock,
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    near, far = trio.testing.lockstep_stream_pair()
    async with serving(succeed, endpoint) as server:
        endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
        await near.send_all(bytes(8))
        await trio.sleep(1)
    assert server.snapshot().connections_closed["protocol_error"] == 1
    assert disagreements(server.snapshot()) == []


async def test_a_response_after_the_handlers_time_is_a_timeout_even_if_it_cannot_be_encoded(
    autojump_clock: MockClock,
) -> None:
    incomplete = Contract(
        name="incomplete", request_type=DetectionTask, response_type=UninterpretedOption.NamePart
    )

    async def stubborn(_task: DetectionTask, _call: Call) -> UninterpretedOption.NamePart:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return UninterpretedOption.NamePart()  # lacks what it requires

    endpoint = MemoryEndpoint(CONFIG)
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            await serve_listener(stubborn, incomplete, endpoint, CONFIG, task_status=task_status)

        server = await nursery.start(run)
        near = endpoint.connect()
        await near.send_all(frame(task()))
        assert await read_to_end(near) == b""
        assert server.snapshot().requests_failed["handler_timeout"] == 1
        assert server.snapshot().connections_closed["unanswerable"] == 1
        nursery.cancel_scope.cancel()


async def test_a_call_that_gets_no_turn_and_one_cancelled_while_it_waits_count(
    autojump_clock: MockClock,
) -> None:
    near, _far = trio.testing.memory_stream_pair()
    client = Client(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION, CONFIG)

    async def call(seconds: float) -> None:
        with trio.move_on_after(seconds):
            with contextlib.suppress(IpcError):
                await client.call(task())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 100)  # until the read timeout of 3 s
        await trio.sleep(1)
        nursery.start_soon(call, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert client.snapshot().calls_in_flight == 2
    snapshot = client.snapshot()
    assert (snapshot.calls_failed["read_timeout"], snapshot.calls_failed["cancelled"]) == (1, 1)
    assert snapshot.timeouts["read"] == 1
    assert client_disagreements(snapshot) == []


# --- One thing at a time ------------------------------------------------------------------------------------


async def test_each_ending_of_a_connection_has_its_reason(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint) as server:

        async def after(act: Callable[[trio.abc.HalfCloseableStream], Any]) -> str:
            before = server.snapshot().connections_closed
            near = endpoint.connect()
            await act(near)
            await read_to_end(near)
            await near.aclose()
            await trio.testing.wait_all_tasks_blocked()
            now = server.snapshot().connections_closed
            [reason] = [name for name in now if now[name] != before[name]]
            return reason

        async def be_idle(_: object) -> None:
            await trio.lowlevel.checkpoint()

        assert await after(be_idle) == "read_timeout"
        assert await after(lambda near: near.send_all(bytes(8))) == "protocol_error"
        assert await after(lambda near: near.send_eof()) == "peer_closed"

        async def be_stopped(_: object) -> None:
            await trio.testing.wait_all_tasks_blocked()
            server.stop()

        assert await after(be_stopped) == "stopped"


async def test_a_failure_that_no_response_can_tell_of_ends_the_connection_as_unanswerable() -> None:
    contract = Contract(name="silent", request_type=DetectionTask, response_type=DetectionResult)
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint, contract) as server, endpoint.connect() as near:
        await near.send_all(frame(task("raise")))
        assert await read_to_end(near) == b""
        whole = server.snapshot()
    assert (whole.connections_closed["unanswerable"], whole.requests_failed["handler"]) == (1, 1)
    assert whole.contract == "silent"


async def test_a_channel_with_a_defect_is_an_internal_error(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)

    class Mute(FramedChannel):
        def send_nowait(self, payloads: object) -> bool:
            raise RuntimeError("a defect")

    async with serving(succeed, endpoint) as server:
        near, far = trio.testing.memory_stream_pair()
        endpoint.offer(Mute(far, CONFIG, endpoint="memory", peer=ME))
        await near.send_all(frame(task()))
        assert await read_to_end(near) == b""
        whole = server.snapshot()
    assert (whole.connections_closed["internal_error"], whole.requests_failed["internal_error"]) == (1, 1)


@pytest.mark.parametrize("refusal", ["at once", "in the end"])
async def test_who_is_refused_by_the_limit_counts_as_a_timeout_only_after_a_wait(
    autojump_clock: MockClock, refusal: str
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server:
        ends = [endpoint.connect() for _ in range(5 if refusal == "at once" else 3)]
        await trio.testing.wait_all_tasks_blocked()
        if refusal == "in the end":
            await trio.sleep(1.1)
        whole = server.snapshot()
        for end in ends:
            await end.aclose()
    assert whole.connections_refused["limit"] == 1
    assert whole.timeouts["accept"] == (refusal == "in the end")


async def test_a_connection_counts_for_the_transport_that_it_came_by(config: IpcConfig) -> None:
    config = config.replace(transport="interprocess")
    async with serving(Handler(), config) as server, open_client(DETECTION, config) as old:
        await old.call(task())
        await server.switch_transport("legacy")
        async with open_client(DETECTION, config) as new:
            await new.call(task("raise"))
            await old.call(task())
            whole = server.snapshot()
        assert whole.transport == "legacy"
        parts = whole.by_transport
        assert {name: part.connections_active for name, part in parts.items()} == {
            "interprocess": 1,
            "legacy": 1,
        }
        assert (parts["interprocess"].requests, parts["legacy"].requests) == (2, 1)
        assert (whole.requests, whole.requests_failed["handler"]) == (3, 1)
        assert whole.handler_seconds.count == 3
        assert disagreements(whole) == []
        await server.switch_transport("interprocess")
        await old.call(task())
        assert server.snapshot().by_transport["interprocess"].requests == 3, "it goes on counting"


# --- Times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", range(len(LATENCY_BOUNDS)))
def test_a_value_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(bound: int) -> None:
    seconds = LATENCY_BOUNDS[bound]
    histogram = Histogram()
    for value in (seconds, math.nextafter(seconds, 0), math.nextafter(seconds, math.inf)):
        histogram.observe(value)
    counts = histogram.snapshot().counts
    assert (counts[bound], counts[bound + 1], sum(counts)) == (2, 1, 3)


def test_bounds_rise() -> None:
    assert list(LATENCY_BOUNDS) == sorted(set(LATENCY_BOUNDS))


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_two_histograms_together_are_one_of_all_values(some: list[float], others: list[float]) -> None:
    def seen(values: list[float]) -> HistogramSnapshot:
        histogram = Histogram()
        for value in values:
            histogram.observe(value)
        return histogram.snapshot()

    both = seen(some) + seen(others)
    assert both.counts == seen(some + others).counts
    assert both.sum == pytest.approx(sum(some) + sum(others))
    assert both.count == len(some + others) == both.cumulative()[-1]
    for bound, count in zip(both.bounds, both.cumulative(), strict=False):
        assert count == len([value for value in some + others if value <= bound])


def test_the_mean_of_no_values_is_nothing() -> None:
    assert HistogramSnapshot().mean == 0.0


async def test_handlers_and_calls_are_timed(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint) as server:
        client = endpoint.client()
        for kind in ("slow", "slow", "hang"):
            await client.call(task(kind))
        handlers, calls = server.snapshot().handler_seconds, client.snapshot().call_seconds
    for histogram in (handlers, calls):
        assert histogram.sum == pytest.approx(0.7 + 0.7 + 1.5)
        assert histogram.mean == pytest.approx(2.9 / 3)
        by_bound = dict(zip(histogram.bounds, histogram.counts, strict=False))
        assert (by_bound[1.0], by_bound[2.5], histogram.count) == (2, 1, 3)


async def test_the_time_a_call_waits_for_its_turn_is_a_part_of_it(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint):
        client = endpoint.client()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(client.call, task("slow"))
        assert client.snapshot().call_seconds.sum == pytest.approx(0.7 + 1.4)


async def test_failed_calls_are_not_timed() -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.aclose()
    client = Client(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION, CONFIG)
    with pytest.raises(PeerClosedError):
        await client.call(task())
    assert client.snapshot().call_seconds.count == 0


async def test_the_uptime_follows_the_clock_until_the_server_ends(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(succeed, endpoint) as server:
        client = endpoint.client()
        await trio.sleep(5)
        assert server.snapshot().uptime_seconds == pytest.approx(5)
        assert client.snapshot().uptime_seconds == pytest.approx(5)
        server.stop()
        await server.wait_stopped()
        await trio.sleep(5)
        assert server.snapshot().uptime_seconds == pytest.approx(5)


# --- What a snapshot is -------------------------------------------------------------------------------------


async def test_a_snapshot_is_frozen_and_does_not_change(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        before = server.snapshot(), client.snapshot()
        told = [snapshot.as_dict() for snapshot in before]
        await client.call(task())
        assert [snapshot.as_dict() for snapshot in before] == told
        for snapshot in before:
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                snapshot.transport = "pigeon"  # type: ignore[misc]
        with pytest.raises(TypeError):
            before[0].timeouts["read"] = 1  # type: ignore[index]


async def test_a_snapshot_is_json_with_a_place_for_every_field(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await client.call(task())
        await trio.testing.wait_all_tasks_blocked()
        for snapshot in (server.snapshot(), client.snapshot()):
            document = json.loads(json.dumps(snapshot.as_dict()))
            assert list(document) == [field.name for field in attrs.fields(type(snapshot))]
            assert document["transport"] == config.transport
            assert document["endpoint"] == config.endpoint_path
            assert document["contract"] == DETECTION.name
            assert document["timeouts"] == dict(snapshot.timeouts)
        document = server.snapshot().as_dict()
    part = document["by_transport"][config.transport]
    assert list(part) == [field.name for field in attrs.fields(ServerCounts)]
    assert part == {name: document[name] for name in part}
    assert sum(document["handler_seconds"]["counts"]) == document["requests"] == 1


async def test_any_thread_may_take_a_snapshot_and_so_may_who_comes_later(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await client.call(task())
        await trio.testing.wait_all_tasks_blocked()
        assert (await trio.to_thread.run_sync(server.snapshot)).requests == 1
        assert (await trio.to_thread.run_sync(client.snapshot)).calls == 1


async def test_a_read_timeout_of_the_server_is_one_of_its_timeouts(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server, endpoint.connect() as raw:
        await raw.send_all(frame(task()))
        assert len(await read_results(raw, 1)) == 1
        assert await read_to_end(raw) == b""
        whole = server.snapshot()
    assert dict(whole.timeouts) == {"accept": 0, "read": 1, "write": 0, "handler": 1}


async def test_a_read_timeout_of_a_client_is_one_of_its_timeouts(autojump_clock: MockClock) -> None:
    near, _far = trio.testing.memory_stream_pair()
    client = Client(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION, CONFIG)
    with pytest.raises(ReadTimeoutError):
        await client.call(task())
    assert dict(client.snapshot().timeouts) == {"turn": 0, "write": 0, "read": 1, "call": 0}
