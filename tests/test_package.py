"""What holds for the package as a whole."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import trio_ipc

PACKAGE = Path(trio_ipc.__file__).parent

#: docs/architecture.md's picture: each room may import what stands above it, and nothing below.
ROOMS = [
    "errors",
    "endpoint",
    "config",
    "wire",
    "contract",
    "daemoneye",
    "transports",
    "telemetry",
    "channel",
    "interprocess",
    "legacy",
    "pipeline",
    "selection",
    "conversation",
    "server",
    "client",
    "resilient",
]


def imported_rooms(file: Path) -> set[str]:
    """The rooms of trio_ipc that a module imports, by absolute or relative name."""
    package = file.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("trio_ipc.")}
    return rooms


def test_each_room_imports_only_what_stands_above_it() -> None:
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        allowed = {*ROOMS[: ROOMS.index(room) + 1]}
        assert imported_rooms(file) <= allowed, file


def test_the_wire_imports_no_trio() -> None:
    for file in (PACKAGE / "wire").glob("*.py"):
        assert "import trio\n" not in file.read_text(), file


def test_legacy_shares_neither_input_and_output_nor_framing_with_the_default() -> None:
    theirs = {"FramedChannel", "FramedChannelListener", "framed", "LocalStream", "connect", "listen"}
    their_modules = {"wire", "stream", "unix", "named_pipe", "interprocess"}
    for file in (PACKAGE / "legacy").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = {alias.name for alias in node.names}
                assert not names & (theirs | their_modules), (file, names)
                assert not set(node.module.split(".")) & their_modules, (file, node.module)


def test_what_is_public_exists_and_has_a_docstring() -> None:
    for name in trio_ipc.__all__:
        thing = getattr(trio_ipc, name)
        if isinstance(thing, type) or inspect.isfunction(thing):
            assert thing.__doc__, name


def test_importing_it_brings_in_no_network_client_and_no_example_dependency() -> None:
    code = "import sys, trio_ipc; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unwanted = {"grpc", "asyncio", "http", "urllib3", "psutil", "rich"}
    if sys.platform == "win32":
        unwanted.remove("asyncio")  # Trio itself takes asyncio.windows_utils, for subprocesses
    assert not unwanted & set(run.stdout.split())
