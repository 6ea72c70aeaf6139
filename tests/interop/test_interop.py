"""Peers in other languages with ours, both ways; ``make interop`` runs them with each other, too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop import alone, matrix, page
from tests.interop.matrix import Outcome
from tests.interop.peers import PEERS, ROOT, Peer
from tests.interop.scenarios import SCENARIOS, for_result_of, of_size
from tests.interop.stdlib.messages import SCHEMA
from tests.platforms import unix_only
from trio_ipc.daemoneye import DETECTION

pytestmark = unix_only

OURS = ("ours", "legacy")
OTHERS = tuple(name for name in PEERS if name not in OURS)


def taking_part(name: str) -> None:
    if why := PEERS[name].left_out():
        pytest.skip(why)


def judge(outcomes: list[Outcome], scenarios: int) -> None:
    assert len(outcomes) == scenarios
    assert [str(one) for one in outcomes if one.kept is False] == []


@pytest.mark.parametrize("client", OTHERS)
@pytest.mark.parametrize("server", OURS)
async def test_our_server_serves_a_client_in_another_language(server: str, client: str) -> None:
    taking_part(client)
    judge(await matrix.run_pair(PEERS[server], PEERS[client]), len(SCENARIOS))


@pytest.mark.parametrize("server", OTHERS)
@pytest.mark.parametrize("client", OURS)
async def test_our_client_calls_a_server_in_another_language(server: str, client: str) -> None:
    taking_part(server)
    judge(await matrix.run_pair(PEERS[server], PEERS[client]), len(SCENARIOS))


@pytest.mark.parametrize("name", PEERS)
async def test_a_server_keeps_to_the_protocol_whatever_bytes_come(name: str) -> None:
    taking_part(name)
    judge(await matrix.run_server(PEERS[name]), len(alone.OF_SERVERS))


@pytest.mark.parametrize("name", PEERS)
async def test_a_client_keeps_to_the_protocol_whatever_bytes_come(name: str) -> None:
    taking_part(name)
    judge(await matrix.run_client(PEERS[name]), len(alone.OF_CLIENTS))


# --- The scenarios themselves -------------------------------------------------------------------------------


async def test_a_peer_that_is_broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    # It answers as if the golden frames were IEEE's: with the program's default variant exchanged.
    program = (
        "import sys; from tests.interop.stdlib import peer, __main__ as program; "
        "peer.CHECKSUMS['ieee'] = peer.crc32c; program.main(*sys.argv[1:])"
    )
    broken = Peer("broken", "", (*PEERS["python"].command[:2], "-c", program))
    outcomes = {one.scenario: one for one in await matrix.run_client(broken)}
    assert outcomes["responses in pieces"].kept is False
    assert "checksum" in outcomes["responses in pieces"].why
    assert outcomes["nobody there"].kept is True


@pytest.mark.parametrize("size", [100, 200, 65_536, 65_537, 1024 * 1024])
def test_messages_are_made_of_any_size(size: int) -> None:
    assert of_size(size).ByteSize() == size
    assert for_result_of(size).task_id == "s"


# --- The peer by hand ---------------------------------------------------------------------------------------


def test_the_schema_by_hand_is_that_of_the_contract() -> None:
    kinds = {
        descriptor.name: descriptor
        for message in (DETECTION.request_type, DETECTION.response_type)
        for descriptor in [message.DESCRIPTOR, *message.DESCRIPTOR.file.message_types_by_name.values()]
    }
    numbers = {kind: {field.number: field.name for field in fields} for kind, fields in SCHEMA.items()}
    assert numbers.pop("Threshold") == {1: "key", 2: "value"}
    for kind, fields in numbers.items():
        expected = {field.number: field.name for field in kinds[kind].fields if field.number != 100}
        assert fields == expected, kind


# --- The program --------------------------------------------------------------------------------------------


def test_a_peer_that_cannot_take_part_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer("go", "", (str(tmp_path / "peer"),), "go")
    monkeypatch.setattr("shutil.which", lambda _tool: None)
    assert peer.left_out() == "go is not installed"
    monkeypatch.setattr("shutil.which", lambda tool: f"/usr/bin/{tool}")
    assert peer.left_out() == "it is not built: `make interop-go`"
    (tmp_path / "peer").touch(mode=0o700)
    assert peer.left_out() is None


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.interop", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_a_run_says_what_came_out() -> None:
    run = run_program("--peers", "python")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    [pair] = [line for line in lines if line.startswith("server python, client python: ")]
    assert re.search(r": (\d+) of \1$", pair)
    assert re.fullmatch(r"\d+ passed, 0 failed, 2 skipped", lines[-1])


def test_a_run_with_an_unknown_peer_is_refused() -> None:
    run = run_program("--peers", "python,cobol")
    assert run.returncode == 2
    assert "there is no peer cobol; there are ours, legacy, python, go, rust" in run.stderr


# --- The page -----------------------------------------------------------------------------------------------


def test_the_page_has_each_scenario_and_each_peer_and_nothing_broken() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.written(text) == page.tables(page.expected()), "run `make interop ARGS=--publish`"


def test_what_is_broken_would_be_seen_in_the_page() -> None:
    outcomes = page.expected()
    broken = [Outcome(one.scenario, one.server, one.client, False) if one.kept else one for one in outcomes]
    text = page.with_tables(page.PAGE.read_text(encoding="utf-8"), broken)
    assert page.written(text) != page.tables(outcomes)
    assert "**broken**" in text
    assert not re.search(r"\| [1-9]\d* of ", page.written(text))


def test_the_programs_page_says_who_takes_part() -> None:
    text = (ROOT / "tests" / "interop" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## What a program does")[0]
    assert {*re.findall(r"`(\w+)`(?=[,| ])", table)} >= {*PEERS}
