"""The program: help, version, mistakes, every end and its exit status; completion; as a process."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio
import trio.testing

from tests.cli.conftest import MakeTable, Run
from tests.platforms import unix_only
from trio_ipc import ConfigError, ConnectError, IpcError, PeerClosedError, __version__
from trio_ipc.cli import ending, main, output, program
from trio_ipc.cli.commands import COMMANDS, Entry
from trio_ipc.cli.ending import Status

PROGRAM = [sys.executable, "-m", "trio_ipc"]
DOCS = Path(__file__).parents[2] / "docs"


def spoken(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, without a terminal."""
    environ = {**os.environ, **options}
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environ
    )


def test_the_version_is_the_packages() -> None:
    run = spoken("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"trio-ipc {__version__}\n", "")


def test_help_lists_every_command_without_loading_one(capsys: pytest.CaptureFixture[str]) -> None:
    table = {name: Entry("no.such.module", entry.help) for name, entry in COMMANDS.items()}
    assert main.main(["--help"]) == program.run(["--help"], table) == 0
    text = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert len(re.findall(rf"^  {name} +{re.escape(entry.help[:40])}", text, re.MULTILINE)) == 2


def test_each_command_has_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main.main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: trio-ipc {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_paragraph_of_help_begins_with_the_first_word_of_a_sentence(name: str) -> None:
    group = program.program(COMMANDS)
    assert isinstance(group, click.Group)
    with click.Context(group) as context:
        command = group.get_command(context, name)
    assert command is not None
    assert command.help
    texts = [text for text in inspect.cleandoc(command.help).split("\n\n") if not text.startswith("\b\n")]
    assert [text for text in texts if not re.match(r"['\"A-Z]", text)] == []


def examples_of(text: str | None) -> list[list[str]]:
    """The command lines in a command's help."""
    lines = re.sub(r" *\\\n *", " ", text or "").splitlines()
    words = [shlex.split(line) for line in lines if line.strip().startswith("trio-ipc ")]
    return [line[1 : line.index("<")] if "<" in line else line[1:] for line in words]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_each_command_has_examples_that_it_understands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("async def handle(task, call): ...\n")
    (tmp_path / "my_module.py").write_text("from trio_ipc.daemoneye import DETECTION as CONTRACT\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    group = program.program(COMMANDS)
    assert isinstance(group, click.Group)
    with click.Context(group) as context:
        command = group.get_command(context, name)
        assert command is not None
        examples = examples_of(command.help)
        assert any(words[0] == name for words in examples)
        for words in examples:
            other = group.get_command(context, words[0])
            assert other is not None
            other.make_context(words[0], words[1:], parent=context)
    for module in ("app", "my_module"):
        sys.modules.pop(module, None)


def test_no_command_at_all_is_a_mistake_that_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == Status.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Usage: trio-ipc [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prove"], r"trio-ipc: No such command 'prove'.*; see 'trio-ipc --help'\n"),
        (["--loud"], r"trio-ipc: No such option.*--loud.*; see 'trio-ipc --help'\n"),
        (["completion"], r"trio-ipc completion: Missing argument .*; see 'trio-ipc completion --help'\n"),
        (["completion", "x\x1b[31my"], r"trio-ipc completion: Invalid value .*; see .*\n"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == Status.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(said, shown.err)
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (ConfigError("x is wrong", hint="mend it"), Status.USAGE, "trio-ipc: x is wrong; mend it\n"),
        (ConnectError("nobody there", endpoint="/e"), Status.UNREACHABLE, "trio-ipc: /e: nobody there\n"),
        (PeerClosedError("it closed"), Status.FAILED, "trio-ipc: it closed\n"),
        (output.OutputError("standard output: full"), Status.OUTPUT, "trio-ipc: standard output: full\n"),
        (output.ReaderGoneError(), Status.DONE, ""),
        (OSError(24, "Too many open files"), Status.FAILED, "trio-ipc: the system: Too many open files\n"),
        (
            OSError(24, "Too many open files", "m.py"),
            Status.FAILED,
            "trio-ipc: the system: Too many open files\n",
        ),
        (OSError(28, "No space left", "f"), Status.OUTPUT, "trio-ipc: f: No space left\n"),
        (OSError(2, "No such file", "f\n"), Status.USAGE, "trio-ipc: f\\n: No such file\n"),
        (KeyboardInterrupt(), 130, ""),
        (ending.StoppedError(signal.SIGTERM), 143, ""),
        (ExceptionGroup("", [IpcError("a\x1bb"), IpcError("a\x1bb")]), Status.FAILED, "trio-ipc: a\\x1bb\n"),
        (BaseExceptionGroup("", [KeyboardInterrupt(), KeyboardInterrupt()]), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_end_has_its_status_and_its_line(
    run: Run, raised: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def probe() -> None:
        raise raised

    assert run(probe) == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err.strip("\n")[: len(said.strip())]) == ("", said.strip("\n"))
    assert shown.err.count("\n") <= 1


def test_a_defect_is_not_dressed_up(run: Run) -> None:
    def probe() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(probe)


def test_what_a_command_returns_is_the_status(run: Run) -> None:
    assert run(lambda: Status.NO) == 1
    assert run(lambda: None) == 0


def test_the_statuses_are_told_in_the_docs() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert {int(number) for number in re.findall(r"^\| (\d) \|", text, re.MULTILINE)} == {*Status}


@unix_only
def test_without_a_reader_of_its_help_nothing_is_wrong() -> None:
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([*PROGRAM, "--help"], stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    assert (run.returncode, run.stderr) == (0, b"")


@unix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_one_line_and_a_status() -> None:
    for arguments in (["--help"], ["--version"], ["call", "--help"], ["completion", "bash"]):
        with open("/dev/full", "w", encoding="utf-8") as full:
            run = subprocess.run(
                [*PROGRAM, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )
        assert (run.returncode, run.stderr) == (5, "trio-ipc: standard output: No space left on device\n")


def test_without_click_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['click'] = None; "  # an import of it is a ModuleNotFoundError then
        "from trio_ipc.cli.main import main; sys.exit(main(['--help']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 2
    assert run.stderr == "trio-ipc: click is not installed; run: python -m pip install 'trio-ipc[cli]'\n"


def test_a_shell_completes_commands_and_options() -> None:
    def completed(words: str, position: int) -> list[str]:
        told = {"_TRIO_IPC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        return spoken(**told).stdout.split()

    assert completed("trio-ipc comp", 1) == ["plain,completion"]
    assert completed("trio-ipc completion ", 2) == ["plain,bash", "plain,zsh", "plain,fish"]
    assert "plain,--help" in completed("trio-ipc completion --h", 2)


def test_completion_prints_a_script_for_each_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        run = spoken("completion", shell)
        assert run.returncode == 0
        assert f"_TRIO_IPC_COMPLETE={shell}_complete" in run.stdout


def test_listing_and_completing_load_neither_protobuf_nor_rich() -> None:
    code = (
        "import sys; from trio_ipc.cli.main import main; main(['--help']); "
        "print([name for name in ('google.protobuf', 'rich') if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stderr == "[]\n"


@unix_only
def test_a_system_that_refuses_a_command_something_is_not_taken_for_standard_output(run: Run) -> None:
    def probe() -> None:
        raise BrokenPipeError(32, "Broken pipe")  # of some other pipe

    assert run(probe) == Status.FAILED


@unix_only
def test_a_service_managers_signal_cancels_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from trio_ipc.cli.running import run_async

    cleaned = []

    async def wait() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    assert run(lambda: run_async(wait)) == 128 + signal.SIGTERM
    assert cleaned == [True]
    assert capsys.readouterr().err == ""


@unix_only
@pytest.mark.parametrize("ignored", [["SIGHUP"], ["SIGHUP", "SIGTERM"]], ids="+".join)
def test_signals_that_were_ignored_stay_so(run: Run, ignored: list[str]) -> None:
    from trio_ipc.cli.running import run_async

    numbers = [signal.Signals[name] for name in ignored]

    async def wait() -> int:
        for number in numbers:
            os.kill(os.getpid(), number)
        await trio.testing.wait_all_tasks_blocked()
        return 7

    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        assert run(lambda: run_async(wait)) == 7
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_table_names_commands_that_exist(table_of: MakeTable) -> None:
    del table_of
    with click.Context(program.program(COMMANDS)) as context:
        group = context.command
        assert isinstance(group, click.Group)
        for name in COMMANDS:
            command = group.get_command(context, name)
            assert command is not None
            assert command.help
