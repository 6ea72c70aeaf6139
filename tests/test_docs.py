"""What the documentation says is true: programs run as printed, and names, defaults and messages exist.

Programs run as processes of their own, in a private directory that is their home as well.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio

import trio_ipc
import trio_ipc.transports
from tests.platforms import UNDER_WINE, unix_only, windows_only
from tests.shells import environment, run_commands
from tests.site.public import public_names
from tests.support import STRICT_PYTHON
from tests.test_package import PACKAGES
from trio_ipc import (
    Call,
    ClientMetrics,
    ClientSnapshot,
    ConfigError,
    Crc32Variant,
    EndpointSnapshot,
    IpcConfig,
    IpcError,
    ResilientConfig,
    ResilientSnapshot,
    ServerSnapshot,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.endpoint import DEFAULT_SOCKET
from trio_ipc.telemetry import CallFailure, CloseReason, Refusal, RequestFailure, TimeoutKind
from trio_ipc.telemetry.kinds import Kind
from trio_ipc.telemetry.metrics import METRICS
from trio_ipc.transports import Duplex

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CHANGELOG = ROOT / "CHANGELOG.md"
DOCS = ROOT / "docs"
PAGES = [README, CHANGELOG, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("*/*.md"))]

#: The only hosts that a page may name.
HOSTS = {"keepachangelog.com", "semver.org"}

PUBLIC = sorted({name for names in public_names().values() for name in names})


@attrs.frozen
class Fence:
    """A fenced block. ``output`` is the ``text`` block that comes next after a program, if one does."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def fences_of(page: Path) -> list[Fence]:
    document = page.read_text(encoding="utf-8")
    found: list[Fence] = []
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        if match[1].startswith("{"):
            continue  # a directive of the site's
        line = document.count("\n", 0, match.start()) + 1
        if match[1] == "text" and found and found[-1].language == "python":
            found[-1] = attrs.evolve(found[-1], output=match[2])
        found.append(Fence(page, line, match[1], match[2]))
    return found


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


def is_guide(page: Path) -> bool:
    """Whether a page's examples build on each other: tests/test_guides.py runs it from top to bottom."""
    return page.parent == DOCS and (page.name == "tutorial.md" or page.name.startswith("howto-"))


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


# --- Links, names and defaults ------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_this_machine_or_a_strange_host(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for place in (str(ROOT), "/root", "/home", "/Users"):
        assert not re.search(rf"(?<![\w.]){re.escape(place)}/", text), place
    assert {urlsplit(url).hostname for url in re.findall(r"\w+://[^\s)>`]+", text)} <= HOSTS


def test_the_changelog_tells_of_every_public_name() -> None:
    text = CHANGELOG.read_text(encoding="utf-8")
    assert [name for name in PUBLIC if not re.search(rf"`{name}[`(]", text)] == []


def test_every_setting_is_told_with_its_default_and_its_variable() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    defaults = attrs.asdict(IpcConfig())
    if sys.platform == "win32":
        defaults["endpoint_path"] = DEFAULT_SOCKET  # docs/windows.md has the pipe's name
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \| [^|]+ \| `(\w+)` \|$", text, re.MULTILINE)
    assert rows == [
        (name, f'"{value}"' if isinstance(value, str) else str(value), f"TRIO_IPC_{name.upper()}")
        for name, value in defaults.items()
    ]
    meanings = text.partition("## What they mean")[2]
    assert [name for name in defaults if f"| `{name}` |" not in meanings] == []


def test_every_setting_of_the_resilient_client_is_told_with_its_default() -> None:
    text = (DOCS / "resilient-client.md").read_text().partition("## Settings")[2]
    assert re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE) == [
        (name, f'"{value}"' if isinstance(value, str) else str(value))
        for name, value in attrs.asdict(ResilientConfig()).items()
    ]


def test_every_metric_is_told() -> None:
    text = (DOCS / "resilient-client.md").read_text()
    assert [name for name in attrs.asdict(ClientMetrics()) if f"`{name}`" not in text] == ["transport"]


def test_all_that_is_counted_is_told_by_its_field_kind_and_metric() -> None:
    text = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    snapshots = (ServerSnapshot, ClientSnapshot, ResilientSnapshot, EndpointSnapshot)
    names = {field.name for kind in snapshots for field in attrs.fields(kind)}
    for kinds in (CloseReason, RequestFailure, CallFailure, Refusal, TimeoutKind):
        names |= set(kinds)
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_table_of_metrics_has_each_metric_with_its_type() -> None:
    text = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(trio_ipc_(?:server|resilient)_\w+)` \| (?:`(\w+)`)? ?\| (\w+)(?:, by `(\w+)`)? \|",
        text,
        re.MULTILINE,
    )
    told = {(name, kind, label) for *names, kind, label in rows for name in names if name}
    assert told == {
        (
            "_".join(filter(None, ("trio_ipc", metric.side, metric.name, metric.unit)))
            + ("_total" if metric.kind is Kind.COUNTER else ""),
            metric.kind.name.lower(),
            metric.label,
        )
        for metric in METRICS
    }


def test_the_log_has_the_loggers_and_fields_that_are_told() -> None:
    text = (DOCS / "telemetry.md").read_text(encoding="utf-8").partition("## Logging")[2]
    told = set(re.findall(r"^\| `(trio_ipc\.[\w.]+)` \|", text, re.MULTILINE))
    package = Path(trio_ipc.__file__).parent
    logging = {file for file in package.rglob("*.py") if "_log = Log(__name__)" in file.read_text("utf-8")}
    names = {f"trio_ipc.{file.relative_to(package).parts[0].removesuffix('.py')}" for file in logging}
    assert told == names
    fields = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    for file in logging:
        for given in re.findall(r"\{[^{}]*\"endpoint\": [^{}]*\}", file.read_text("utf-8")):
            assert set(re.findall(r"\"(\w+)\": ", given)) <= {*fields}, file


def test_what_the_package_needs_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=!~ ;]", requirement)[0] for requirement in project["dependencies"]}
    text = (DOCS / "getting-started.md").read_text(encoding="utf-8")
    told = re.search(r"^It needs (.*)$", text, re.MULTILINE)
    assert told is not None
    assert set(re.findall(r"`([\w-]+)`", told[1])) == needed


def test_the_packages_are_those_of_the_architecture_page() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text.partition("## Rules")[0], re.MULTILINE) == PACKAGES


def test_what_a_channel_needs_of_a_connection_is_told() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("primitives (`Duplex`)")[2].partition("\n### ")[0]
    told = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split("`")[1::2]
    }
    assert told == {name for name, thing in vars(Duplex).items() if inspect.isfunction(thing)}


# --- Messages -----------------------------------------------------------------------------------------------


async def complaint(action: Callable[[], object]) -> str:
    """What a call, which may be asynchronous, complains of."""
    try:
        result = action()
        if hasattr(result, "__await__"):
            await result
    except IpcError as exc:
        return str(exc)
    raise AssertionError("it did not fail")


async def answer(task: DetectionTask, _: Call) -> DetectionResult:
    if task.task_id == "large":
        return DetectionResult(task_id="large", error_message="x" * 2_000_000)
    raise ValueError("no such process")


async def first_errors(directory: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What docs/getting-started.md quotes."""
    assert sys.platform != "win32"
    config = IpcConfig(endpoint_path=f"{directory}/s.sock")

    async def listen() -> None:
        await serve(answer, DETECTION, config)

    async def call(task: DetectionTask, config: IpcConfig = config) -> DetectionResult:
        async with open_client(DETECTION, config) as client:
            return await client.call(task)

    task = DetectionTask(task_id="1")
    errors = {"not-found": await complaint(lambda: call(task))}
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, answer, DETECTION, config)
        errors["in-use"] = await complaint(listen)
        errors["empty"] = await complaint(lambda: call(DetectionTask()))
        errors["too-large"] = await complaint(lambda: call(DetectionTask(task_id="x" * 2_000_000)))
        other = config.replace(crc32_variant=Crc32Variant.CASTAGNOLI)
        errors["variant"] = await complaint(lambda: call(task, other))
        errors["raised"] = (await call(task)).error_message
        errors["response-too-large"] = (await call(DetectionTask(task_id="large"))).error_message
        server.stop()
    with trio.socket.socket(trio.socket.AF_UNIX) as dead:
        await dead.bind(config.endpoint_path)
        errors["refused"] = await complaint(lambda: call(task))
    os.unlink(config.endpoint_path)
    Path(config.endpoint_path).touch()
    errors["not-a-socket"] = await complaint(listen)
    os.unlink(config.endpoint_path)
    os.chmod(directory, 0o777)
    errors["shared"] = await complaint(listen)
    os.chmod(directory, 0o700)

    def forbidden(path: str, *_: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", forbidden)  # root may make directories anywhere
        elsewhere = config.replace(endpoint_path=f"{directory}/missing/s.sock")
        errors["no-right"] = (await complaint(lambda: serve(answer, DETECTION, elsewhere))).replace(
            "missing/", ""
        )
    errors["relative"] = await complaint(lambda: IpcConfig(endpoint_path="hello.sock"))
    return {
        name: text.replace(f"{directory}/s.sock", "PATH").replace(directory, "DIR")
        for name, text in errors.items()
    }


async def setting_errors(directory: str) -> dict[str, str]:
    """What docs/configuration.md quotes."""
    wrong: dict[str, Callable[[], object]] = {
        "value": lambda: IpcConfig(read_timeout_ms=0),
        "choice": lambda: IpcConfig(crc32_variant="crc32"),
        "unknown": lambda: IpcConfig.load(read_timeout=5),
        "environment": lambda: IpcConfig.load(environ={"TRIO_IPC_MAX_CONECTIONS": "8"}, strict=True),
        "transport": lambda: IpcConfig(transport="tcp"),
        "file": lambda: IpcConfig.load(Path(directory, "settings.toml")),
        "huge": lambda: IpcConfig(max_connections=10**5_000),
    }
    return {name: (await complaint(action)).replace(directory + os.sep, "") for name, action in wrong.items()}


def without_numbers(text: str) -> str:
    """Sizes, checksums and process ids differ from run to run, and from version to version."""
    return re.sub(r"\b[0-9a-f]{8}\b|\b[N\d]+\b", "#", text)


def quote(page: Path) -> list[str]:
    return [without_numbers(fence.text.strip()) for fence in fences_of(page) if fence.language == "text"]


@unix_only  # half of them speak of socket files and modes
async def test_the_errors_that_newcomers_meet_say_what_is_quoted(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotes = quote(DOCS / "getting-started.md")
    with trio.fail_after(10):
        errors = await first_errors(directory, monkeypatch)
    assert [text for text in errors.values() if without_numbers(text) not in quotes] == []
    assert len(quotes) == len(errors) + 3  # what the two clients print, and who catches errors


async def test_the_errors_of_settings_say_what_is_quoted(directory: str) -> None:
    errors = await setting_errors(directory)
    quotes = quote(DOCS / "configuration.md")
    assert sorted(quotes) == sorted(without_numbers(text) for text in errors.values())
    assert issubclass(ConfigError, ValueError)
