"""What the documentation shows works: programs and runbooks run as printed, and so do files and commands.

Programs run as processes of their own, in a private directory that is their home as well.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import trio_ipc
import trio_ipc.transports
from tests.docs_support import DOCS, PAGES, README, ROOT, Fence, fences_of, is_guide
from tests.platforms import UNDER_WINE, unix_only, windows_only
from tests.shells import environment, run_commands
from tests.support import STRICT_PYTHON
from trio_ipc import IpcConfig


def of_unix(fence: Fence) -> bool:
    """Whether a block gives the path of a socket as a setting, or wants no other system's."""
    if "sys.platform" in fence.text:
        return False
    return re.search(r"endpoint_path.*\.sock|_unix_", fence.text, re.IGNORECASE) is not None


def of_windows(fence: Fence) -> bool:
    return "named_pipe" in fence.text and "sys.platform" not in fence.text


def each(found: Iterable[Fence]) -> list[Any]:
    """Blocks as parameters of a test; less those of another system."""
    return [
        pytest.param(
            fence,
            marks=unix_only if of_unix(fence) else windows_only if of_windows(fence) else (),
            id=str(fence),
        )
        for fence in found
    ]


def fences(language: str) -> list[Fence]:
    pages = [page for page in PAGES if language in {"sh", "toml"} or not is_guide(page)]
    return [fence for page in pages for fence in fences_of(page) if fence.language == language]


def is_service(fence: Fence) -> bool:
    """Whether a program is one of a page's own test: it runs until it is stopped, or needs such a one."""
    return (
        re.search(r"run_(service|program)\(|check_health, DETECTION|users\(\[10001\]\)", fence.text)
        is not None
    )


def is_server(fence: Fence) -> bool:
    # Not a program that is both, and runs on its own.
    return (
        not re.search(r"open_(resilient_|shared_)?client", fence.text)
        and re.search(r"\bserve\b", fence.text) is not None
    )


def is_client(fence: Fence) -> bool:
    return (
        not is_service(fence)
        and re.search(r"open_(shared_)?client", fence.text) is not None
        and re.search(r"\bserve\b", fence.text) is None
    )


def pairs() -> list[tuple[Fence, Fence]]:
    """Every client, with the server that is printed before it."""
    found = []
    server = None
    for fence in fences("python"):
        if is_server(fence):
            server = fence
        elif is_client(fence):
            assert server is not None, fence
            found.append((server, fence))
    return found


# --- Running what is printed --------------------------------------------------------------------------------


def saved(fence: Fence, directory: str) -> list[str]:
    """Save a program as a reader would; return the command that runs it."""
    file = Path(directory, f"program_{fence.line}.py")
    file.write_text(fence.text, encoding="utf-8")
    return [*STRICT_PYTHON, str(file)]


async def output_of(command: list[str], directory: str) -> str:
    """Run a program to its good end."""
    run = await trio.run_process(
        command,
        cwd=directory,
        env=environment(directory),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    output: str = run.stdout.decode()
    return output


@asynccontextmanager
async def running(command: list[str], directory: str) -> AsyncIterator[trio.Process]:
    """A program for the length of a block. Its errors come on its standard output, too."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment(directory),
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()  # does nothing to one that has ended
            await process.wait()
            await process.stdout.aclose()


async def read_until(process: trio.Process, word: str) -> None:
    assert process.stdout is not None
    said = b""
    async for piece in process.stdout:
        said += piece
        if word.encode() in said:
            return
    raise AssertionError(f"it ended before it said {word!r}: {said.decode()}")


@unix_only  # their endpoints are the paths of sockets
@pytest.mark.parametrize(("server", "client"), pairs(), ids=str)
async def test_a_server_and_its_client_run_as_printed(server: Fence, client: Fence, directory: str) -> None:
    with trio.fail_after(30):
        async with running(saved(server, directory), directory) as process:
            await read_until(process, "listening")
            assert await output_of(saved(client, directory), directory) == client.output
            if "open_signal_receiver" in server.text:
                process.terminate()
                await read_until(process, "stopped")
                assert await process.wait() == 0
                assert not [*Path(directory).rglob("*.sock")]


@pytest.mark.parametrize(
    "fence",
    each(
        fence for fence in fences("python") if not (is_server(fence) or is_client(fence) or is_service(fence))
    ),
)
async def test_a_program_runs_as_printed(fence: Fence, directory: str) -> None:
    with trio.fail_after(30):
        printed = await output_of(saved(fence, directory), directory)
        assert printed.replace("\r\n", "\n") == (fence.output or "")  # as Windows ends its lines


async def test_a_schema_and_the_fragments_that_use_it_work_as_printed(directory: str) -> None:
    [schema] = fences("proto")
    Path(directory, "greeting.proto").write_text(schema.text, encoding="utf-8")
    [command] = [line for fence in fences("sh") for line in fence.text.splitlines() if "protoc" in line]
    with trio.fail_after(30):
        await output_of([sys.executable, *shlex.split(command)[1:]], directory)
        for fragment in fences("py"):
            assert await output_of(saved(fragment, directory), directory) == ""


def split(document: list[Fence]) -> tuple[str, str]:
    """A runbook's commands as one script, and what they print."""
    commands = "".join(fence.text for fence in document if fence.language == "bash")
    printed = [
        fence.text
        for before, fence in itertools.pairwise(document)
        if fence.language == "text" and before.language == "bash"
    ]
    return commands, "".join(printed)


@unix_only  # a shell, signals, and the path of a socket
@pytest.mark.parametrize("page", ["rollback.md", "services.md"])
async def test_the_runbook_runs_as_printed_from_top_to_bottom(directory: str, page: str) -> None:
    commands, printed = split(fences_of(DOCS / page))
    for service in [one for one in fences_of(DOCS / page) if one.language == "python" and is_service(one)]:
        name = "agent.py" if "run_program(" in service.text else "service.py"
        Path(directory, name).write_text(service.text, encoding="utf-8")
    status, output = await run_commands(commands, directory)
    assert output == printed
    assert status == 0
    assert not [*Path(directory).rglob("*.sock")]


#: Put before a program: ends it at the first socket that is no Unix socket.
ONLY_UNIX_SOCKETS = """\
import socket, sys
def judge(event, arguments):
    if event == "socket.__new__":
        print("family", int(arguments[1]))
        if arguments[1] != socket.AF_UNIX:
            raise SystemExit("a socket of another family")
sys.addaudithook(judge)
"""


@unix_only
async def test_a_server_and_a_client_open_unix_sockets_only(directory: str) -> None:
    [program] = [
        fence for fence in fences_of(README) if "serve" in fence.text and "open_client" in fence.text
    ]
    watched = attrs.evolve(program, text=ONLY_UNIX_SOCKETS + program.text)
    with trio.fail_after(30):
        assert "family 1\n" in await output_of(saved(watched, directory), directory)


def test_the_readmes_first_server_and_client_have_ten_lines() -> None:
    for fence in [fence for fence in fences_of(README) if fence.language == "python"][:2]:
        assert len([line for line in fence.text.splitlines() if line]) <= 10, fence


@pytest.mark.parametrize(
    "name", [name for name in trio_ipc.transports.__all__ if name.startswith(("open_", "serve_"))]
)
def test_each_function_for_pipes_and_sockets_has_a_program_of_ten_lines(name: str) -> None:
    programs = [fence.text for fence in fences("python") if re.search(rf"[( ]{name}[(,]", fence.text)]
    lines = [[line for line in text.splitlines() if line and "import " not in line] for text in programs]
    assert min(map(len, lines)) <= 10


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        for fence in fences_of(page):
            assert fence.language in {"python", "py", "toml", "sh", "bash", "text", "proto", "ini", "yaml"}, (
                fence
            )


@pytest.mark.parametrize("fence", each(fences("toml")))
def test_a_toml_file_loads_as_printed(fence: Fence, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(fence.text, encoding="utf-8")
    assert IpcConfig.load(file, environ={}) != IpcConfig()


# --- Commands -----------------------------------------------------------------------------------------------


@functools.cache
def help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def check_make(target: str, *variables: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for variable in variables:
        assert re.search(rf"^{variable.partition('=')[0]} \?=", makefile, re.MULTILINE), variable


def check_python(option: str, module: str, *arguments: str) -> None:
    assert option == "-m"
    # The wheel has them there, of which no tree knows.
    module = module.removeprefix("trio_ipc.") if module.startswith("trio_ipc.examples.") else module
    # The Python that runs under Wine is embeddable: it comes without pip.
    assert importlib.util.find_spec(module) is not None or (UNDER_WINE and module == "pip"), module
    if module == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        assert arguments[0] == "install"
        wheel, version = "dist/trio_ipc-{}-py3-none-any.whl", trio_ipc.__version__
        sources = (".", wheel.format(version))
        assert arguments[1] in {*sources, *(f"{source}[{extra}]" for source in sources for extra in extras)}
    elif module.startswith("examples."):
        for argument in arguments:
            if argument.startswith("--"):
                assert re.search(rf"{argument}\b", help_of(module)), (module, argument)


def check_export(setting: str) -> None:
    name, _, value = setting.partition("=")
    config = IpcConfig.load(environ={name: value.replace("$HOME", "/h")}, strict=True)
    assert config != IpcConfig(), setting


CHECKS: dict[str, Callable[..., None]] = {
    "make": check_make,
    "python": check_python,
    ".venv/bin/python": check_python,
    "export": check_export,
}


@pytest.mark.parametrize("fence", each(fences("sh")))
def test_a_command_is_one_that_works(fence: Fence) -> None:
    for line in fence.text.splitlines():
        program, *arguments = shlex.split(line)
        CHECKS[program](*arguments)
