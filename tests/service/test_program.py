"""Programs that serve nobody: `run_program`, `until_stopped`, `standard_output`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from tests.platforms import unix_only
from trio_ipc import ConfigError, run_program, standard_output, until_stopped
from trio_ipc.streams import OutputError, ReaderGoneError
from trio_ipc.transports.host import STOP_SIGNALS


@pytest.fixture(autouse=True)
def _handlers_restored() -> Iterator[None]:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    yield
    for number, handler in zip(STOP_SIGNALS, before, strict=True):
        signal.signal(number, handler)


def raising(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raising(ConfigError("x is wrong", hint="mend it")), 1, "it: x is wrong; mend it\n"),
        (raising(OSError(24, "Too many open files")), 1, "it: [Errno 24] Too many open files\n"),
        (raising(OutputError("standard output: full")), 1, "it: standard output: full\n"),
        (raising(ReaderGoneError()), 0, ""),
        (raising(KeyboardInterrupt()), 0, ""),
        (
            raising(ExceptionGroup("", [ConfigError("a\x1b"), ExceptionGroup("", [ConfigError("b")])])),
            1,
            "it: a\\x1b\nit: b\n",
        ),
    ],
)
def test_each_end_is_a_status_and_a_line_for_each_cause(
    body: Callable[[], int | None], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program(body, name="it") == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [SystemExit(2), ZeroDivisionError()])
def test_what_is_no_mistake_of_a_users_comes_out(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run_program(raising(error), name="it")


def test_a_body_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="body is 3, must be a function"):
        run_program(3)  # type: ignore[arg-type]


@unix_only
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_cancels_the_block_and_no_later_one_hurries(number: int) -> None:
    cleaned: list[bool] = []

    async def main() -> bool:
        async with until_stopped() as block:
            try:
                os.kill(os.getpid(), number)
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    os.kill(os.getpid(), number)
                    await trio.lowlevel.checkpoint()
                    cleaned.append(True)
        os.kill(os.getpid(), number)
        return block.cancelled_caught

    assert trio.run(main)
    assert cleaned == [True]


def test_a_block_that_ends_by_itself_says_so_and_raises_what_it_raises() -> None:
    async def ends() -> bool:
        async with until_stopped() as block:
            await trio.lowlevel.checkpoint()
        return block.cancelled_caught

    async def raises() -> None:
        async with until_stopped():
            raise ConfigError("as it is")

    assert not trio.run(ends)
    with pytest.raises(ConfigError, match="as it is"):
        trio.run(raises)


async def test_a_cancellation_from_outside_goes_through() -> None:
    with trio.CancelScope() as outside:
        async with until_stopped() as block:
            outside.cancel()
            await trio.sleep_forever()
    assert outside.cancelled_caught
    assert not block.cancelled_caught


_PROGRAM = """
import sys
from trio_ipc import run_program, standard_output

def body():
    with standard_output() as file:
        print("a line", file=file)

sys.exit(run_program(body, name="it"))
"""


@unix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_said_of_standard_output() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (run.returncode, run.stderr) == (1, b"it: standard output: No space left on device\n")


@unix_only
def test_a_reader_who_has_seen_enough_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM], stdout=write, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (0, b"")


def test_what_happens_in_a_block_that_writes_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="standard output: full"), standard_output():
        raise OSError(28, "full")
    with pytest.raises(ReaderGoneError), standard_output():
        raise BrokenPipeError(32, "gone")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="is closed"), standard_output():
        pass
