"""The command at a terminal of its own: what a person sees, with its colours, at any width. Only on Unix."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import trio

#: What moves the cursor, colours, and hides (ECMA-48, "CSI").
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def at_terminal(*arguments: str, columns: int = 100, **environ: str) -> tuple[int, str]:
    """Run ``trio-ipc`` at a terminal; return its exit status and all that was written there."""
    return await until_enough(lambda _: False, *arguments, columns=columns, **environ)


async def until_enough(
    enough: Callable[[str], bool], *arguments: str, columns: int = 100, **environ: str
) -> tuple[int, str]:
    """Do the same, and press Ctrl-C when what was written until then is enough."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_ipc", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "", **environ},
    )
    os.close(theirs)
    said, pressed = b"", False
    try:
        with trio.fail_after(60):
            while True:
                await trio.lowlevel.wait_readable(ours)
                try:
                    said += os.read(ours, 65_536)
                except OSError:  # Linux says EIO where everybody has closed the terminal
                    break
                if not pressed and enough(said.decode("utf-8", "replace")):
                    pressed = True
                    process.send_signal(signal.SIGINT)
            return await process.wait(), said.decode().replace("\r\n", "\n")
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
        os.close(ours)


def plain(text: str) -> str:
    """Return the text without what steers a terminal."""
    return _SEQUENCE.sub("", text)
