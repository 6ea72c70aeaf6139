"""The collector changes its transport at SIGHUP, from outside, under load, and whatever its file says."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

if sys.platform == "win32":
    pytest.skip("Windows has no SIGHUP", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc import IpcConfig, TransportType, open_client  # noqa: E402
from trio_ipc.daemoneye import DETECTION, negotiation_task  # noqa: E402
from trio_ipc.transports.host import STOP_SIGNALS  # noqa: E402

from .support import Program, collector_at, once  # noqa: E402
from .test_programs import hash_client, make_endless  # noqa: E402


@pytest.fixture
def settings(short_dir: Path) -> Path:
    return short_dir / "procmond.toml"


def write(settings: Path, transport: str, more: str = "") -> None:
    # A reader never sees half of it.
    substitute = settings.with_suffix(".new")
    substitute.write_text(f'[ipc]\ntransport = "{transport}"\n{more}')
    substitute.rename(settings)


@asynccontextmanager
async def collector(endpoint: str, settings: Path, *options: str) -> AsyncIterator[Program]:
    async with collector_at(endpoint, "--config", str(settings), *options) as program:
        yield program


async def hang_up(program: Program) -> str | None:
    await program.signal(signal.SIGHUP)
    return await program.stderr.next()


async def test_sighup_switches_there_and_back_and_says_so(endpoint: str, settings: Path) -> None:
    write(settings, "interprocess")
    async with collector(endpoint, settings) as program:
        await once(endpoint)
        write(settings, "legacy")
        assert await hang_up(program) == ("procmond: reloaded: the transport was interprocess, is now legacy")
        await once(endpoint)
        assert await hang_up(program) == "procmond: reloaded: the transport stays legacy"
        write(settings, "interprocess")
        assert await hang_up(program) == ("procmond: reloaded: the transport was legacy, is now interprocess")
        await once(endpoint)
        write(settings, "legacy")
        await hang_up(program)
        await program.signal(STOP_SIGNALS[-1])
        assert await program.end() == 0
        assert program.stderr.seen[-1].startswith("procmond: served: transport=legacy")


async def test_a_file_that_is_wrong_or_gone_changes_nothing(endpoint: str, settings: Path) -> None:
    write(settings, "legacy")
    async with collector(endpoint, settings) as program:
        write(settings, "pigeon")
        assert "not reloaded: transport is 'pigeon'" in (await hang_up(program) or "")
        settings.unlink()
        assert "not reloaded: cannot read the configuration file" in (await hang_up(program) or "")
        await once(endpoint)
        write(settings, "interprocess")
        assert "is now interprocess" in (await hang_up(program) or "")


async def test_what_takes_a_restart_is_named(endpoint: str, settings: Path) -> None:
    write(settings, "interprocess")
    async with collector(endpoint, settings) as program:
        write(settings, "legacy", "max_connections = 3\nread_timeout_ms = 7\n")
        assert "is now legacy" in (await hang_up(program) or "")
        assert await program.stderr.next() == (
            "procmond: these changes need a restart: read_timeout_ms, max_connections"
        )
        await once(endpoint)


async def test_callers_notice_nothing_of_ten_hangups(endpoint: str, settings: Path) -> None:
    """Sixteen callers without a pause, a quarter of which connect anew for each call."""
    write(settings, "interprocess", "max_connections = 64\n")
    answered = 0
    over = False

    async def call(number: int) -> None:
        nonlocal answered
        config = IpcConfig(endpoint_path=endpoint, transport=list(TransportType)[number % 2])
        while not over:
            async with open_client(DETECTION, config) as client:
                for _ in range(1 if number % 4 == 0 else 20):
                    request = negotiation_task()
                    assert (await client.call(request)).task_id == request.task_id
                    answered += 1

    async with collector(endpoint, settings) as program:
        async with trio.open_nursery() as callers:
            for number in range(16):
                callers.start_soon(call, number)
            for number in range(10):
                enough = answered + 50
                while answered < enough:  # noqa: ASYNC110 - the callers should do nothing but call
                    await trio.sleep(0.001)
                wanted = list(TransportType)[(number + 1) % 2]
                write(settings, str(wanted), "max_connections = 64\n")
                assert f"is now {wanted}" in (await hang_up(program) or "")
            over = True
        await program.signal(STOP_SIGNALS[-1])
        assert await program.end() == 0
        counters = program.stderr.seen[-1].split()
        assert "transport=interprocess" in counters
        assert f"requests={answered}" in counters
        assert not any(entry.startswith(("connections_refused", "handler_f")) for entry in counters)


async def test_two_hangups_at_once_are_like_one(endpoint: str, settings: Path) -> None:
    write(settings, "interprocess")
    async with collector(endpoint, settings) as program:
        write(settings, "legacy")
        for _ in range(5):
            await program.signal(signal.SIGHUP)
        assert "is now legacy" in (await program.stderr.next() or "")
        await once(endpoint)
        await program.signal(STOP_SIGNALS[-1])
        assert await program.end() == 0
        assert program.stderr.seen[-1].startswith("procmond: served: transport=legacy")


async def test_a_hangup_while_it_stops_neither_kills_nor_switches(
    endpoint: str, settings: Path, tmp_path: Path
) -> None:
    write(settings, "interprocess", "shutdown_grace_ms = 600000\nhandler_timeout_ms = 600000\n")
    endless = make_endless(tmp_path)
    async with collector(endpoint, settings, "--verbose") as program:
        async with trio.open_nursery() as nursery:

            async def be_answered_in_the_end() -> None:
                await trio.run_process(hash_client(endpoint, endless), check=False, capture_stderr=True)

            nursery.start_soon(be_answered_in_the_end)
            await program.stderr.until(lambda line: "task 'endless'" in line)
            write(settings, "legacy")
            await program.signal(STOP_SIGNALS[0])
            while Path(endpoint).exists():  # noqa: ASYNC110 - another process removes it
                await trio.sleep(0.01)
            await program.signal(signal.SIGHUP)
            said = await program.stderr.until(lambda line: "reloaded" in line)
            assert "the server is stopping" in said
            await program.signal(STOP_SIGNALS[-1])
        assert await program.end() == 0
        assert any("served: transport=interprocess" in line for line in program.stderr.seen)
