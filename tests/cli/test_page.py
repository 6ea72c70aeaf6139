"""The examples of docs/cli.md: each is run as printed, beside a server, and prints what is printed there."""

from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import Path

import pytest
import trio

if sys.platform == "win32":
    pytest.skip("its examples are of Unix sockets", allow_module_level=True)

import grp
import pwd

from tests.platforms import unix_only
from trio_ipc import Call
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, ProcessRecord
from trio_ipc.testing import SystemEndpoint, open_server

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Commands, and what is printed of them."""
    found = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    return [
        (command, printed)
        for (kind, command), (next_kind, printed) in itertools.pairwise([*found, ("", "")])
        if kind == "bash" and next_kind == "text"
    ]


def masked(text: str, directory: str) -> str:
    """Return a text without what differs from run to run: numbers, times, names of users and programs."""
    names = {pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name}
    text = text.replace(directory, "/run/you")
    for name in names:
        text = re.sub(rf"^(\w+ (?:user|group) +){re.escape(name)}$", r"\1you", text, flags=re.MULTILINE)
    text = re.sub(r"^(server program +).*", r"\1...", text, flags=re.MULTILINE)
    text = re.sub(r"(capability-negotiation)-[-\w]+", r"\1", text)
    text = re.sub(rf"of ({'|'.join(map(re.escape, names))}) \(uid", "of you (uid", text)
    text = re.sub(r"user \d+( or \d+)?", "user #", text)
    return re.sub(r"\d+", "#", text)


async def one_process(task: DetectionTask, _: Call) -> DetectionResult:
    records = [ProcessRecord(pid=17, name="init", accessible=True, file_exists=True)]
    return DetectionResult(
        task_id=task.task_id, success=True, processes=[] if task.HasField("metadata") else records
    )


@unix_only  # a shell, and the path of a socket
@pytest.mark.skipif(sys.platform != "linux", reason="prints what only Linux tells")
@pytest.mark.parametrize(("command", "printed"), examples(), ids=lambda text: text.split("\n")[0][:30])
async def test_an_example_prints_what_the_page_says(command: str, printed: str, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    beside = os.path.dirname(sys.executable)
    environ = {**os.environ, "PATH": os.pathsep.join([beside, os.environ["PATH"]])}
    async with open_server(one_process, DETECTION, SystemEndpoint(str(tmp_path / "s.sock"))):
        with trio.fail_after(60):
            run = await trio.run_process(
                ["sh", "-c", command], cwd=tmp_path, capture_stdout=True, capture_stderr=True, env=environ
            )
    assert run.stderr == b""
    assert masked(run.stdout.decode(), str(tmp_path)) == masked(printed, str(tmp_path))


def test_every_command_has_its_place_on_the_page() -> None:
    from trio_ipc.cli.commands import COMMANDS

    text = PAGE.read_text(encoding="utf-8")
    assert [
        name for name in COMMANDS if f"`trio-ipc {name}" not in text and f"\ntrio-ipc {name}" not in text
    ] == []
    assert len(examples()) >= 4
