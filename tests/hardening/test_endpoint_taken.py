"""The socket file, its mode and its directory change under a running server, which notices and says so."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tests.hardening.record import Attack
from tests.platforms import unix_only
from tests.support import serving, succeed, success, task
from trio_ipc import IpcConfig, TransportType, open_client
from trio_ipc.daemoneye import DETECTION

pytestmark = unix_only

LONG_ENOUGH = 5.5


def remove(path: str) -> None:
    os.unlink(path)


def replace(path: str) -> None:
    os.rename(path, f"{path}.old")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)


def replace_by_a_file(path: str) -> None:
    os.rename(path, f"{path}.old")
    with open(path, "w"):
        pass


def open_up(path: str) -> None:
    os.chmod(path, 0o666)


def give_it_to_another_group(path: str) -> None:
    assert sys.platform != "win32"
    os.chown(path, -1, 12_345)


def open_the_directory(path: str) -> None:
    os.chmod(os.path.dirname(path), 0o777)


def give_the_directory_away(path: str) -> None:
    assert sys.platform != "win32"
    os.chown(os.path.dirname(path), 12_345, -1)


def take_the_directory(path: str) -> None:
    os.rename(os.path.dirname(path), f"{os.path.dirname(path)}.old")
    os.mkdir(os.path.dirname(path), 0o700)


SAID: dict[Callable[[str], None], str] = {
    remove: "it was removed",
    replace: "it was replaced",
    replace_by_a_file: "it was replaced",
    take_the_directory: "it was removed",
    open_up: "its mode was changed from 0600 to 0666",
    give_it_to_another_group: f"its group was changed from gid {os.getegid()} to 12345"
    if sys.platform != "win32"
    else "",
    open_the_directory: "the mode of its directory was changed from 0700 to 0777",
    give_the_directory_away: "the owner of its directory was changed from uid 0 to 12345",
}


as_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="takes root: it gives something to another user"
)
needs_root = {give_the_directory_away, give_it_to_another_group}


@pytest.mark.parametrize(
    "meddle",
    [pytest.param(meddle, marks=as_root if meddle in needs_root else ()) for meddle in SAID],
)
async def test_what_is_done_to_the_socket_file_is_noticed_and_told_once(
    config: IpcConfig,
    meddle: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
    attack: Attack,
) -> None:
    # In a directory of its own, which the server makes.
    directory, name = os.path.split(config.endpoint_path)
    config = config.replace(endpoint_path=f"{directory}/d/{name}")
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await trio.sleep(LONG_ENOUGH)
        assert server.snapshot().endpoint_intact
        meddle(config.endpoint_path)
        await trio.sleep(LONG_ENOUGH)
        assert not server.snapshot().endpoint_intact
        await trio.sleep(2 * LONG_ENOUGH)
        # A client that is connected is served all the same.
        assert await client.call(task()) == success()
        told = [record for record in caplog.records if "is not as this server made it" in record.message]
        assert [record.levelname for record in told] == ["WARNING"]
        assert (
            f"{config.endpoint_path} is not as this server made it: {SAID[meddle]}; see who"
            in told[0].message
        )
        assert told[0].__dict__["endpoint"] == config.endpoint_path
    attack(
        "the socket file removed, replaced or opened up under a running server, its directory taken, opened "
        "up or given away",
        tried=1,
        outcome="noticed within 5 s, logged once, shown by `endpoint_intact`; connections in progress served",
    )


async def test_what_is_mended_is_told_too(
    config: IpcConfig, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level("INFO")
    async with serving(succeed, config) as server:
        os.chmod(config.endpoint_path, 0o666)
        await trio.sleep(LONG_ENOUGH)
        assert not server.snapshot().endpoint_intact
        os.chmod(config.endpoint_path, 0o600)
        await trio.sleep(LONG_ENOUGH)
        assert server.snapshot().endpoint_intact
    assert f"{config.endpoint_path} is as this server made it again" in caplog.text


async def test_a_switch_of_transports_changes_nothing_of_that(
    config: IpcConfig, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    [other] = set(TransportType) - {config.transport}
    async with serving(succeed, config) as server:
        await server.switch_transport(other)
        await trio.sleep(LONG_ENOUGH)
        assert server.snapshot().endpoint_intact
        os.unlink(config.endpoint_path)
        await trio.sleep(LONG_ENOUGH)
        assert not server.snapshot().endpoint_intact


async def test_what_cannot_be_looked_at_is_told_as_that(
    config: IpcConfig,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(_path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    async with serving(succeed, config) as server:
        await trio.sleep(1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "lstat", denied)
            await trio.sleep(LONG_ENOUGH)
        assert not server.snapshot().endpoint_intact
    assert "it was out of reach" in caplog.text
