"""Installs the wheel where there is nothing else, and uses it as the README says."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import attrs

from .making import ROOT, TOOL_LIMIT

#: Seconds until a program counts as hung.
_PATIENCE: Final = 60.0

#: A user's own test, for the plugin that the wheel brings.
_TEST: Final = """
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True)


async def test_it(ipc_server, ipc_client):
    await ipc_server(handle, DETECTION)
    client = await ipc_client(DETECTION)
    assert (await client.call(DetectionTask(task_id="1"))).success
"""

#: Where everything comes from, and that the types of all of it are there for a type checker.
_ORIGIN: Final = """
import pathlib, sys
import pytest_trio_ipc, trio_ipc, trio_ipc.examples
for package in (trio_ipc, pytest_trio_ipc):
    folder = pathlib.Path(package.__file__).parent
    assert folder.is_relative_to(sys.prefix), folder
    assert (folder / "py.typed").is_file(), folder
"""


class DidNotRun(Exception):  # noqa: N818 - it is what it says
    """A program did something else than it should; the message has what."""


@attrs.frozen
class Program:
    """A program that the README prints, and what it prints itself."""

    text: str
    output: str | None

    @property
    def serves(self) -> bool:
        return "serve" in self.text and "open_client" not in self.text


def programs(page: str) -> list[Program]:
    """Return a page's programs, in their order."""
    found = []
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for (language, text), (following, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "python":
            found.append(Program(text, output if following == "text" else None))
    return found


@attrs.frozen
class Environment:
    """A Python of its own, with what was installed into it, and a folder outside of the tree to work in."""

    python: Path
    folder: Path

    @classmethod
    def make(cls, base: str, scratch: Path, wheel: Path, *constraints: str) -> Environment:
        """Make an environment and install the wheel, with the extras that its programs need.

        Args:
            base: the interpreter.
            scratch: an empty folder.
            wheel: what to install.
            constraints: versions that must be taken, such as ``protobuf==5.26.1``.
        """
        subprocess.run([base, "-m", "venv", str(scratch / "venv")], timeout=TOOL_LIMIT, check=True)
        scripts = scratch / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        folder = scratch / "work"
        folder.mkdir()
        made = cls(scripts / "python", folder)
        made.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:",
                 f"{wheel}[examples,testing]", *constraints)  # fmt: skip
        made.run("-m", "pip", "check")
        return made

    def environ(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TRIO_"))
        }
        return {**clean, "HOME": str(self.folder), "USERPROFILE": str(self.folder)}

    def run(self, *arguments: str) -> str:
        """Run its Python to a good end; return what it prints."""
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=10 * _PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            what = " ".join(arguments[:3])
            raise DidNotRun(f"{what!r} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def version(self, package: str) -> str:
        """Return the version of an installed package."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return self.run("-c", code).strip()

    def check(self) -> list[str]:
        """Use what is installed; return what was run. Raises :exc:`DidNotRun`."""
        self.run("-W", "error", "-c", _ORIGIN)
        done = ["imports"]
        done += self._run_programs(programs((ROOT / "README.md").read_text(encoding="utf-8")))
        said = self.run("-m", "trio_ipc.examples.demo")
        if "all steps worked" not in said:
            raise DidNotRun(f"the demo said:\n{said}")
        done.append("the demo")
        (self.folder / "test_mine.py").write_text(_TEST, encoding="utf-8")
        self.run("-m", "pytest", "-q", "-o", "trio_mode=true", "-p", "no:cacheprovider", "test_mine.py")
        return [*done, "a test with the plugin's fixtures"]

    def _run_programs(self, found: list[Program]) -> list[str]:
        server: Program | None = None
        for number, program in enumerate(found):
            if program.serves:
                server = program
                continue
            file = self._saved(number, program)
            if "open_client" in program.text and "serve" not in program.text:
                if server is None:
                    raise DidNotRun("the README prints a client before a server")
                said = self._beside(self._saved(0, server, "server"), file)
            else:
                said = self.run("-W", "error", str(file))
            if said.replace("\r\n", "\n") != (program.output or ""):
                raise DidNotRun(
                    f"program {number + 1} of the README printed {said!r}, not {program.output!r}"
                )
        return [f"the README's {len(found)} programs"]

    def _saved(self, number: int, program: Program, name: str = "program") -> Path:
        file = self.folder / f"{name}_{number}.py"
        file.write_text(program.text, encoding="utf-8")
        return file

    def _beside(self, server: Path, client: Path) -> str:
        """Run a client beside a server that listens."""
        with subprocess.Popen(
            [str(self.python), "-W", "error", str(server)],
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                _wait_for_line(process, "listening")
                return self.run("-W", "error", str(client))
            finally:
                process.kill()


def _wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put(line)
        lines.put("")

    # Ends with the process, which its caller kills.
    threading.Thread(target=read, daemon=True).start()
    said = ""
    while word not in said:
        line = lines.get(timeout=_PATIENCE)
        if not line:
            raise DidNotRun(f"the server ended before it said {word!r}:\n{said}")
        said += line
