"""What holds for the package as a whole."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import trio_ipc
import trio_ipc.aio
import trio_ipc.blocking
import trio_ipc.testing
import trio_ipc.transports
from trio_ipc.transports import host

PACKAGE = Path(trio_ipc.__file__).parent

#: docs/architecture.md's picture: each package may import what stands above it, and nothing below.
PACKAGES = [
    "errors",
    "functions",
    "logs",
    "endpoint",
    "settings",
    "castagnoli",
    "heap",
    "config",
    "wire",
    "contract",
    "daemoneye",
    "transports",
    "streams",
    "telemetry",
    "channel",
    "legacy",
    "opening",
    "server",
    "client",
    "resilient",
    "portal",
    "blocking",
    "aio",
    "service",
    "testing",
    "cli",
]


def imported_packages(file: Path) -> set[str]:
    """The packages of trio_ipc that a module imports, by absolute or relative name."""
    within = file.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    packages = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(within[: len(within) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        packages |= {name.split(".")[1] for name in names if name.startswith("trio_ipc.")}
    return packages


def test_each_package_imports_only_what_stands_above_it() -> None:
    for file in PACKAGE.rglob("*.py"):
        package = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if package in {"__init__", "__main__"}:
            continue
        allowed = {*PACKAGES[: PACKAGES.index(package) + 1]}
        if package == PACKAGES[-1]:
            allowed |= {*trio_ipc.__all__}  # of the packages above it, all of them
        assert imported_packages(file) <= allowed, file


def knows_the_platform(file: Path) -> bool:
    return any(word in file.read_text() for word in ("sys.platform", "os.name", "platform.system", "win32"))


def test_services_the_command_and_their_streams_know_no_platform() -> None:
    files = [
        PACKAGE / "streams.py",
        *(file for package in ("service", "cli") for file in (PACKAGE / package).rglob("*.py")),
    ]
    assert [file for file in files if knows_the_platform(file)] == []


def test_one_module_of_the_examples_knows_the_platform() -> None:
    examples = Path(__file__).parents[1] / "examples"
    assert [file for file in examples.rglob("*.py") if knows_the_platform(file)] == [examples / "host.py"]


def test_the_wire_imports_no_trio() -> None:
    for file in (PACKAGE / "wire").glob("*.py"):
        assert "import trio\n" not in file.read_text(), file


def test_legacy_shares_neither_input_and_output_nor_framing_with_the_default() -> None:
    theirs = {"FramedChannel", "FramedChannelListener", "framed", "LocalStream", "connect", "listen"}
    their_modules = {"wire", "duplex", "unix", "unix_listener", "framed", "spin", "interprocess"}
    their_modules |= {"pipe", "end", "stream", "connecting"}
    for file in (PACKAGE / "legacy").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                if node.module.startswith("trio_ipc.legacy"):
                    continue  # its own, which have the same names
                names = {alias.name for alias in node.names}
                assert not names & (theirs | their_modules), (file, names)
                assert not set(node.module.split(".")) & their_modules, (file, node.module)


def test_what_is_public_exists_and_has_a_docstring() -> None:
    modules = (trio_ipc, trio_ipc.aio, trio_ipc.blocking, trio_ipc.testing, trio_ipc.transports)
    public = [(module, name) for module in modules for name in module.__all__]
    for module, name in public:
        thing = getattr(module, name)
        if isinstance(thing, type) or inspect.isfunction(thing):
            assert thing.__doc__, name


def test_each_method_of_streams_and_listeners_says_what_a_cancellation_does() -> None:
    silent = []
    memory = [PACKAGE / "testing" / name for name in ("memory.py", "memorystream.py")]
    legacy = [PACKAGE / "legacy" / name for name in ("unix.py", "listener.py", "pipe_listener.py")]
    for file in [*(PACKAGE / "transports").rglob("*.py"), *memory, *legacy]:
        for kind in ast.walk(ast.parse(file.read_text())):
            if not isinstance(kind, ast.ClassDef) or not kind.name.endswith(("Stream", "Listener", "Duplex")):
                continue
            for method in kind.body:
                if isinstance(method, ast.AsyncFunctionDef) and not method.name.startswith("_"):
                    paragraphs = (ast.get_docstring(method) or "").split("\n\n")
                    if not any(paragraph.startswith("Cancellation ") for paragraph in paragraphs):
                        silent.append(f"{file.name}: {kind.name}.{method.name}")
    assert not silent, silent


def test_importing_it_brings_in_no_network_client_and_no_example_dependency() -> None:
    code = "import sys, trio_ipc; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unwanted = {
        "grpc",
        "anyio",
        "asyncio",
        "http",
        "urllib3",
        "psutil",
        "rich",
        "opentelemetry",
        "prometheus_client",
    }
    if sys.platform == "win32":
        unwanted.remove("asyncio")  # Trio itself takes asyncio.windows_utils, for subprocesses
    assert not unwanted & set(run.stdout.split())


def test_importing_it_loads_nothing_that_only_some_need() -> None:
    code = (
        "import sys, trio_ipc; "
        "some = ('trio_ipc.daemoneye', 'trio_ipc.resilient', 'trio_ipc.client.shared', "
        "'google.protobuf'); "
        "print([name for name in sys.modules if name.startswith(some)]);"
        "from trio_ipc import *; print(open_resilient_client.__name__, 'Strategy' in dir(trio_ipc))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "open_resilient_client True"]


def test_pipes_and_sockets_are_to_be_had_without_protobuf_and_without_the_rest() -> None:
    code = (
        "import sys, trio_ipc.transports; "
        "from trio_ipc.transports import *; "
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('trio_ipc.')}); "
        "print('google.protobuf' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages, protobuf = run.stdout.splitlines()
    assert {*packages.split()} <= {"endpoint", "errors", "logs", "transports"}
    assert protobuf == "False"


def test_each_public_name_is_found_where_it_is_said_to_be() -> None:
    assert [name for name in trio_ipc.__all__ if not hasattr(trio_ipc, name)] == []
    assert {*trio_ipc._PACKAGE_OF} == {
        name for name in trio_ipc.__all__ if not name.endswith(("Error", "__"))
    }


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trio_ipc' has no attribute 'open_server'"):
        trio_ipc.open_server  # noqa: B018


def test_importing_it_brings_in_nothing_to_test_with() -> None:
    code = "import sys, trio_ipc; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"trio_ipc.testing", "pytest_trio_ipc", "pytest"} & set(run.stdout.split())


def test_what_ends_a_service_ends_a_command_and_is_said_in_one_place() -> None:
    assert {*host.STOP_SIGNALS} <= {*host.COMMAND_STOP_SIGNALS}
    saying = [file for file in PACKAGE.rglob("*.py") if "STOP_SIGNALS: Final" in file.read_text()]
    assert saying == [PACKAGE / "transports" / "host.py"]
