"""What the log says of connections: one line each, whatever happens, with fields, and without payloads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support import (
    IN_MEMORY,
    ME,
    MemoryEndpoint,
    frame,
    hang,
    read_to_end,
    serving,
    succeed,
    task,
)
from trio_ipc import (
    Call,
    Client,
    FramedChannel,
    IpcConfig,
    IpcError,
    PeerCredentials,
    authorized,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.logs import LimitedLog, Log
from trio_ipc.wire import FrameEncoder

CONFIG = IpcConfig(
    endpoint_path=IN_MEMORY, max_connections=2, max_frame_bytes=10_000, handler_timeout_ms=1_000
)
STRANGER = PeerCredentials(pid=9, uid=12_345)

#: What no log may hold. It goes out and comes back in every field that holds text.
PAYLOAD = "Xyzzy1234"


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_ipc")


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[logging.LogRecord]:
    """The records about connections that hold a word."""
    return [record for record in caplog.records if what in record.getMessage()]


def fields(record: logging.LogRecord) -> dict[str, Any]:
    known = ("endpoint", "connection", "peer", "transport", "reason", "refused")
    return {name: record.__dict__[name] for name in known if name in record.__dict__}


async def test_every_connection_has_one_line_when_opened_and_one_when_closed_or_refused(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server:
        ends = [endpoint.connect() for _ in range(5)]  # 2 are served, 2 wait, 1 is refused
        await trio.testing.wait_all_tasks_blocked()
        await ends[2].aclose()
        await trio.sleep(0.2)
        await ends[0].aclose()  # the last one is served in its place
        await trio.sleep(0.2)  # the server looks every 100 ms
        await ends[1].send_all(bytes(8))
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        await server.wait_stopped()
    lines = [record for record in caplog.records if record.name == "trio_ipc.server"]
    by_connection: dict[int, list[tuple[str, str]]] = {number: [] for number in range(1, 6)}
    for record in lines:
        if "connection" in record.__dict__:
            event = record.getMessage().split()[2].rstrip(":")
            by_connection[record.__dict__["connection"]].append((event, record.__dict__.get("reason", "")))
    assert by_connection == {
        1: [("opened", ""), ("closed", "peer_closed")],
        2: [("opened", ""), ("closed", "protocol_error")],
        3: [("left", "")],
        4: [("opened", ""), ("closed", "stopped")],
        5: [("refused", "limit")],
    }


@pytest.mark.parametrize("peer", [ME, STRANGER])
async def test_the_lines_carry_their_fields(caplog: pytest.LogCaptureFixture, peer: PeerCredentials) -> None:
    endpoint = MemoryEndpoint(CONFIG, peer)
    async with serving(succeed, endpoint) as server, endpoint.connect() as near:
        await near.send_eof()
        await read_to_end(near)
        server.stop()
        await server.wait_stopped()
    common = {"endpoint": IN_MEMORY, "connection": 1, "peer": str(peer), "transport": "interprocess"}
    assert [fields(record) for record in told(caplog, "listening")] == [
        {"endpoint": IN_MEMORY, "transport": "interprocess"}
    ]
    found = [fields(record) for record in told(caplog, "connection 1")]
    if peer is ME:
        assert found == [common, {**common, "reason": "peer_closed"}]
    else:
        assert found == [{**common, "reason": "credentials"}]


async def test_a_connection_that_is_cut_off_has_its_line_too(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint):
        await endpoint.connect().send_all(frame(task()))
        await trio.testing.wait_all_tasks_blocked()
    [line] = told(caplog, "closed")
    assert line.getMessage() == "connection 1 closed: the server ended"
    assert fields(line)["reason"] == "cut_off"


async def test_a_client_says_where_it_is_connected(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(succeed, config), open_client(DETECTION, config) as client:
        await client.call(task())
    [line] = told(caplog, "connected to")
    assert (line.name, line.levelno) == ("trio_ipc.client", logging.DEBUG)
    assert fields(line) == {"endpoint": config.endpoint_path, "peer": str(ME), "transport": config.transport}


async def test_each_record_comes_from_the_logger_of_its_room_and_says_where(
    config: IpcConfig, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(hang, config.replace(handler_timeout_ms=100)),
        open_client(DETECTION, config) as client,
    ):
        await client.call(task())
    names = {record.name for record in caplog.records if record.name.startswith("trio_ipc")}
    # The rollback tells besides, when it accepts no more, what it leaves open.
    assert names - {"trio_ipc.legacy"} == {"trio_ipc.server", "trio_ipc.client"}
    for record in caplog.records:
        if record.name in names:
            assert record.funcName not in {"log", "write", "info", "debug"}, "it is the caller's"
            assert record.__dict__["endpoint"] == config.endpoint_path


# --- A flood of connections ---------------------------------------------------------------------------------


async def flood(endpoint: MemoryEndpoint, connections: int) -> None:
    for _ in range(connections):
        await endpoint.connect().aclose()
    await trio.testing.wait_all_tasks_blocked()


async def test_of_a_flood_of_refused_connections_ten_a_second_have_a_line_and_the_rest_a_number(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG, STRANGER)
    async with serving(succeed, endpoint) as server:
        for _ in range(3):
            await flood(endpoint, 500)
            assert len(told(caplog, " refused: ")) == 10
            assert told(caplog, "more") == []
            await trio.sleep(1.5)
            [rest] = told(caplog, "more")
            assert rest.getMessage() == "more connections were refused: 490"
            assert fields(rest) == {"endpoint": IN_MEMORY, "refused": 490}
            caplog.clear()
        await trio.sleep(100)
        assert caplog.records == [], "nothing is said of nothing"
        assert server.snapshot().connections_refused["credentials"] == 1_500


async def test_a_flood_without_a_pause_is_some_lines_a_second(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG, STRANGER)
    async with serving(succeed, endpoint):
        for _ in range(100):
            await flood(endpoint, 20)
            await trio.sleep(0.1)
    lines, rests = told(caplog, "connection "), told(caplog, "more connections")
    assert len(lines) <= 11 * 10
    assert len(rests) <= 11
    assert len(lines) + sum(record.__dict__["refused"] for record in rests) == 2_000


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_what_a_flood_has_left_unsaid_is_said_when_the_server_ends(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    endpoint = MemoryEndpoint(CONFIG, STRANGER)
    async with serving(succeed, endpoint) as server:
        await flood(endpoint, 25)
        if end == "stop":
            server.stop()
            await server.wait_stopped()
            assert trio.current_time() == 0, "the stop waits for no log"
    assert [record.__dict__["refused"] for record in told(caplog, "more")] == [15]


async def test_refused_connections_now_and_then_have_a_line_each(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG, STRANGER)
    async with serving(succeed, endpoint):
        for _ in range(50):
            await flood(endpoint, 1)
            await trio.sleep(0.15)
    assert len(told(caplog, " refused: ")) == 50
    assert told(caplog, "more") == []


# --- No payloads --------------------------------------------------------------------------------------------


async def misbehave(task: DetectionTask, _: Call) -> DetectionResult:
    kind = task.metadata
    if kind == "raise":
        raise ValueError("a reason that is the handler's own")
    if kind == "hang":
        await trio.sleep_forever()
    if kind == "wrong":
        return task  # type: ignore[return-value]
    if kind == "empty":
        return DetectionResult()
    return DetectionResult(
        task_id="another's" if kind == "mismatch" else task.task_id,
        error_message=PAYLOAD * (2_000 if kind == "large" else 1),
    )


async def test_no_payload_is_ever_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    encoder = FrameEncoder(10_000, CONFIG.crc32_variant)
    async with serving(misbehave, endpoint) as server:
        for kind in ("good", "raise", "hang", "wrong", "empty", "large", "mismatch"):
            channel = FramedChannel(endpoint.connect(), CONFIG, endpoint="memory", peer=ME)
            client = Client(channel, DETECTION, CONFIG)
            try:
                await client.call(DetectionTask(task_id=PAYLOAD, metadata=kind))
            except IpcError:
                assert kind == "mismatch"
            await client.aclose()
        good = frame(DetectionTask(task_id=PAYLOAD))
        for data in (
            good[:-1] + b"?",  # another checksum
            good[:-1],  # cut short
            PAYLOAD.encode() * 3,  # a length out of the text
            encoder.encode(b"\x0a\x7f" + PAYLOAD.encode()),  # no message
            encoder.encode(b"\x0a\x09" + PAYLOAD.encode()[:-1] + b"\xff"),  # no UTF-8
            frame(DetectionTask(task_id=PAYLOAD, metadata="hang")),  # and gone
            good,  # and gone
        ):
            near = endpoint.connect()
            await near.send_all(data)
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()
            await trio.testing.wait_all_tasks_blocked()
        server.stop()
        await server.wait_stopped()
    assert server.snapshot().connections_closed["protocol_error"] == 5
    assert len(caplog.records) > 20
    formatter = logging.Formatter("%(message)s")
    for record in caplog.records:
        whole = formatter.format(record) + repr(record.__dict__)
        assert PAYLOAD[:-1] not in whole, record.getMessage()


async def test_of_a_flood_of_requests_that_are_not_allowed_ten_a_second_have_a_line(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    handler = authorized(succeed, DETECTION, lambda request, _: request.task_id == "good")
    async with serving(handler, endpoint):
        client = endpoint.client()
        for _ in range(3):
            for _ in range(200):
                assert "not allowed" in (await client.call(task("bad"))).error_message
            assert len(told(caplog, "was not allowed")) == 10
            assert told(caplog, "more") == []
            await trio.sleep(1.5)
            assert (await client.call(task("good"))).success
            [rest] = told(caplog, "more")
            assert rest.getMessage() == "more requests were not allowed: 190"
            assert fields(rest) == {"refused": 190}
            caplog.clear()


def test_a_second_of_another_run_of_trios_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """Each run has a clock of its own, and a handler may be made once for all of them."""
    log = LimitedLog(Log("trio_ipc.server"), logging.WARNING, "%d more", counted_as="refused", fields={})

    async def write(at: float) -> None:
        for _ in range(20):
            log.write("one at %s", at, extra={})

    for at in (1000.0, 5.0):
        clock = MockClock()
        clock.jump(at)
        trio.run(write, at, clock=clock)
    assert len(told(caplog, "one at 1000.0")) == len(told(caplog, "one at 5.0")) == 10


# --- What the program's own logging raises ------------------------------------------------------------------


class Seen(logging.Filter):
    """Notes each record that comes to a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return True


#: A field that no record can have: its name is taken.
TAKEN = {"message": "somebody else's"}


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What comes to a logger of the test's own, ``tests.own``."""
    logger = logging.getLogger("tests.own")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    noted = Seen()
    logger.addFilter(noted)
    yield noted
    for added in [*logger.filters]:
        logger.removeFilter(added)
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)


class Missing(logging.Handler):
    """A handler that looks up a field that our records do not have."""

    def emit(self, record: logging.LogRecord) -> None:
        record.__dict__["tenant"]


def look_up(record: logging.LogRecord) -> bool:
    return bool(record.__dict__["tenant"])


def write_wrongly(_record: logging.LogRecord) -> bool:
    """A filter that logs with a field that cannot be one. The record of that is not made; ours was."""
    logging.getLogger("tests").critical("seen", extra=TAKEN)
    return True


@pytest.mark.parametrize("kind", ["handler", "filter", "filter that logs"])
def test_a_line_for_which_the_programs_logging_raises_key_error_is_not_written_again(
    kind: str, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("tests.own")
    if kind == "handler":
        logger.addHandler(Missing())
    else:
        logger.addFilter(look_up if kind == "filter" else write_wrongly)
    Log("tests.own").info("listening", extra={"endpoint": IN_MEMORY})
    assert [fields(record) for record in seen.records] == [{"endpoint": IN_MEMORY}]
    assert "KeyError" in capsys.readouterr().err, "where logging tells such things"


def test_a_line_whose_fields_are_taken_is_written_without_them_and_names_who_logs(seen: Seen) -> None:
    Log("tests.own").info("listening", extra=TAKEN)
    [record] = seen.records
    assert record.getMessage() == "listening"
    assert record.funcName.startswith("test_a_line_whose_fields_are_taken")
