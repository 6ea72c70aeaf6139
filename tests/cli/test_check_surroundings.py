"""``trio-ipc check`` at a terminal, wide and narrow, without colour; and for users without enough rights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    SystemEndpoint,
    open_server,
    simulate_collector,
    temporary_endpoint,
    unsolicited_response,
)

if sys.platform != "win32":
    from tests.cli.terminal import at_terminal, plain

pytestmark = unix_only

ROOT = Path(__file__).parents[2]
STRANGER = 12_345

#: Runs the command as somebody else. What is loaded late must be loaded before: a stranger cannot read it.
AS_A_STRANGER = f"""
import os, sys
import encodings.idna, rich.console, trio, trio_ipc.testing.conformance, trio_ipc.daemoneye
import trio_ipc.cli.running
import trio_ipc.transports.unix, trio_ipc.transports.unix_listener, trio_ipc.cli.commands.check
from trio_ipc.cli.main import main
os.setgid({STRANGER})
os.setuid({STRANGER})
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("columns", [120, 40])
async def test_at_a_terminal_it_is_a_table_that_fits(columns: int) -> None:
    with temporary_endpoint() as endpoint:
        async with simulate_collector(endpoint=endpoint) as collector:
            collector.negotiation = unsolicited_response()
            status, shown = await at_terminal("check", endpoint.path, columns=columns)
    assert status == Status.NO
    assert "\x1b[32mkept" in shown
    assert "\x1b[1;31mbroken" in shown
    table = plain(shown).rpartition("\r")[2].splitlines()
    assert [line.split()[0] for line in table if re.match(r"S\d", line)] == [f"S{n}" for n in range(1, 25)]
    assert max(map(len, table[:-1])) <= columns
    assert table[-1].endswith("5 kept, 1 broken, 18 not shown")


async def test_colour_and_movement_are_for_those_who_want_them() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            _, shown = await at_terminal("check", endpoint.path, NO_COLOR="1")
            _, dumb = await at_terminal("check", endpoint.path, TERM="dumb")
    assert "\x1b[32m" not in shown
    assert "\x1b[3" not in dumb
    assert "0 broken" in shown
    assert "0 broken" in dumb


async def test_json_at_a_terminal_is_for_people() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            _, shown = await at_terminal("check", "--json", endpoint.path)
    assert '\n  "side": "server",\n' in plain(shown)


@pytest.mark.skipif(
    sys.platform != "win32" and os.geteuid() != 0, reason="takes root: a child is another user"
)
async def test_who_has_not_enough_rights_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)  # a stranger cannot write its file

    async def as_stranger(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", AS_A_STRANGER, "check", *arguments]
        return await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT
        )

    with tempfile.TemporaryDirectory(prefix="ipc-", dir="/tmp") as directory:
        endpoint = SystemEndpoint(f"{directory}/s.sock")
        with trio.fail_after(60):
            async with open_server(succeed, DETECTION, endpoint):
                for mode in (0o700, 0o755):
                    Path(directory).chmod(mode)
                    for arguments in ([endpoint.path], ["--listen", endpoint.path]):
                        run = await as_stranger(*arguments)
                        assert (run.returncode, run.stdout) == (Status.UNREACHABLE, b""), (arguments, run)
                        assert run.stderr.startswith(f"trio-ipc: {endpoint.path}: ".encode()), run
                        assert run.stderr.count(b"\n") == 1, run
                # A client that may connect, and is not served.
                Path(endpoint.path).chmod(0o666)
                run = await as_stranger(endpoint.path)
            assert run.returncode == Status.NO, run
            assert b"It may refuse this user" in run.stdout
