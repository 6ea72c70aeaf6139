"""The pytest plugin of trio_ipc: fixtures for servers and clients. docs/testing.md is the guide.

pytest loads it by an entry point into every test run of an environment that has trio_ipc. It therefore
stands outside of the package and must import nothing of it, nor Trio, before a test asks for a fixture: a
run that has nothing to do with it must not pay for it, and one that measures coverage must see the import.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trio_ipc.testing import Faults, IpcEndpoint, OpenClient, StartServer

_MARKER = "ipc_transport"

#: Faults that a test has made, for the report of its failure.
_FAULTS = pytest.StashKey[list["Faults"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that repeats a run's faults."""
    group = parser.getgroup("trio_ipc")
    group.addoption(
        "--ipc-seed",
        type=int,
        default=None,
        metavar="N",
        help="seed of the first faults of ipc_faults that have none of their own, as the report of a failure "
        "tells it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f'{_MARKER}(*kinds): run the test once over each of "memory", "interprocess", "legacy" '
        f"(for tests that use ipc_endpoint, ipc_server or ipc_client; memory without it)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once over each kind of endpoint that its marker names."""
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None:
        return
    if "ipc_endpoint" not in metafunc.fixturenames:
        if marker not in metafunc.definition.own_markers:
            return  # a class or a module is marked, and this test is not of that kind
        pytest.fail(
            f"{metafunc.definition.nodeid}: {_MARKER} is for tests that use ipc_endpoint, ipc_server or "
            f"ipc_client",
            pytrace=False,
        )
    from trio_ipc.testing.fixtures import known_kinds  # noqa: PLC0415 - only when it is used

    unknown = [kind for kind in marker.args if kind not in known_kinds()]
    if unknown or not marker.args or marker.kwargs:
        pytest.fail(
            f"{metafunc.definition.nodeid}: {_MARKER}({', '.join(map(repr, marker.args))}) must name "
            f"some of {', '.join(known_kinds())}",
            pytrace=False,
        )
    metafunc.parametrize("ipc_endpoint", [str(kind) for kind in marker.args], indirect=True)


@pytest.fixture
def ipc_endpoint(request: pytest.FixtureRequest) -> Iterator[IpcEndpoint]:
    """An endpoint that no other test has: in memory, or as the marker ``ipc_transport`` says.

    A transport that this version, or this system, does not have is skipped, with what the settings say.
    """
    from trio_ipc import ConfigError  # noqa: PLC0415 - only when it is used
    from trio_ipc.testing.pair import an_endpoint  # noqa: PLC0415

    place = an_endpoint(getattr(request, "param", "memory"))
    try:
        endpoint = place.__enter__()
    except ConfigError as exc:
        if exc.field != "transport":
            raise
        pytest.skip(str(exc))
    yield endpoint
    place.__exit__(None, None, None)


@pytest.fixture
async def ipc_server(ipc_endpoint: IpcEndpoint) -> AsyncIterator[StartServer]:
    """A function that starts a server at ``ipc_endpoint``, such as ``await start(handler, CONTRACT)``.

    It takes what :func:`trio_ipc.testing.open_server` takes, less the endpoint. The server is cancelled
    after the test.
    """
    from trio_ipc.testing.fixtures import server_starter  # noqa: PLC0415 - only when it is used

    _check_under_trio("ipc_server")
    async with server_starter(ipc_endpoint) as start:
        yield start


@pytest.fixture
async def ipc_client(ipc_endpoint: IpcEndpoint) -> AsyncIterator[OpenClient]:
    """A function that connects to ``ipc_endpoint``, such as ``await connect(CONTRACT)``.

    It takes what :func:`trio_ipc.testing.open_client_at` takes, less the endpoint. The client is closed
    after the test.
    """
    from trio_ipc.testing.fixtures import client_opener  # noqa: PLC0415 - only when it is used

    _check_under_trio("ipc_client")
    async with client_opener(ipc_endpoint) as connect:
        yield connect


def _check_under_trio(fixture: str) -> None:
    """Fail with what is to be done where another event loop runs a fixture of Trio's."""
    import trio  # noqa: PLC0415 - only when it is used

    if not trio.lowlevel.in_trio_run():
        pytest.fail(
            f"{fixture} needs Trio, and another event loop runs it: pytest-asyncio takes every async fixture "
            f"in its automatic mode. Set asyncio_mode = strict, and mark tests of Trio by pytest.mark.trio; "
            f"in tests of anyio's plugin, let anyio_backend be 'trio'",
            pytrace=False,
        )


@pytest.fixture
def ipc_faults(request: pytest.FixtureRequest) -> Callable[..., Faults]:
    """:class:`trio_ipc.testing.Faults`, whose seed and hits are in the report if the test fails.

    Of those that the test gives no seed, the first has that of ``--ipc-seed``, or one that is drawn, and each
    further one the next number.
    """
    from trio_ipc.testing import Faults  # noqa: PLC0415 - only when it is used

    made: list[Faults] = []
    request.node.stash[_FAULTS] = made  # in the place of those of an earlier run of this test

    first = request.config.getoption("--ipc-seed")
    seeds = itertools.count(random.SystemRandom().randrange(2**32) if first is None else first)

    def make(**arguments: Any) -> Faults:
        if arguments.get("seed") is None:
            arguments["seed"] = next(seeds)
        made.append(Faults(**arguments))
        return made[-1]

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add seeds and faults to the report of a test that failed with them."""
    report = yield
    if report.failed and _FAULTS in item.stash:
        text = "\n".join(faults.report() for faults in item.stash[_FAULTS])
        report.sections.append(("trio_ipc faults", text))
    return report
