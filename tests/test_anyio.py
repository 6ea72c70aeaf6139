"""anyio programs on its Trio backend use the library as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.platforms import UNDER_WINE
from tests.support import succeed, success, task
from trio_ipc import Call, CallTimeoutError, IpcConfig, Server, open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


def test_a_program_of_anyios_serves_and_calls(config: IpcConfig) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            server: Server[DetectionTask, DetectionResult] = await group.start(
                serve, succeed, DETECTION, config
            )
            async with open_client(DETECTION, config, max_in_flight=8) as client:
                assert await client.call(task("1")) == success("1")

                async def ask(name: str) -> None:
                    assert await client.call(task(name)) == success(name)

                async with anyio.create_task_group() as asking:
                    for number in range(20):
                        asking.start_soon(ask, str(number))
            server.stop()

    anyio.run(main, backend="trio")


def test_handlers_and_callers_may_use_what_anyio_has(config: IpcConfig) -> None:
    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "wait":
            await anyio.sleep_forever()
        name = await anyio.to_thread.run_sync(lambda: request.task_id)
        return success(name)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await group.start(serve, handle, DETECTION, config)
            async with open_client(DETECTION, config, max_in_flight=8) as client:
                assert await client.call(task("1")) == success("1")
                with anyio.move_on_after(0.01) as scope:
                    await client.call(task("wait"))
                assert scope.cancelled_caught
                with pytest.raises(TimeoutError), anyio.fail_after(0.01):
                    await client.call(task("wait"))
                with pytest.raises(CallTimeoutError):
                    await client.call(task("wait"), timeout=0.01)
            group.cancel_scope.cancel()

    anyio.run(main, backend="trio")


ON_ASYNCIO = """
import pytest
from trio_ipc.aio import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import temporary_endpoint

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True)


@pytest.fixture(scope="module", params=[1, 64])
async def client(request):
    with temporary_endpoint() as endpoint:
        async with serve(handle, DETECTION, endpoint.config()):
            async with open_client(DETECTION, endpoint.config(), max_in_flight=request.param) as client:
                yield client


async def test_a_call(client):
    assert (await client.call(DetectionTask(task_id="1"))).success


async def test_many_calls(client):
    assert len(await client.call_many([DetectionTask(task_id="1")] * 3)) == 3
"""

#: Fixtures of trio_ipc's own plugin. anyio's runs a test on each backend unless it is told not to.
FIXTURES = """
import pytest
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

pytestmark = pytest.mark.anyio


async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True)


async def test_a_call(ipc_server, ipc_client):
    await ipc_server(handle, DETECTION)
    client = await ipc_client(DETECTION)
    assert (await client.call(DetectionTask(task_id="1"))).success
"""


def run_tests(where: Path, text: str, *options: str) -> str:
    """Run a user's tests; return what pytest says."""
    (where / "test_of_a_user.py").write_text(text, encoding="utf-8")
    (where / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    plugin = ["-p", "pytest_trio_ipc"] if UNDER_WINE else []  # where the package is not installed
    command = [sys.executable, "-m", "pytest", "-W", "error", "-q", *plugin, *options]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout


TESTS = """
import pytest
from trio_ipc import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import MemoryEndpoint, open_pair

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "trio"


async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True)


@pytest.fixture
async def client():
    async with open_pair(handle, DETECTION) as pair:
        yield pair.client


async def test_a_call(client):
    assert (await client.call(DetectionTask(task_id="1"))).success


async def test_many_calls(client):
    assert len(await client.call_many([DetectionTask(task_id="1")] * 3)) == 3
"""


WITH_AND_WITHOUT = [("-p", "no:pytest_trio"), ()]


@pytest.mark.parametrize("options", WITH_AND_WITHOUT, ids=["alone", "beside pytest-trio"])
def test_its_pytest_plugin_runs_tests_of_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert "2 passed in" in (said := run_tests(tmp_path, TESTS, *options)), said


@pytest.mark.parametrize("options", WITH_AND_WITHOUT, ids=["alone", "beside pytest-trio"])
def test_its_pytest_plugin_runs_tests_of_the_adapter_for_asyncio(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert "4 passed in" in (said := run_tests(tmp_path, ON_ASYNCIO, *options)), said


@pytest.mark.parametrize("options", WITH_AND_WITHOUT, ids=["alone", "beside pytest-trio"])
def test_its_pytest_plugin_has_the_fixtures_of_ours_on_trio(tmp_path: Path, options: tuple[str, ...]) -> None:
    said = run_tests(tmp_path, FIXTURES, *options)
    assert "1 passed, 1 error in" in said, said
    assert "let anyio_backend be 'trio'" in said
