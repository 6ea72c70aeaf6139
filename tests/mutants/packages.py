"""Which tests are to notice what is wrong in which package: those nearest to it first, since they are quick.

A mutant that none of them notices may be noticed elsewhere. That is luck, and counts as survived.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: The longest name that fits counts.
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "trio_ipc.wire": ("tests/wire", "tests/test_variants.py", "tests/channel"),
    "trio_ipc.channel": ("tests/channel", "tests/client", "tests/server", "tests/blocking/test_direct.py"),
    "trio_ipc.server": (
        "tests/server",
        "tests/test_telemetry.py",
        "tests/test_telemetry_random.py",
        "tests/test_logging.py",
        "tests/test_variants.py",
    ),
    "trio_ipc.client": (
        "tests/client",
        "tests/server/test_router.py",  # health checks
        "tests/blocking/test_direct.py",
        "tests/aio/test_direct.py",
        "tests/test_telemetry.py",
        "tests/test_telemetry_random.py",
        "tests/test_variants.py",
    ),
    "trio_ipc.resilient": ("tests/resilient",),
    "trio_ipc.transports": (
        "tests/transports",
        "tests/test_opening.py",
        "tests/test_opening_failures.py",
        "tests/hardening/test_socket_group.py",
        "tests/service/test_activation.py",
        "tests/cli/test_doctor.py",  # findings
    ),
    "trio_ipc.legacy": (
        "tests/legacy",
        "tests/channel",
        "tests/test_opening.py",
        "tests/test_opening_failures.py",
        "tests/test_variants.py",
    ),
    "trio_ipc.testing": ("tests/testing",),
    "pytest_trio_ipc": ("tests/testing/test_plugin.py",),
    "trio_ipc.telemetry": (
        "tests/test_telemetry.py",
        "tests/test_telemetry_random.py",
        "tests/test_telemetry_times.py",
        "tests/test_telemetry_exporters.py",
    ),
    "trio_ipc.contract": ("tests/test_contract.py", "tests/client", "tests/server"),
    "trio_ipc.daemoneye": ("tests/daemoneye", "tests/resilient"),
    "trio_ipc.config": ("tests/test_config.py", "tests/test_settings.py", "tests/test_settings_numbers.py"),
    "trio_ipc.settings": ("tests/test_settings.py", "tests/test_settings_numbers.py", "tests/test_config.py"),
    "trio_ipc.endpoint": ("tests/test_endpoint.py", "tests/test_config.py", "tests/test_pipe_names.py"),
    "trio_ipc.errors": ("tests/test_errors.py", "tests/test_quoting.py", "tests/test_odd_paths.py"),
    "trio_ipc.logs": ("tests/test_logging.py", "tests/server"),
    "trio_ipc.opening": ("tests/test_opening.py", "tests/test_opening_failures.py"),
}

#: What every package is tested by, too.
EVERYWHERE: Final = ("tests/test_package.py", "tests/test_signatures.py")


def paths_for(module: str, root: Path) -> tuple[str, ...]:
    """Return the paths of the tests of a module, by its dotted name.

    A package that is not in the table is tested where its name says.

    Raises:
        KeyError: nobody has said which they are.
    """
    name = module
    while name not in TESTS:
        name, dot, _ = name.rpartition(".")
        if not dot:
            break
    else:
        return (*TESTS[name], *EVERYWHERE)
    package = module.removeprefix("trio_ipc.").partition(".")[0]
    found = tuple(path for path in (f"tests/{package}", f"tests/test_{package}.py") if (root / path).exists())
    if not found or not module.startswith("trio_ipc."):
        raise KeyError(module)
    return (*found, *EVERYWHERE)


def nearest_first(paths: Iterable[str], root: Path, file: Path, scope: str) -> list[str]:
    """Return the files of tests below these paths, those first that are likely to notice a change.

    None is left out: what is noticed is noticed sooner, and what survives has met the same tests.

    Args:
        paths: files and directories; what is neither, as the name of one test, stays as it is.
        root: of the tree.
        file: what is changed, relative to the root.
        scope: the class or function in it, dotted.
    """
    files: dict[str, int] = {}
    for path in paths:
        found = sorted((root / path).rglob("test_*.py")) if (root / path).is_dir() else [root / path]
        for one in found:
            files[one.relative_to(root).as_posix()] = _distance(one, file.with_suffix(""), scope)
    return sorted(files, key=files.__getitem__)  # stable


def _distance(tests: Path, module: Path, scope: str) -> int:
    """Return how far tests are from a place in the code: of its name, speaking of it, or of a name alike."""
    if tests.stem == f"test_{module.name}":
        return 0
    text = tests.read_text(encoding="utf-8") if tests.is_file() else ""
    outermost = scope.partition(".")[0]
    if ".".join(module.parts) in text or (outermost and outermost in text):
        return 1
    return 2 if {*module.name.split("_")} & {*tests.stem.split("_")} else 3
