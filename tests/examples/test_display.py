from __future__ import annotations

import json
import time

import pytest

from examples.agent.changes import Change, Changes
from examples.agent.display import JsonDisplay, TableDisplay, as_json
from examples.agent.paging import Enumeration
from trio_ipc.daemoneye import ProcessRecord

NASTY = ProcessRecord(
    pid=66,
    ppid=1,
    name="\x1b[2J[red]evil[/red]\r\n",
    executable_path="/tmp/\x1b]0;title\x07/[bold]x",
    accessible=True,
    file_exists=True,
)
PLAIN = ProcessRecord(
    pid=4_000_000_000,
    ppid=7,
    name="a" * 60,
    executable_path="/usr/bin/plain",
    start_time=int(time.time()),
    cpu_usage=12.34,
    memory_usage=5 * 1024 * 1024,
    user_id="4294967294",
    executable_hash="abcdef" * 10,
    accessible=True,
    file_exists=True,
)
BARE = ProcessRecord(pid=2)


@pytest.fixture
def table() -> TableDisplay:
    return TableDisplay(limit=None, with_hashes=True)


def test_the_table_shows_what_people_look_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    TableDisplay(limit=None, with_hashes=True).processes(1, Enumeration([PLAIN, NASTY, BARE]))
    output = capsys.readouterr().out
    for shown in ("4000000000", "12.3%", "5.0 MiB", "/usr/bin/plain", "abcdefabcdef…", "4294967294", "aaa…"):
        assert shown in output
    assert "3 of 3 processes" in output


def test_only_paths_give_way_when_there_is_little_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    long = ProcessRecord(pid=4_000_000_000, name="b" * 20, executable_path="/usr/bin/" + "c" * 99)
    TableDisplay(limit=None, with_hashes=False).processes(1, Enumeration([long]))
    output = capsys.readouterr().out
    assert "4000000000" in output
    assert "b" * 20 in output
    assert "ccc…" in output
    assert max(map(len, output.splitlines())) == 110


def test_a_processs_name_can_neither_steer_the_terminal_nor_the_markup(
    table: TableDisplay, capsys: pytest.CaptureFixture[str]
) -> None:
    table.processes(1, Enumeration([NASTY]))
    table.changes(2, Changes(appeared=[NASTY], vanished=[NASTY], changed=[Change(NASTY, NASTY)]), [])
    output = capsys.readouterr().out
    assert "[red]evil[/red]" in output
    assert "[bold]x" in output
    assert not set(output) & {"\x1b", "\r", "\x07"}
    assert output.count("\n") == 5 + 1 + 3


def test_the_largest_come_first_and_a_limit_says_how_many_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [ProcessRecord(pid=1000 + size, name="x", memory_usage=size) for size in range(30)]
    TableDisplay(limit=2, with_hashes=False).processes(1, Enumeration(records, skipped=[77], pages=3))
    output = capsys.readouterr().out
    assert output.index("1029") < output.index("1028")
    assert "1027" not in output
    assert "2 of 30 processes, in 3 pages, too large for a frame and left out: 77" in output


def test_each_change_is_a_line(table: TableDisplay, capsys: pytest.CaptureFixture[str]) -> None:
    deleted = ProcessRecord(pid=5, name="cat", executable_path="/bin/cat", on_disk_mismatch=True)
    before = ProcessRecord(pid=5, name="cat", executable_path="/bin/cat", file_exists=True)
    changes = Changes(appeared=[PLAIN], vanished=[BARE], changed=[Change(before, deleted)])
    table.changes(2, changes, [9])
    vanished, appeared, changed, skipped = capsys.readouterr().out.splitlines()
    assert "- vanished       2 ? (no executable)" in vanished
    assert "+ appeared 4000000000 aaa" in appeared
    assert "! changed        5 cat (/bin/cat [deleted], was /bin/cat)" in changed
    assert skipped == "too large for a frame and left out: 9"


def test_no_change_is_no_line(table: TableDisplay, capsys: pytest.CaptureFixture[str]) -> None:
    table.changes(2, Changes(), [])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**64 - 1, "16777216.0 TiB")]
)
def test_sizes_are_human_readable(
    table: TableDisplay, capsys: pytest.CaptureFixture[str], size: int, text: str
) -> None:
    table.processes(1, Enumeration([ProcessRecord(pid=1, memory_usage=size)]))
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(("start", "text"), [(0, "1970-01-01"), (2**62, "?")])
def test_a_start_long_ago_shows_its_date_and_an_impossible_one_a_question_mark(
    table: TableDisplay, capsys: pytest.CaptureFixture[str], start: int, text: str
) -> None:
    table.processes(1, Enumeration([ProcessRecord(pid=1, name="x", start_time=start + 43_200 * (not start))]))
    assert text in capsys.readouterr().out


def test_a_cycle_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    display = JsonDisplay()
    display.processes(1, Enumeration([NASTY, PLAIN], skipped=[3]))
    display.changes(2, Changes(appeared=[PLAIN], vanished=[BARE], changed=[Change(PLAIN, NASTY)]), [])
    display.note("not for programs")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["cycle"], second["cycle"]) == (1, 2)
    assert first["time"] <= second["time"]
    assert [record["name"] for record in first["processes"]] == [NASTY.name, PLAIN.name]
    assert first["skipped"] == [3]
    assert second["changes"]["vanished"] == [as_json(BARE)]
    assert second["changes"]["changed"] == [{"before": as_json(PLAIN), "after": as_json(NASTY)}]


def test_json_keeps_numbers_as_numbers_and_says_what_is_false() -> None:
    told = as_json(ProcessRecord(pid=1, memory_usage=2**64 - 1))
    assert told["memory_usage"] == 2**64 - 1
    assert told["accessible"] is False
    assert told["command_line"] == []
    assert "cpu_usage" not in told


@pytest.mark.parametrize("share", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_null_and_hides_nothing_in_a_table(
    table: TableDisplay, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    odd = ProcessRecord(pid=9, name="odd", cpu_usage=share)
    JsonDisplay().processes(1, Enumeration([odd]))
    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert told["processes"][0]["cpu_usage"] is None
    table.processes(1, Enumeration([odd, PLAIN]))
    assert "2 of 2 processes" in capsys.readouterr().out
