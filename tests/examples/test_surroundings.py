"""The programs where their streams, locale, terminal or directory are not what one hopes for.

Each must work, or end with one line and a status that is not 0; never with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.platforms import exists

from .support import (
    ROOT,
    Program,
    agent,
    collector_at,
    fails_with_one_line,
    once,
    procmond,
    spawn,
    until_listening,
)
from .test_demo import DEMO, left_behind

if sys.platform == "win32":
    pytest.skip("shells, locales, terminals and signals are as Unix has them", allow_module_level=True)
assert sys.platform != "win32"

import pty  # noqa: E402

#: Neither C.UTF-8 in place of C, nor UTF-8 mode: an ASCII system, as there was before PEP 538 and 540.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
STRICT_UTF8 = {"PYTHONIOENCODING": "utf-8:strict"}
STRICT_ASCII = {"PYTHONIOENCODING": "ascii:strict"}

#: A pipe without a reader from the first moment on, made of a named one: no race as against `| true`.
NO_READER = "mkfifo p; exec 3<>p >p 3<&-"


def in_shell(script: str, command: list[str], directory: Path) -> list[str]:
    """Return a command line that lets a shell run this script, where "$@" is the command, in a directory."""
    return ["sh", "-c", f'cd "$0" && {script}', str(directory), "env", f"PYTHONPATH={ROOT}", *command]


def redirected(redirections: str, command: list[str]) -> list[str]:
    """Return a command line that gives a program other streams."""
    return in_shell(f'exec "$@" {redirections}', command, ROOT)


async def ends_well(collector: Program) -> list[str]:
    """Stop a collector; return what it printed on stderr."""
    collector.process.terminate()
    assert await collector.end() == 0, collector.stderr.seen
    return collector.stderr.seen


# --- standard output ---


@pytest.mark.parametrize("reader", ["gone", "closed"])
async def test_a_collector_whose_announcement_nobody_can_read_serves_all_the_same(
    short_dir: Path, reader: str
) -> None:
    script = {"gone": f'{NO_READER}; exec "$@"', "closed": 'exec "$@" >&-'}[reader]
    async with spawn(*in_shell(script, procmond(short_dir / "s"), short_dir)) as collector:
        await until_listening(short_dir / "s")
        assert (await once(short_dir / "s"))["cycle"] == 1
        (line,) = await ends_well(collector)
        assert line.startswith("procmond: served: ")


@pytest.mark.parametrize("environ", [{}, {"PYTHONUNBUFFERED": "1"}])
async def test_a_full_standard_output_is_one_line_to_the_collector(
    short_dir: Path, environ: dict[str, str]
) -> None:
    line = await fails_with_one_line(redirected(">/dev/full", procmond(short_dir / "s")), environ)
    assert line == "procmond: standard output: No space left on device"
    assert not exists(str(short_dir / "s"))


@pytest.mark.parametrize(
    "redirections",
    [
        ">/dev/full",
        ">&-",
        "1</dev/null",
    ],
)
@pytest.mark.parametrize("mode", [["--once"], ["--once", "--json"]])
async def test_an_unusable_standard_output_is_one_line_to_the_agent(
    short_dir: Path, redirections: str, mode: list[str]
) -> None:
    async with collector_at(short_dir / "s"):
        line = await fails_with_one_line(redirected(redirections, agent(short_dir / "s", *mode)))
        assert line.startswith("agent: standard output")


@pytest.mark.parametrize("program", [procmond, agent])
async def test_a_limit_on_the_size_of_files_is_one_line(short_dir: Path, program: object) -> None:
    async with collector_at(short_dir / "other"):
        command = procmond(short_dir / "s") if program is procmond else agent(short_dir / "other", "--json")
        line = await fails_with_one_line(in_shell('ulimit -f 0; exec "$@" >out', command, short_dir))
        assert "standard output: File too large" in line


async def test_help_that_cannot_be_written_is_one_line(short_dir: Path) -> None:
    line = await fails_with_one_line(redirected("1</dev/null", agent(short_dir / "s", "--help")))
    assert line == "agent: standard output: Bad file descriptor"


async def test_help_that_nobody_reads_is_no_error(short_dir: Path) -> None:
    command = agent(short_dir / "s", "--help")
    async with spawn(*in_shell(f'{NO_READER}; exec "$@"', command, short_dir)) as program:
        assert await program.end() == 0
        assert program.stderr.seen == []


# --- standard error and standard input ---


@pytest.mark.parametrize("redirections", ["2>&-", "2</dev/null", "<&- 2>&-"])
@pytest.mark.parametrize(("options", "status"), [(["--json"], 1), (["--bogus"], 2)])
async def test_without_standard_error_nothing_is_said_at_all(
    short_dir: Path, redirections: str, options: list[str], status: int
) -> None:
    async with spawn(*redirected(redirections, agent(short_dir / "s", *options))) as program:
        assert await program.end() == status
        assert program.stdout.seen == []
        assert program.stderr.seen == []


@pytest.mark.parametrize("redirections", ["2>&-", "2</dev/null", "<&- >&- 2>&-"])
async def test_a_collector_without_its_streams_serves_and_ends_well(
    short_dir: Path, redirections: str
) -> None:
    async with spawn(*redirected(redirections, procmond(short_dir / "s", "--verbose"))) as collector:
        await until_listening(short_dir / "s")
        assert (await once(short_dir / "s"))["cycle"] == 1
        assert await ends_well(collector) == []
        assert not exists(str(short_dir / "s"))


async def test_the_agent_needs_no_standard_input(short_dir: Path) -> None:
    async with (
        collector_at(short_dir / "s"),
        spawn(*redirected("<&-", agent(short_dir / "s", "--once"))) as program,
    ):
        assert await program.end() == 0
        assert program.stderr.seen == []


async def test_the_demo_needs_no_standard_input_and_no_standard_error(short_dir: Path) -> None:
    async with spawn(*redirected("<&- 2>&-", DEMO), environ={"TMPDIR": str(short_dir)}) as demo:
        assert await demo.end() == 0
        assert demo.stderr.seen == []
    assert left_behind(short_dir) == []


@pytest.mark.parametrize("redirections", [">/dev/full", ">&-"])
async def test_an_unusable_standard_output_is_one_line_to_the_demo(
    short_dir: Path, redirections: str
) -> None:
    environ = {"TMPDIR": str(short_dir)}
    line = await fails_with_one_line(redirected(redirections, DEMO), environ)
    assert line.startswith("demo: standard output")
    assert left_behind(short_dir) == []


async def test_a_demo_without_a_place_for_its_files_is_one_line(tmp_path: Path) -> None:
    # TMPDIR, the usual places and the working directory: tempfile tries them all, and all take no file.
    code = "import tempfile, runpy; tempfile._candidate_tempdir_list = lambda: []; "
    code += "runpy.run_module('examples.demo', run_name='__main__')"
    line = await fails_with_one_line([sys.executable, "-c", code])
    assert line.startswith("demo: failed at: setting up: ")


# --- text ---


@pytest.mark.parametrize("environ", [STRICT_UTF8, STRICT_ASCII, ASCII])
@pytest.mark.parametrize("name", [b"\xfe", "é".encode()])
async def test_an_endpoint_that_the_terminal_cannot_write_is_served(
    short_dir: Path, name: bytes, environ: dict[str, str]
) -> None:
    endpoint = short_dir / os.fsdecode(name)
    async with spawn(*procmond(endpoint), environ=environ) as collector:
        assert (await collector.stdout.next() or "").startswith(f"listening on {short_dir}/")
        assert (await once(endpoint))["cycle"] == 1
        async with spawn(*agent(endpoint, "--once"), environ=environ) as shown:
            assert await shown.end() == 0
            assert shown.stderr.seen == []
        await ends_well(collector)
    line = await fails_with_one_line(agent(endpoint, "--once"), environ)
    assert line.startswith(f"agent: {short_dir}/")


async def test_the_demo_works_where_there_is_only_ascii(short_dir: Path) -> None:
    directory = short_dir / "é"
    make_directory(directory)
    async with spawn(*DEMO, environ={"TMPDIR": str(directory)} | STRICT_ASCII | ASCII) as demo:
        assert await demo.end() == 0
        assert demo.stderr.seen == []


def make_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("options", [["--name", "\udcff"], ["--name", "good", "\udcff"]])
async def test_a_name_that_is_no_text_is_refused(short_dir: Path, options: list[str]) -> None:
    async with spawn(*agent(short_dir / "s", *options)) as program:
        assert await program.end() == 2
        assert "--name: " in program.stderr.seen[-1]
        assert "UTF-8" in program.stderr.seen[-1]
        assert not any("Traceback" in line for line in program.stderr.seen)


# --- terminals ---


@pytest.mark.parametrize("columns", ["0", "x", "", "²", "1", str(10**30)])
async def test_a_strange_width_hides_nothing(short_dir: Path, columns: str) -> None:
    environ = {"COLUMNS": columns, "LINES": columns}
    options = "--once", "--pid", str(os.getpid())
    async with (
        collector_at(short_dir / "s"),
        spawn(*agent(short_dir / "s", *options), environ=environ) as program,
    ):
        assert await program.end() == 0, program.stderr.seen
        assert program.stderr.seen == []
        assert str(os.getpid()) in "\n".join(program.stdout.seen)


async def test_a_terminal_without_a_size_hides_nothing(short_dir: Path) -> None:
    # A new pseudo-terminal has 0 columns.
    ours, theirs = pty.openpty()
    command = in_shell(f'exec "$@" >{os.ttyname(theirs)}', agent(short_dir / "s", "--once"), short_dir)
    try:
        async with (
            collector_at(short_dir / "s"),
            spawn(*command, "--pid", str(os.getpid()), environ={"TERM": "xterm"}) as program,
        ):
            assert await program.end() == 0, program.stderr.seen
            shown = b""
            while str(os.getpid()).encode() not in shown:  # the system brings it in its own time and pieces
                await trio.lowlevel.wait_readable(ours)
                shown += os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)


# --- directories and files ---


@pytest.mark.parametrize("program", [procmond, agent])
async def test_a_relative_endpoint_in_a_directory_that_is_gone_is_one_line(
    short_dir: Path, program: object
) -> None:
    command = procmond("s") if program is procmond else agent("s", "--once")
    line = await fails_with_one_line(in_shell('mkdir d && cd d && rmdir ../d; exec "$@"', command, short_dir))
    assert "--endpoint" in line
    assert "'s'" in line


@pytest.mark.parametrize("name", [".", "secret", "\udcff", ""])
@pytest.mark.parametrize("program", [procmond, agent])
async def test_a_configuration_file_that_cannot_be_read_is_one_line(
    short_dir: Path, name: str, program: object
) -> None:
    make_unreadable(short_dir / "secret")
    options = "--config", f"{short_dir}/{name}" if name else ""
    command = procmond(short_dir / "s", *options) if program is procmond else agent(short_dir / "s", *options)
    assert "configuration file" in await fails_with_one_line(command)


def make_unreadable(path: Path) -> None:
    # Links to itself: that not even root can read.
    path.symlink_to(path)


@pytest.mark.parametrize("program", [procmond, agent])
async def test_too_few_file_descriptors_are_one_line(short_dir: Path, program: object) -> None:
    command = procmond(short_dir / "s") if program is procmond else agent(short_dir / "s", "--once")
    # Enough for Python to start and to import, which opens one file at a time; too few for an event loop.
    code = "import resource, runpy, sys, examples.procmond.__main__, examples.agent.__main__\n"
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)); sys.argv[1:2] = []\n"
    code += "sys.exit(sys.modules[sys.orig_argv[3] + '.__main__'].main(sys.argv[1:]))"
    line = await fails_with_one_line([command[0], "-c", code, *command[2:]])
    assert "Too many open files" in line


# --- numbers ---


@pytest.mark.parametrize(
    "options",
    [
        ["--interval", "inf"],
        ["--interval", "-inf"],
        ["--interval", "1e999"],
        ["--interval", "-0.0"],
        ["--interval", "\udcff"],
        ["--limit", "-1"],
        ["--limit", "9" * 5000],
        ["--pid", "9" * 5000],
    ],
)
async def test_a_number_out_of_range_is_refused(short_dir: Path, options: list[str]) -> None:
    async with spawn(*agent(short_dir / "s", *options)) as program:
        assert await program.end() == 2
        assert options[0] in program.stderr.seen[-1]
        assert not any("Traceback" in line for line in program.stderr.seen)


@pytest.mark.parametrize(
    "options", [["--interval", "1e308"], ["--interval", "1e-300"], ["--limit", "9" * 99]]
)
async def test_extreme_numbers_work(short_dir: Path, options: list[str]) -> None:
    async with (
        collector_at(short_dir / "s"),
        spawn(*agent(short_dir / "s", *options)) as program,
    ):
        await program.stdout.until(lambda line: "processes" in line)
        program.process.terminate()
        assert await program.end() == 0
        assert program.stderr.seen == []


# --- impatience ---


def hurry(program: Program) -> None:
    """Ask it to end more than once. Of different kinds, as two signals of a kind may arrive as one."""
    program.process.send_signal(signal.SIGTERM)
    program.process.send_signal(signal.SIGINT)


async def test_an_agent_that_is_asked_twice_ends_as_if_asked_once(short_dir: Path) -> None:
    async with collector_at(short_dir / "s"), spawn(*agent(short_dir / "s")) as program:
        await program.stdout.until(lambda line: "processes" in line)
        hurry(program)
        assert await program.end() == 0
        assert program.stderr.seen == []
        assert program.stdout.seen[-1].startswith("asked: ")


async def test_a_collector_that_is_asked_too_often_still_says_what_it_served(short_dir: Path) -> None:
    async with collector_at(short_dir / "s") as collector:
        for _ in range(20):
            hurry(collector)
        assert await collector.end() == 0
        (line,) = collector.stderr.seen
        assert line.startswith("procmond: served: ")
        assert not exists(str(short_dir / "s"))


async def test_a_demo_that_is_interrupted_twice_leaves_nothing_behind(short_dir: Path) -> None:
    async with spawn(*DEMO, "appeared", environ={"TMPDIR": str(short_dir)}) as demo:
        await demo.stdout.until(lambda line: "+ appeared" in line)
        hurry(demo)
        assert await demo.end() == 1
        (line,) = demo.stderr.seen
        assert line.startswith("demo: interrupted at: ")
    assert left_behind(short_dir) == []
