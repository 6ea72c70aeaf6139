"""What tests of every package share."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.platforms import UNDER_WINE
from tests.support import Ends
from trio_ipc import IpcConfig, TransportType

#: Its entry point is there once the package is installed; under Wine it is only on the path.
pytest_plugins = ["pytest_trio_ipc", "pytester", "tests.workers", "tests.hardening.record"]

#: What has not been made to pass under Wine yet; docs/windows.md says so. Real Windows collects all of it.
_NOT_UNDER_WINE = (
    "aio/test_programs.py",
    "aio/test_resilient.py",
    "aio/test_serving.py",
    "blocking/test_programs.py",
    "cli",
    "distribution",
    "interop",
    "mutants",
    "testing/test_conformance_clients.py",
)
collect_ignore = [*_NOT_UNDER_WINE] if UNDER_WINE else []

# A shell ignores SIGINT in what it starts in the background; the programs of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _only_the_settings_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRIO_IPC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def directory() -> Iterator[str]:
    """A private directory with a path short enough for a socket; pytest's own are longer than that."""
    path = tempfile.mkdtemp(prefix="ipc-")
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=TransportType, ids=str)
def transport(request: pytest.FixtureRequest) -> TransportType:
    """Each of the transports, for all that must hold for both."""
    kind: TransportType = request.param
    if sys.platform == "win32" and kind is TransportType.LEGACY and "autojump_clock" in request.fixturenames:
        pytest.skip("a clock that jumps when all tasks wait does not see the threads that wait for pipes")
    return kind


@pytest.fixture
def config(directory: str, transport: TransportType) -> IpcConfig:
    if sys.platform == "win32":
        endpoint = rf"\\.\pipe\{os.path.basename(directory)}\test"
    else:
        endpoint = f"{directory}/test.sock"
    return IpcConfig(endpoint_path=endpoint, transport=transport)


@pytest.fixture
def ends(transport: TransportType) -> Iterator[Ends]:
    made = Ends(transport)
    yield made
    made.close()


@pytest.fixture
def half_closing_ends(ends: Ends) -> Ends:
    """Ends whose peer can close its sending side alone, and wait for a response."""
    if not ends.can_half_close:
        pytest.skip("a pipe is closed whole")
    return ends
