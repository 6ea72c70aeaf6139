"""The command as a process without a terminal, as scripts run it."""

from __future__ import annotations

import os
import subprocess
import sys

import trio

PROGRAM = [sys.executable, "-m", "trio_ipc"]


async def command(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``trio-ipc`` to its end.

    Args:
        arguments: what follows its name.
        stdin: what it can read.
        environ: variables besides those of this process.
    """
    with trio.fail_after(60):
        run = await trio.run_process(
            [*PROGRAM, *arguments],
            stdin=stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **environ},
        )
    out, err = (text.decode().replace("\r\n", "\n") for text in (run.stdout, run.stderr))
    return subprocess.CompletedProcess(run.args, run.returncode, out, err)
