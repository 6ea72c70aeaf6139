"""Each command at a real terminal, narrow and wide, with colours and without: what is shown fits."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

if sys.platform == "win32":
    pytest.skip("terminals are as Unix has them", allow_module_level=True)
assert sys.platform != "win32"

from tests.cli.processes import command  # noqa: E402
from tests.cli.terminal import at_terminal, plain, until_enough  # noqa: E402
from tests.support import succeed  # noqa: E402
from trio_ipc import Server  # noqa: E402
from trio_ipc.cli.commands import COMMANDS  # noqa: E402
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask  # noqa: E402
from trio_ipc.testing import Recorder, SystemEndpoint, open_client_at, open_server, temporary_endpoint  # noqa: E402

WIDTHS = (40, 120)
#: What colours (ECMA-48, "SGR"), but for what ends colours.
COLOUR = re.compile(r"\x1b\[[1-9][0-9;]*m")
#: A word that no line can be broken in: a path, a name, a message.
LONG_WORD = re.compile(r"\S{30,}")


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[str]:
    """A server, and beside it what the commands read: a recording, and the file of its counters."""
    os.chmod(directory, 0o700)
    path = str(directory / "s.sock")
    server: Server[DetectionTask, DetectionResult]
    async with open_server(succeed, DETECTION, SystemEndpoint(path)) as server:
        with Recorder(directory / "said", DETECTION) as recorder:
            async with open_client_at(DETECTION, SystemEndpoint(path), wrap=recorder.wrap) as client:
                await client.call(DetectionTask(task_id="1"))
        (directory / "counters").write_text(json.dumps(server.snapshot().as_dict()))
        yield path


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def too_long(shown: str, columns: int) -> list[str]:
    """The lines that do not fit and could have been broken."""
    return [line for line in shown.splitlines() if len(line) > columns and not LONG_WORD.search(line)]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", ["", *COMMANDS])
async def test_help_fits(name: str, columns: int) -> None:
    status, said = await at_terminal(*filter(None, [name]), "--help", columns=columns)
    assert status == 0
    shown = plain(said)
    assert shown.startswith("Usage: trio-ipc")
    # What is set off by two more blanks are examples, tables and lists: they stay as they are.
    assert [line for line in too_long(shown, columns) if not line.startswith("    ")] == []
    assert len(shown) > 200


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(("columns", "colour"), [(40, True), (120, True), (40, False)])
@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["info", "s.sock"], ["alive", "trusted"]),
        (["doctor", "s.sock"], ["somebody listens", "it answers, in the ieee variant"]),
        (["doctor", "no.sock"], ["there is no socket at the path", "-> start the server"]),
        (["call", "s.sock", '{"task_id": "1"}'], ['"task_id": "1"']),
        (["replay", "said", "s.sock"], ["1 request, 0 answered otherwise"]),
        (["bench", "s.sock", "--calls", "5", "--warm-up", "1"], ["calls 5", "p99_us"]),
        (["check", "s.sock", "--patience", "0.2"], ["kept"]),
        (["top", "counters", "--once"], ["requests answered", "handler, mean"]),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
async def test_what_is_shown_fits(
    arguments: list[str], seen: list[str], columns: int, colour: bool, tmp_path: Path
) -> None:
    async with served(tmp_path):
        environ = {} if colour else {"NO_COLOR": "1"}
        _, said = await at_terminal(*arguments, columns=columns, **environ)
    shown = plain(said)
    flat = " ".join(shown.split())
    for text in seen:
        assert text in flat, shown
    assert too_long(shown, columns) == []
    if not colour:
        assert set(COLOUR.findall(said)) <= {"\x1b[1m", "\x1b[2m"}, "bold and dim are no colours"


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("columns", WIDTHS)
async def test_text_for_files_is_shown_whole(columns: int, tmp_path: Path) -> None:
    async with served(tmp_path):
        for arguments in (["describe"], ["show", "said"], ["completion", "bash"]):
            status, said = await at_terminal(*arguments, columns=columns)
            assert status == 0
            assert said == (await command(*arguments)).stdout, "the terminal breaks its lines"


@pytest.mark.parametrize("columns", WIDTHS)
async def test_what_is_said_is_shown_live(columns: int) -> None:
    with temporary_endpoint() as server, temporary_endpoint() as between:
        async with open_server(succeed, DETECTION, server), trio.open_nursery() as nursery:

            async def ask() -> None:
                async with open_client_at(DETECTION, between) as client:
                    await client.call(DetectionTask(task_id="of a test"))

            def enough(said: str) -> bool:
                if "Ctrl-C ends it" in said and not asked:
                    asked.append(True)
                    nursery.start_soon(ask)
                return said.count('"of a test"') == 2

            asked: list[bool] = []
            status, said = await until_enough(
                enough, "monitor", server.path, "--listen", between.path, columns=columns
            )
    assert status == 0
    assert "DetectionTask, " in said


@pytest.mark.parametrize("columns", WIDTHS)
async def test_counters_are_drawn_again_until_ctrl_c(columns: int, tmp_path: Path) -> None:
    file = tmp_path / "counters"

    async with open_server(succeed, DETECTION, SystemEndpoint(str(tmp_path / "s.sock"))) as server:

        def write(**more: int) -> None:
            whole = server.snapshot().as_dict()
            whole.update({name: whole[name] + number for name, number in more.items()})
            (tmp_path / "new").write_text(json.dumps(whole))
            os.replace(tmp_path / "new", file)

        def enough(said: str) -> bool:
            if "requests answered" in said and not written:
                written.append(True)
                write(requests=77_000)
            return "77,000" in said

        written: list[bool] = []
        write()
        status, said = await until_enough(enough, "top", str(file), "--interval", "0.05", columns=columns)
    assert status == 0
    assert said.endswith("\x1b[?25h") or "\x1b[?25h" in said[-40:], "the cursor is there again"
    assert "/s" in plain(said)
    assert too_long(plain(said), columns) == []
