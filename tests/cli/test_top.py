"""``trio-ipc top``: what it reads, what two readings say, and what a person or a program is shown."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.cli.processes import PROGRAM, command
from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc.cli.commands import top
from trio_ipc.cli.counters import NoCountersError, Reading, View, duration, read, span
from trio_ipc.cli.ending import Status
from trio_ipc.cli.statistics import percentile_bucket
from trio_ipc.daemoneye import DETECTION, DetectionTask
from trio_ipc.testing import open_pair


async def counted(calls: int = 1) -> dict[str, Any]:
    """The counters of a server that has answered some calls."""
    async with open_pair(succeed, DETECTION) as pair:
        for number in range(calls):
            await pair.client.call(DetectionTask(task_id=str(number + 1)))
        return json.loads(json.dumps(pair.server.snapshot().as_dict()))  # type: ignore[no-any-return]


@pytest.fixture
def counters() -> dict[str, Any]:
    return trio.run(counted)


def later(counters: dict[str, Any], seconds: float, **more: int) -> dict[str, Any]:
    """The counters some seconds later, when there were more of these."""
    changed = copy.deepcopy(counters)
    changed["uptime_seconds"] += seconds
    for name, count in more.items():
        first, _, kind = name.partition("__")
        if kind:
            changed[first][kind] += count
        else:
            changed[first] += count
    return changed


def view(*at_times: tuple[float, dict[str, Any]]) -> View:
    (written, first), *rest = at_times
    seen = View(Reading("f", first, written))
    for written, one in rest:
        seen = seen.followed_by(Reading("f", one, written))
    return seen


# --- Reading ------------------------------------------------------------------------------------------------


def test_a_snapshot_is_read_with_the_time_of_its_writing(tmp_path: Path, counters: dict[str, Any]) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps(counters))
    os.utime(file, (5, 1000))
    assert read(str(file)) == Reading(str(file), counters, 1000.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.pop("requests"),
        lambda whole: whole.update(requests="many"),
        lambda whole: whole.update(requests=True),
        lambda whole: whole.update(requests=-1),
        lambda whole: whole.update(requests=float("nan")),
        lambda whole: whole.update(requests=10**400),
        lambda whole: whole.update(requests=0.5),
        lambda whole: whole.update(timeouts={"read": 0.5}),
        lambda whole: whole["handler_seconds"]["counts"].__setitem__(0, 0.5),
        lambda whole: whole.update(endpoint=7),
        lambda whole: whole.update(timeouts={"read": None}),
        lambda whole: whole.update(timeouts=[]),
        lambda whole: whole["handler_seconds"]["counts"].pop(),
        lambda whole: whole.update(handler_seconds=None),
    ],
)
def test_what_is_no_snapshot_is_refused(tmp_path: Path, counters: dict[str, Any], change: Any) -> None:
    change(counters)
    file = tmp_path / "s.json"
    file.write_text(json.dumps(counters))
    with pytest.raises(NoCountersError, match="holds no counters"):
        read(str(file))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "# HELP trio_ipc", "[" * 100_000, " " * 1_000_001 + "{}", "\xff"]
)
def test_any_other_text_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(NoCountersError):
        read(str(file))


# --- Two readings -------------------------------------------------------------------------------------------


@unix_only
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "fifo.json"
    os.mkfifo(file)
    with pytest.raises(NoCountersError):
        read(str(file))
    both_ends = os.open(file, os.O_RDWR)  # somebody may write
    try:
        with pytest.raises(NoCountersError):
            read(str(file))
    finally:
        os.close(both_ends)


@pytest.mark.parametrize("written", [1e12, -1e12, 1e300])
def test_a_time_of_writing_that_no_calendar_has_is_left_out(written: float, counters: dict[str, Any]) -> None:
    assert view((written, counters)).as_json(time.time())["written"] is None


def test_rates_are_by_the_servers_own_clock(counters: dict[str, Any]) -> None:
    more = later(counters, 2.0, requests=10, requests_failed__handler=4, bytes_sent=7, connections_active=3)
    seen = view((0.0, counters), (100.0, more))
    assert seen.seconds == pytest.approx(2.0)
    assert seen.each_second("requests") == pytest.approx(5.0)
    assert seen.each_second("requests_failed", "handler") == pytest.approx(2.0)
    assert seen.each_second("connections_active") is None, "it goes up and down"
    shown = seen.as_json(100.0)
    assert shown["each_second"]["requests"] == 5.0
    assert shown["each_second"]["requests_failed.handler"] == 2.0
    json.dumps(shown)


def test_one_reading_has_no_rates(counters: dict[str, Any]) -> None:
    seen = view((0.0, counters), (0.0, counters))
    assert seen.before is None
    shown = seen.as_json(0.0)
    assert (shown["seconds"], shown["each_second"]) == (None, None)


def test_a_server_that_began_again_has_no_rates(counters: dict[str, Any]) -> None:
    again = later(counters, -counters["uptime_seconds"], requests=-1)
    assert view((0.0, counters), (1.0, again)).before is None
    fewer = later(counters, 5.0, requests=-1)
    assert view((0.0, counters), (1.0, fewer)).before is None


def test_handlers_times_are_those_since_the_reading_before(counters: dict[str, Any]) -> None:
    counters["handler_seconds"] = {"bounds": [0.001, 0.1], "counts": [10, 0, 0], "sum": 0.005}
    more = later(counters, 1.0)
    more["handler_seconds"] = {"bounds": [0.001, 0.1], "counts": [10, 3, 1], "sum": 0.805}
    now = view((0.0, counters), (1.0, more)).handler()
    assert now == {
        "ended": 4,
        "mean_seconds": pytest.approx(0.2),
        "p50_at_most_seconds": 0.1,
        "p99_at_most_seconds": None,
    }
    assert view((0.0, counters)).handler()["p99_at_most_seconds"] == 0.001
    rows = {row.name: row.value for row in view((0.0, counters), (1.0, more)).rows()}
    assert (rows["handler, mean"], rows["handler, 50 of 100"]) == ("200 ms", "<= 100 ms")
    assert rows["handler, 99 of 100"] == "> 100 ms"


def test_a_file_that_is_written_no_longer_is_marked(counters: dict[str, Any]) -> None:
    fast = view((100.0, counters), (101.0, later(counters, 1.0)))
    assert [fast.is_stale(time) for time in (102.0, 110.9, 112.0)] == [False, False, True]
    slow = view((100.0, counters), (160.0, later(counters, 60.0)))
    assert [slow.is_stale(time) for time in (300.0, 341.0)] == [False, True]
    assert any(bad and "has ended, hangs" in text for _, text, bad in slow.head(341.0))


def test_only_what_was_counted_is_shown_of_kinds(counters: dict[str, Any]) -> None:
    names = [row.name for row in view((0.0, counters)).rows()]
    assert "requests" in names
    assert "failed: handler" not in names
    more = later(counters, 1.0, requests_failed__handler=1)
    assert "failed: handler" in [row.name for row in view((0.0, more)).rows()]
    more["endpoint_intact"] = False
    assert ("socket", "no longer as the server made it", True) in list(view((0.0, more)).head(0.0))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000 * 4, "4 d 4 h")]
)
def test_long_times_are_told_by_two_units(seconds: float, told: str) -> None:
    assert span(seconds) == told


def test_short_times_have_a_fitting_unit() -> None:
    assert [duration(one) for one in (2.5, 0.0125, 25e-6)] == ["2.5 s", "12.5 ms", "25 us"]


def test_a_share_of_a_histogram_is_in_its_bucket() -> None:
    assert [percentile_bucket([1, 0, 1], share) for share in (0.5, 0.51, 1)] == [0, 2, 2]


# --- As a command -------------------------------------------------------------------------------------------


async def test_once_it_tells_what_the_file_says(tmp_path: Path, counters: dict[str, Any]) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps(counters))
    run = await command("top", str(file), "--once", "--json")
    assert (run.returncode, run.stderr, run.stdout.count("\n")) == (Status.DONE, "", 1)
    told = json.loads(run.stdout)
    assert (told["counters"], told["file"], told["stale"]) == (counters, str(file), False)
    assert told["handler"]["ended"] == 1
    run = await command("top", str(file), "--once")
    assert run.returncode == Status.DONE
    assert "\x1b" not in run.stdout
    shown = dict(line.rsplit(None, 1) for line in run.stdout.splitlines() if line.startswith("requests"))
    assert {name.strip(): value for name, value in shown.items()}["requests answered"] == "1"


async def test_json_of_what_else_is_in_a_file_can_be_parsed(tmp_path: Path, counters: dict[str, Any]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    (tmp_path / "s").write_text(json.dumps({**counters, "of a later version": [float("nan"), float("inf")]}))
    run = await command("top", str(tmp_path / "s"), "--once", "--json")
    assert run.returncode == Status.DONE
    told = json.loads(run.stdout, parse_constant=refuse)
    assert told["counters"]["of a later version"] == [None, None]


async def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    run = await command("top", str(tmp_path / "none"), "--once")
    assert (run.returncode, run.stdout) == (Status.USAGE, "")
    assert run.stderr == f"trio-ipc: {tmp_path / 'none'}: No such file or directory\n"
    (tmp_path / "other").write_text("{}")
    run = await command("top", str(tmp_path / "other"))
    assert run.returncode == Status.USAGE
    assert "holds no counters of a trio_ipc server" in run.stderr
    assert run.stderr.count("\n") == 1


async def test_text_of_a_file_steers_no_terminal(tmp_path: Path, counters: dict[str, Any]) -> None:
    counters["endpoint"] = "a\x1b[31mb\nc"
    counters["timeouts"]["\x1b[2J"] = 3
    (tmp_path / "s").write_text(json.dumps(counters))
    run = await command("top", str(tmp_path / "s"), "--once")
    assert run.returncode == Status.DONE
    assert "\x1b" not in run.stdout
    assert "a\\x1b[31mb\\nc" in run.stdout


class _EnoughError(Exception):
    pass


async def test_each_writing_is_shown_once_and_a_gone_file_says_nothing_new(
    tmp_path: Path, counters: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    file = tmp_path / "s"
    file.write_text(json.dumps(counters))
    views = [View(read(str(file)))]
    seen: list[list[int]] = []

    def show(_all: Any, new: Any) -> None:
        seen.append([one.now.counters["requests"] for one in new])
        if len(seen) == 1:
            file.write_text(json.dumps(later(counters, 1.0, requests=1)))
        elif len(seen) == 2:
            file.unlink()
        elif len(seen) == 3:
            file.write_text("{")
        elif len(seen) == 4:
            file.write_text(json.dumps(later(counters, 4.0, requests=2)))
        elif len(seen) == 6:
            raise _EnoughError

    with pytest.raises(_EnoughError):
        await top._watch(views, 3.0, show)
    assert seen == [[], [2], [], [], [3], []]
    assert trio.current_time() == pytest.approx(18.0, abs=1.0), "it looks at each interval"


@unix_only
async def test_a_server_that_works_is_watched_until_a_signal(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    (tmp_path / "app.py").write_text(
        "from trio_ipc.daemoneye import DetectionResult\n"
        "async def handle(task, call):\n    return DetectionResult(task_id=task.task_id, success=True)\n"
    )
    file, endpoint = tmp_path / "s.json", str(tmp_path / "s.sock")
    serve = ["serve", "app:handle", endpoint, "--snapshot-file", str(file), "--snapshot-interval", "0.05"]
    server = await trio.lowlevel.open_process(
        [*PROGRAM, *serve], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    assert server.stdout is not None
    watching = None
    try:
        with trio.fail_after(60):
            assert b"listening on" in await server.stdout.receive_some()
            while not file.exists():  # noqa: ASYNC110 - another process makes it
                await trio.sleep(0.01)
            assert file.stat().st_mode & 0o777 == 0o600
            watching = await trio.lowlevel.open_process(
                [*PROGRAM, "top", str(file), "--json", "--interval", "0.05"], stdout=subprocess.PIPE
            )
            assert watching.stdout is not None
            said = bytearray(await watching.stdout.receive_some())
            run = await command("call", endpoint, '{"task_id": "1"}')
            assert run.returncode == Status.DONE, run.stderr
            while not any(json.loads(line)["counters"]["requests"] for line in said.split(b"\n")[:-1]):
                said += await watching.stdout.receive_some()
            told = [json.loads(line) for line in said.split(b"\n")[:-1]]
            assert any(one["each_second"] and one["each_second"]["requests"] > 0 for one in told)
            assert time.time() - os.stat(file).st_mtime < 60
            watching.send_signal(signal.SIGINT)
            assert await watching.wait() == Status.DONE
            server.send_signal(signal.SIGTERM)
            assert await server.wait() == Status.DONE
    finally:
        with trio.CancelScope(shield=True):
            for process in filter(None, (server, watching)):
                process.kill()
                await process.wait()
