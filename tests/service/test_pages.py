"""What the pages about services and containers show besides programs: units, a compose file, its users."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.docs_support import DOCS, fences_of
from tests.examples.support import Program, spawn

from .support import at

UNITS = ("trio-ipc.service", "trio-ipc.socket")

#: In the unit that the page shows for a service that makes its own socket.
ALONE = "RuntimeDirectory="


@pytest.mark.parametrize(
    ("page", "language", "file"),
    [("services.md", "ini", "trio-ipc.socket"), ("containers.md", "yaml", "compose.yaml")],
)
def test_what_a_page_shows_of_a_file_is_in_it(page: str, language: str, file: str) -> None:
    whole = (DOCS / file).read_text(encoding="utf-8")
    shown = [fence.text for fence in fences_of(DOCS / page) if fence.language == language]
    shown = [text for text in shown if ALONE not in text]
    assert shown
    assert [text for text in shown if text not in whole] == []


def test_the_statuses_on_the_page_are_those_of_the_library() -> None:
    from trio_ipc import ExitStatus

    text = (DOCS / "services.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)
    assert told == [(str(status.value), status.name) for status in ExitStatus]
    kept = re.search(r"^RestartPreventExitStatus=(.*)$", (DOCS / UNITS[0]).read_text("utf-8"), re.MULTILINE)
    assert kept is not None
    assert kept[1].split() == [str(ExitStatus.UNSAFE.value), str(ExitStatus.CONFIG.value)]


def verified(directory: str, units: Mapping[str, str]) -> None:
    """Have systemd judge units, by their names."""
    for unit, text in units.items():
        here = text.replace("/opt/trio-ipc/bin/python", sys.executable)
        Path(directory, unit).write_text(here, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *(f"{directory}/{unit}" for unit in units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "trio-ipc" in line]
    # Before 253 systemd does not know notify-reload, as the page says.
    assert [line for line in said if "notify-reload" not in line] == []
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="takes systemd-analyze(1)")
def test_systemd_finds_nothing_wrong_with_the_units(directory: str) -> None:
    verified(directory, {unit: (DOCS / unit).read_text(encoding="utf-8") for unit in UNITS})


def unit_alone() -> str:
    [unit] = [
        one.text for one in fences_of(DOCS / "services.md") if one.language == "ini" and ALONE in one.text
    ]
    return unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="takes systemd-analyze(1)")
def test_systemd_finds_nothing_wrong_with_the_unit_of_a_service_that_makes_its_own_socket(
    directory: str,
) -> None:
    verified(directory, {"trio-ipc.service": unit_alone()})


def test_that_unit_makes_the_directory_of_its_endpoint_and_has_the_rest_of_the_other_one() -> None:
    lines = unit_alone().splitlines()
    made = dict(line.split("=", 1) for line in lines if line.startswith("RuntimeDirectory"))
    assert made["RuntimeDirectoryMode"] == "0700"
    assert f"Environment=TRIO_IPC_ENDPOINT_PATH=/run/{made['RuntimeDirectory']}/service.sock" in lines
    kept = (DOCS / UNITS[0]).read_text(encoding="utf-8").splitlines()
    own = {line for line in lines if not re.match("(Runtime|Environment|WorkingDirectory)", line)}
    assert own - {*kept} == set()
    assert not any(
        "socket" in line and line.partition("=")[0] in {"Requires", "After", "Also"} for line in lines
    )


# --- Two users, one directory -------------------------------------------------------------------------------

as_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="takes root on Linux: it becomes other users"
)

#: Whom the compose file names, and somebody else.
SERVER, CLIENT, GROUP, STRANGER = 10_001, 10_002, 10_000, 10_003

#: The tree may be one that only root can read; so all is imported before.
_BECOME = """
import grp, json, os, pwd, sys, tempfile, traceback, trio
import trio_ipc.channel.interprocess, trio_ipc.client.client, trio_ipc.service, trio_ipc.daemoneye
import trio_ipc.transports.unix_listener
name, uid, gid = sys.argv[1:4]
program = compile(open(name).read(), name, "exec")
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
exec(program, {"__name__": "__main__"})
"""


def program_of(page: Path, number: int) -> str:
    return [fence.text for fence in fences_of(page) if fence.language == "python"][number]


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    names = ("server.py", "client.py", "health.py")
    found = {}
    for number, name in enumerate(names):
        (tmp_path / name).write_text(program_of(DOCS / "containers.md", number), encoding="utf-8")
        found[name] = str(tmp_path / name)
    return found


@pytest.fixture
def volume(directory: str) -> str:
    """A directory as the compose file's volume is."""
    assert sys.platform != "win32"
    options = re.search(r'o: "uid=(\d+),gid=(\d+),mode=(\d+)', (DOCS / "compose.yaml").read_text("utf-8"))
    assert options is not None
    path = f"{directory}/run"
    os.chmod(directory, 0o755)
    os.mkdir(path)
    os.chown(path, int(options[1]), int(options[2]))
    os.chmod(path, int(options[3], 8))
    return path


@asynccontextmanager
async def run_as(uid: int, gid: int, program: str, endpoint: str) -> AsyncIterator[Program]:
    environ = at(endpoint, TRIO_IPC_SOCKET_GROUP=str(GROUP), PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-c", _BECOME, program, str(uid), str(gid)]
    async with spawn(*command, environ=environ) as running:
        yield running


@as_root
async def test_the_containers_users_reach_each_other_and_nobody_else_does(
    volume: str, programs: dict[str, str]
) -> None:
    endpoint = f"{volume}/service.sock"
    async with run_as(SERVER, GROUP, programs["server.py"], endpoint) as server:
        assert await server.stdout.next() == f"listening on {endpoint}", server.stderr.seen
        async with run_as(CLIENT, GROUP, programs["client.py"], endpoint) as client:
            assert await client.end() == 0, client.stderr.seen
            assert client.stdout.seen == ["hello"]
        async with run_as(SERVER, GROUP, programs["health.py"], endpoint) as health:
            assert await health.end() == 0, health.stderr.seen
        async with run_as(STRANGER, STRANGER, programs["client.py"], endpoint) as stranger:
            assert await stranger.end() == 1
            assert "permission denied to uid 10003" in stranger.stderr.seen[-1]
        await server.signal(signal.SIGTERM)
        assert await server.end() == 0
    async with run_as(SERVER, GROUP, programs["health.py"], endpoint) as health:
        assert await health.end() == 1
        assert "no server" in health.stderr.seen[-1]
    assert os.listdir(volume) == []
