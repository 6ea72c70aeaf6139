"""The errors that the documentation quotes are what the library says, apart from numbers."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.docs_support import DOCS, fences_of
from tests.platforms import unix_only
from trio_ipc import Call, ConfigError, Crc32Variant, IpcConfig, IpcError, open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


async def complaint(action: Callable[[], object]) -> str:
    """What a call, which may be asynchronous, complains of."""
    try:
        result = action()
        if hasattr(result, "__await__"):
            await result
    except IpcError as exc:
        return str(exc)
    raise AssertionError("it did not fail")


async def answer(task: DetectionTask, _: Call) -> DetectionResult:
    if task.task_id == "large":
        return DetectionResult(task_id="large", error_message="x" * 2_000_000)
    raise ValueError("no such process")


async def first_errors(directory: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What docs/getting-started.md quotes."""
    assert sys.platform != "win32"
    config = IpcConfig(endpoint_path=f"{directory}/s.sock")

    async def listen() -> None:
        await serve(answer, DETECTION, config)

    async def call(task: DetectionTask, config: IpcConfig = config) -> DetectionResult:
        async with open_client(DETECTION, config) as client:
            return await client.call(task)

    task = DetectionTask(task_id="1")
    errors = {"not-found": await complaint(lambda: call(task))}
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, answer, DETECTION, config)
        errors["in-use"] = await complaint(listen)
        errors["empty"] = await complaint(lambda: call(DetectionTask()))
        errors["too-large"] = await complaint(lambda: call(DetectionTask(task_id="x" * 2_000_000)))
        other = config.replace(crc32_variant=Crc32Variant.CASTAGNOLI)
        errors["variant"] = await complaint(lambda: call(task, other))
        errors["raised"] = (await call(task)).error_message
        errors["response-too-large"] = (await call(DetectionTask(task_id="large"))).error_message
        server.stop()
    with trio.socket.socket(trio.socket.AF_UNIX) as dead:
        await dead.bind(config.endpoint_path)
        errors["refused"] = await complaint(lambda: call(task))
    os.unlink(config.endpoint_path)
    Path(config.endpoint_path).touch()
    errors["not-a-socket"] = await complaint(listen)
    os.unlink(config.endpoint_path)
    os.chmod(directory, 0o777)
    errors["shared"] = await complaint(listen)
    os.chmod(directory, 0o700)

    def forbidden(path: str, *_: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", forbidden)  # root may make directories anywhere
        elsewhere = config.replace(endpoint_path=f"{directory}/missing/s.sock")
        errors["no-right"] = (await complaint(lambda: serve(answer, DETECTION, elsewhere))).replace(
            "missing/", ""
        )
    errors["relative"] = await complaint(lambda: IpcConfig(endpoint_path="hello.sock"))
    return {
        name: text.replace(f"{directory}/s.sock", "PATH").replace(directory, "DIR")
        for name, text in errors.items()
    }


async def setting_errors(directory: str) -> dict[str, str]:
    """What docs/configuration.md quotes."""
    wrong: dict[str, Callable[[], object]] = {
        "value": lambda: IpcConfig(read_timeout_ms=0),
        "choice": lambda: IpcConfig(crc32_variant="crc32"),
        "unknown": lambda: IpcConfig.load(read_timeout=5),
        "environment": lambda: IpcConfig.load(environ={"TRIO_IPC_MAX_CONECTIONS": "8"}, strict=True),
        "transport": lambda: IpcConfig(transport="tcp"),
        "file": lambda: IpcConfig.load(Path(directory, "settings.toml")),
        "huge": lambda: IpcConfig(max_connections=10**5_000),
    }
    return {name: (await complaint(action)).replace(directory + os.sep, "") for name, action in wrong.items()}


def without_numbers(text: str) -> str:
    """Sizes, checksums and process ids differ from run to run, and from version to version."""
    return re.sub(r"\b[0-9a-f]{8}\b|\b[N\d]+\b", "#", text)


def quote(page: Path) -> list[str]:
    return [without_numbers(fence.text.strip()) for fence in fences_of(page) if fence.language == "text"]


@unix_only  # half of them speak of socket files and modes
async def test_the_errors_that_newcomers_meet_say_what_is_quoted(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotes = quote(DOCS / "getting-started.md")
    with trio.fail_after(10):
        errors = await first_errors(directory, monkeypatch)
    assert [text for text in errors.values() if without_numbers(text) not in quotes] == []
    assert len(quotes) == len(errors) + 3  # what the two clients print, and who catches errors


async def test_the_errors_of_settings_say_what_is_quoted(directory: str) -> None:
    errors = await setting_errors(directory)
    quotes = quote(DOCS / "configuration.md")
    assert sorted(quotes) == sorted(without_numbers(text) for text in errors.values())
    assert issubclass(ConfigError, ValueError)
