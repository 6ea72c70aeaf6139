"""A page's commands in one shell, as a reader would type them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import trio

ROOT = Path(__file__).parents[1]

#: For a whole page, in seconds: some start a dozen programs, each of which may take seconds to do so.
LIMIT = 240


def environment(home: str) -> dict[str, str]:
    """The environment of a reader whose home is a test's directory."""
    return {
        **os.environ,
        "HOME": home,
        "USERPROFILE": home,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


async def run_commands(
    script: str, directory: str, *, errors: IO[bytes] | int = subprocess.STDOUT
) -> tuple[int, str]:
    """Run a page's commands; return the exit status, and what was printed. Nothing is left running."""
    settings = environment(directory)
    settings["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), settings["PATH"]])
    shell = await trio.lowlevel.open_process(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=directory,
        env=settings,
        start_new_session=True,
    )
    assert shell.stdout is not None
    output = b""
    try:
        with trio.fail_after(LIMIT):
            async for piece in shell.stdout:
                output += piece
            status = await shell.wait()
    finally:
        # What it has started in the background would outlive a script that fails.
        with trio.CancelScope(shield=True), contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
            await shell.wait()
        await shell.stdout.aclose()
    return status, output.decode()
