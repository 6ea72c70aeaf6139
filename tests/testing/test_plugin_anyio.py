"""The fixtures in tests of anyio's plugin, in pytest runs of their own."""

from __future__ import annotations

import pytest

from tests.testing.inner_pytest import long_under_wine, run

UNDER_ANYIO = """
import pytest, trio
from trio_ipc import ConfigError, IpcError
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "trio"

async def asserts(task, call):
    assert task.task_id == "expected"
    return DetectionResult(task_id=task.task_id, success=True)

async def ask(ipc_server, ipc_client, task_id):
    await ipc_server(asserts, DETECTION)
    client = await ipc_client(DETECTION)
    return await client.call(DetectionTask(task_id=task_id))

async def test_that_fails(ipc_server, ipc_client):
    with pytest.raises(IpcError):
        await ask(ipc_server, ipc_client, "another")
    await trio.sleep(0)

async def test_that_fails_in_a_task_of_its_own(ipc_server, ipc_client):
    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ipc_server, ipc_client, "another")

async def test_where_the_server_dies(ipc_endpoint, ipc_server):
    server = await ipc_server(asserts, DETECTION)
    ipc_endpoint.fail_accept(OSError(5, "the disk is on fire"))
    await server.wait_stopped()
    await trio.sleep(0)

async def test_that_cannot_start_one(ipc_server):
    with pytest.raises(ConfigError):
        await ipc_server(asserts, DETECTION, max_connections="many")

async def test_that_passes(ipc_server, ipc_client):
    assert (await ask(ipc_server, ipc_client, "expected")).success
"""


@long_under_wine
def test_under_anyios_plugin_what_fails_beside_a_test_is_an_error_of_its_teardown(
    pytester: pytest.Pytester,
) -> None:
    """There one task runs fixtures and tests, and a cancellation that came to it would end all."""
    pytest.importorskip("anyio")
    result = run(pytester, UNDER_ANYIO, trio_mode=False, timeout=60)
    result.assert_outcomes(passed=5, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_that_fails *",
            "*assert task.task_id == *expected*",
            "*ERROR at teardown of test_that_fails_in_a_task_of_its_own *",
            "*assert task.task_id == *expected*",
            "*ERROR at teardown of test_where_the_server_dies *",
            "*the disk is on fire*",
        ]
    )
