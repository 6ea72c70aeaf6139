"""Programs that serve nobody: `run_program`, `until_stopped`, `standard_output`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import trio
import trio.lowlevel

from tests.platforms import unix_only
from trio_ipc import ConfigError, run_program, standard_output, until_stopped
from trio_ipc.service.console import Console
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
    with pytest.raises(TypeError, match="body is 3, must be an ordinary function"):
        run_program(3)  # type: ignore[arg-type]


def test_a_body_that_is_async_is_refused_and_not_taken_for_one_that_is_done() -> None:
    async def main() -> int:
        raise AssertionError("unreachable")

    with pytest.raises(TypeError, match=r"body is .*main.*, must be an ordinary function .* trio\.run"):
        run_program(main)  # type: ignore[arg-type]


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
from trio_ipc import ConfigError, run_program, standard_output

def body():
    with standard_output() as file:
        print("a line", file=file)
    if len(sys.argv) > 1:
        raise eval(sys.argv[1])

sys.exit(run_program(body, name="it"))
"""


#: What the body raises, and what is said of it.
_FAILURES = {
    "ConfigError('x is wrong')": "it: x is wrong\n",
    "ZeroDivisionError('a defect')": "ZeroDivisionError: a defect\n",
}
_NO_SPACE = "it: standard output: No space left on device\n"


def run_writing_to(stdout: int | IO[str], *raising: str) -> subprocess.CompletedProcess[str]:
    # What is written is to be met at the end, when it is flushed.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *raising],
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
        encoding="utf-8",
        env=environ,
    )


@pytest.fixture
def full_disk() -> Iterator[IO[str]]:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        yield full


@pytest.fixture
def pipe_without_reader() -> Iterator[int]:
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@unix_only
def test_a_full_disk_is_said_of_standard_output(full_disk: IO[str]) -> None:
    run = run_writing_to(full_disk)
    assert (run.returncode, run.stderr) == (1, _NO_SPACE)


@unix_only
def test_a_full_disk_is_said_though_a_parser_has_ended_the_program(full_disk: IO[str]) -> None:
    run = run_writing_to(full_disk, "SystemExit(0)")
    assert (run.returncode, run.stderr) == (1, _NO_SPACE)


@unix_only
@pytest.mark.parametrize(("error", "said"), _FAILURES.items())
def test_a_full_disk_hides_no_failure(error: str, said: str, full_disk: IO[str]) -> None:
    run = run_writing_to(full_disk, error)
    assert run.returncode == 1
    assert said in run.stderr
    assert run.stderr.count(_NO_SPACE) == 1


@unix_only
def test_a_full_disk_that_the_body_has_met_is_said_once(full_disk: IO[str]) -> None:
    run = run_writing_to(full_disk, "OSError('standard output: No space left on device')")
    assert (run.returncode, run.stderr) == (1, _NO_SPACE)


@unix_only
def test_a_reader_who_has_seen_enough_is_no_failure(pipe_without_reader: int) -> None:
    run = run_writing_to(pipe_without_reader)
    assert (run.returncode, run.stderr) == (0, "")


@unix_only
@pytest.mark.parametrize(("error", "said"), _FAILURES.items())
def test_a_reader_who_has_seen_enough_hides_no_failure(
    error: str, said: str, pipe_without_reader: int
) -> None:
    run = run_writing_to(pipe_without_reader, error)
    assert run.returncode == 1
    assert run.stderr.endswith(said)


def test_what_happens_in_a_block_that_writes_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="standard output: full"), standard_output():
        raise OSError(28, "full")
    with pytest.raises(ReaderGoneError), standard_output():
        raise BrokenPipeError(32, "gone")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="is closed"), standard_output():
        pass


def closed_file() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


def test_a_program_that_closes_its_streams_ends_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> int:
        monkeypatch.setattr(sys, "stdout", closed_file())
        monkeypatch.setattr(sys, "stderr", closed_file())
        with pytest.raises(OutputError, match="is closed"), standard_output():
            pass
        raise ConfigError("nobody is told")

    assert run_program(body, name="it") == 1


def test_a_service_whose_streams_are_closed_is_not_kept_from_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", closed_file())
    monkeypatch.setattr(sys, "stderr", closed_file())
    console = Console("it", "text")
    console.announce("/run/s.sock")
    console.say("a line", exc=ValueError("and its traceback"))
