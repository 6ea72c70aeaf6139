"""What a contract's functions, and iterators of requests, may do to a client: they are users' code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import Beside, succeed, task
from trio_ipc import Call, ChannelClosedError, Contract, HealthCheck, Negotiation, check_health, logged
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.telemetry.histogram import LATENCY_BOUNDS, Histogram
from trio_ipc.testing import MemoryEndpoint, open_client_at, open_server

from .support import BOTH_LINES

Mismatch = Callable[[DetectionTask, DetectionResult], str | None]


@pytest.fixture
def endpoint() -> MemoryEndpoint:
    return MemoryEndpoint()


def judged_by(mismatch: Mismatch) -> Contract[DetectionTask, DetectionResult]:
    return attrs.evolve(DETECTION, mismatch=mismatch)


@BOTH_LINES
async def test_a_stop_iteration_of_mismatch_ends_no_loop_over_responses(
    max_in_flight: int, endpoint: MemoryEndpoint
) -> None:
    def mismatch(request: DetectionTask, _: DetectionResult) -> str | None:
        return next(iter(())) if request.task_id == "5" else None

    async with (
        open_server(succeed, DETECTION, endpoint),
        open_client_at(judged_by(mismatch), endpoint, max_in_flight=max_in_flight) as client,
    ):
        with pytest.raises(RuntimeError, match=r"mismatch of the contract daemoneye\.detection raised StopI"):
            await client.call_many([task(str(number)) for number in range(40)])
        assert client.snapshot().calls_answered == 5


@BOTH_LINES
@pytest.mark.parametrize("milliseconds", [0.05, 1, 5])
async def test_a_slow_mismatch_keeps_others_waiting_for_a_millisecond_or_for_one_call(
    milliseconds: float, max_in_flight: int, mock_clock: MockClock, endpoint: MemoryEndpoint
) -> None:
    def mismatch(_request: DetectionTask, _response: DetectionResult) -> None:
        mock_clock.jump(milliseconds / 1000)

    beside = Beside()
    async with (
        open_server(succeed, DETECTION, endpoint),
        open_client_at(judged_by(mismatch), endpoint, max_in_flight=max_in_flight) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(beside.run)
        assert len(await client.call_many([task(str(number)) for number in range(200)])) == 200
        nursery.cancel_scope.cancel()
    # What runs beside it may have its turn at the beginning of one pass, and at the end of the next.
    assert beside.longest <= 2 * (0.001 + milliseconds / 1000) + 1e-9


async def test_a_slow_iterator_keeps_others_waiting_for_one_request(
    mock_clock: MockClock, endpoint: MemoryEndpoint
) -> None:
    def requests() -> Iterator[DetectionTask]:
        for number in range(100):
            mock_clock.jump(0.005)
            yield task(str(number))

    beside = Beside()
    async with (
        open_server(succeed, DETECTION, endpoint),
        open_client_at(DETECTION, endpoint) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(beside.run)
        assert len(await client.call_many(requests())) == 100
        nursery.cancel_scope.cancel()
    assert beside.longest <= 2 * 0.005 + 1e-9


class Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError("not me")


@BOTH_LINES
async def test_an_exception_that_cannot_be_written_ends_its_call_and_breaks_the_others(
    max_in_flight: int, endpoint: MemoryEndpoint
) -> None:
    def mismatch(request: DetectionTask, _: DetectionResult) -> None:
        if request.task_id == "bad":
            raise ValueError(Unwritable())

    ended: dict[str, Any] = {}
    async with (
        open_server(succeed, DETECTION, endpoint),
        open_client_at(judged_by(mismatch), endpoint, max_in_flight=max_in_flight) as client,
    ):

        async def call(name: str) -> None:
            try:
                ended[name] = await client.call(task(name))
            except Exception as exc:  # noqa: BLE001 - looked at below
                ended[name] = exc

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "bad")
            await wait_all_tasks_blocked()
            nursery.start_soon(call, "later")
    assert isinstance(ended["bad"], ValueError)
    assert isinstance(ended["later"], ChannelClosedError)


async def test_an_exception_that_is_raised_again_keeps_no_traceback(endpoint: MemoryEndpoint) -> None:
    one = ValueError("always the same")
    group = BaseExceptionGroup("and in a group", [one, ExceptionGroup("deeper", [one])])

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        raise one if request.task_id == "one" else group

    async with open_server(handler, DETECTION, endpoint), open_client_at(DETECTION, endpoint) as client:
        for name in ("one", "group", "one"):
            assert "always the same" in (await client.call(task(name))).error_message
            assert (one.__traceback__, group.__traceback__, group.exceptions[1].__traceback__) == (None,) * 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"level": "INFO"}, "level is 'INFO', must be an int such as logging.INFO"),
        ({"level": None}, "level is None, must be an int such as logging.INFO"),
        ({"level": True}, "level is True, must be an int such as logging.INFO"),
        ({"operation": 5}, "operation is 5, must be a str"),
    ],
)
def test_logged_refuses_what_no_line_could_be_made_of(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        logged(succeed, **wrong)
    assert str(caught.value) == said


@pytest.mark.parametrize(("wrong", "error"), [("x", TypeError), (-1, ValueError), (True, TypeError)])
async def test_a_wrong_timeout_of_a_health_check_is_refused_before_it_connects(
    wrong: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout is"):
        await check_health(DETECTION, timeout=wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": 5}, "name of the contract is 5, must be a str"),
        ({"health": 5}, "health of the contract daemoneye.detection is 5, must be a HealthCheck or None"),
        (
            {"negotiation": DETECTION.health},
            "negotiation of the contract daemoneye.detection is a HealthCheck, must be a Negotiation or None",
        ),
    ],
)
def test_a_contract_says_what_belongs_where(wrong: dict[str, Any], said: str) -> None:
    assert isinstance(DETECTION.health, HealthCheck)
    assert isinstance(DETECTION.negotiation, Negotiation)
    with pytest.raises(TypeError) as caught:
        attrs.evolve(DETECTION, **wrong)
    assert str(caught.value) == said


@pytest.mark.parametrize("seconds", [0.0, LATENCY_BOUNDS[0], 1.1 * LATENCY_BOUNDS[0], 0.001, 100.0])
def test_a_histogram_counts_one_value_as_it_counts_many(seconds: float) -> None:
    one, many = Histogram(), Histogram()
    one.observe(seconds)
    many.observe_often(seconds, 1)
    assert one.snapshot() == many.snapshot()


class RefusesToTell(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> tuple[Exception, ...]:
        raise ValueError("not told")

    def __str__(self) -> str:
        return "a group of mine"


async def test_a_group_that_refuses_to_tell_is_a_failed_response(endpoint: MemoryEndpoint) -> None:
    async def handler(_: DetectionTask, __: Call) -> DetectionResult:
        raise RefusesToTell("mine", [ValueError()])

    async with open_server(handler, DETECTION, endpoint), open_client_at(DETECTION, endpoint) as client:
        for _ in range(2):
            result = await client.call(task("t"))
            assert (result.success, result.error_message) == (
                False,
                "the handler failed: RefusesToTell: a group of mine",
            )
