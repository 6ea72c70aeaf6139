"""Which tests are to notice what is wrong in which room: those nearest to it first, since they are quick.

A mutant that none of them notices may be noticed elsewhere. That is luck, and counts as survived.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: The longest name that fits counts.
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "trio_ipc.wire": ("tests/wire", "tests/test_variants.py", "tests/channel"),
    "trio_ipc.channel": ("tests/channel", "tests/client", "tests/server"),
    "trio_ipc.server": (
        "tests/server",
        "tests/test_telemetry.py",
        "tests/test_telemetry_random.py",
        "tests/test_logging.py",
        "tests/test_variants.py",
    ),
    "trio_ipc.client": (
        "tests/client",
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
    ),
    "trio_ipc.legacy": (
        "tests/legacy",
        "tests/channel",
        "tests/test_opening.py",
        "tests/test_opening_failures.py",
        "tests/test_variants.py",
    ),
    "trio_ipc.testing": ("tests/testing",),
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

#: What every room is tested by, too.
EVERYWHERE: Final = ("tests/test_package.py",)


def paths_for(module: str, root: Path) -> tuple[str, ...]:
    """Return the paths of the tests of a module, by its dotted name.

    A room that is not in the table is tested where its name says.

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
    room = module.removeprefix("trio_ipc.").partition(".")[0]
    found = tuple(path for path in (f"tests/{room}", f"tests/test_{room}.py") if (root / path).exists())
    if not found or not module.startswith("trio_ipc."):
        raise KeyError(module)
    return (*found, *EVERYWHERE)
