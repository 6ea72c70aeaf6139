"""Which Wine runs the tests: the machine's own, or Debian 13's (Wine 10) beside the system.

Wine 10 is unpacked from Debian's packages into a folder of the cache, and runs there with that folder for its
root, in a mount namespace of its own that is gone when it ends. Nothing of the machine is changed: apt works
on lists and a status of its own, no script of a package is run, and no mount is left. Packages are Debian's
of the day, by its signatures; the machine's own archive of Debian is asked, and no other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

import attrs

assert sys.platform != "win32"

ROOT: Final = Path(__file__).resolve().parents[2]

#: Debian's packages of the machine's own Wine.
PACKAGES: Final = ("wine", "wine64")
#: What is unpacked from them beside the system, and from which release: the numbers of Wine, Debian's names.
BESIDE: Final = {"10": "trixie"}
#: Which can be asked for. Debian 12 has Wine 8, Debian 13 has Wine 10.
VERSIONS: Final = ("8", *BESIDE)

_UNPACKED: Final = "wine64", "libc-bin"
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MACHINE: Final = os.uname().machine
_TOOLS: Final = ("apt-get", "dpkg-deb", "unshare", "mount")
_LIBRARY: Final = "usr/lib/wine"

#: Makes the mounts that a root of its own needs, in the namespace it was started in, and leaves for it.
_ENTER: Final = """
set -e
root=$1 tree=$2
shift 2
for each in /proc /dev /sys; do mount --rbind "$each" "$root$each"; done
mount --bind -o ro "$tree" "$root$tree"
while [ "$1" != -- ]; do mount --bind "$1" "$root$1"; shift; done
shift
# The one of this name is a script, which takes a shell.
export WINESERVER=/usr/lib/wine/wineserver64
exec unshare --root="$root" --wd="$tree" "$@"
"""


def give_up(reason: str) -> NoReturn:
    sys.exit(f"make test-windows: {reason}")


@attrs.frozen
class Wine:
    """A Wine to run programs by.

    Attributes:
        version: as ``wine --version`` says it.
        root: where it is unpacked; None for the machine's own.
    """

    version: str
    root: Path | None = None

    @property
    def major(self) -> str:
        """Its number: ``wine-8.0 (Debian 8.0~repack-4)`` is 8."""
        found = re.match(r"wine-(\d+)", self.version)
        return found[1] if found else ""

    def program(self, home: Path, *command: str) -> list[str]:
        """Return the command that runs a program of Windows, which may write to a folder."""
        if self.root is None:
            return ["wine", *command]
        return self._inside(home, f"/{_LIBRARY}/wine64", *command)

    def server(self, home: Path, how: str) -> list[str]:
        """Return the command that tells the prefix's server something (wineserver(1))."""
        if self.root is None:
            return ["wineserver", how]
        return self._inside(home, f"/{_LIBRARY}/wineserver64", how)

    def _inside(self, home: Path, *command: str) -> list[str]:
        assert self.root is not None
        for shared in (ROOT, home):
            (self.root / shared.relative_to("/")).mkdir(parents=True, exist_ok=True)
        enter = ["sh", "-c", _ENTER, "sh", str(self.root), str(ROOT), str(home), "--"]
        return [*namespace(), *enter, *command]


def namespace() -> list[str]:
    """Return the command that gives another one a mount namespace of its own."""
    return ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--"]


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock, which others wait for."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def said_by(command: Sequence[str]) -> str:
    """Return what a command prints; nothing if it fails or is missing."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find(wanted: str | None, cache: Path) -> Wine:
    """Return a Wine, made or installed if need be; end this program if it cannot be had.

    Args:
        wanted: its number; None for the machine's own, whichever that is.
        cache: where what is unpacked stays.
    """
    own = Wine(said_by(["wine", "--version"]) if shutil.which("wineserver") else "")
    if wanted in BESIDE and own.major != wanted:
        return unpacked(wanted, cache / f"wine-{wanted}")
    if not own.version:
        install()
        own = Wine(said_by(["wine", "--version"]))
    if wanted is not None and own.major != wanted:
        give_up(f"this machine has {own.version or 'no Wine'}, and Wine {wanted} cannot be had beside it")
    return own


def install() -> None:
    """Install the machine's own Wine where that is allowed, otherwise say in one line what is missing."""
    wanted = f"Debian packages {' and '.join(PACKAGES)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        give_up(f"Wine is missing ({wanted}), and only root on a Debian system can install it here")
    print(f"installing {wanted}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *PACKAGES]
    for command in (["apt-get", "update", "--quiet=2"], install):
        done = subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            give_up(f"Wine is missing, and '{' '.join(command)}' failed (exit status {done.returncode})")


# --- Beside the system ------------------------------------------------------------------------------------


def unpacked(version: str, root: Path) -> Wine:
    """Unpack a Wine unless it is there. The caller holds a lock."""
    reason = why_not()
    if reason is not None:
        give_up(f"Wine {version} cannot be had on this machine: {reason}")
    complete = root / ".complete"
    if not complete.exists():
        print(f"unpacking Wine {version} of Debian {BESIDE[version]} in {root}", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        lay_out(root)
        with tempfile.TemporaryDirectory() as scratch:
            for package in download(BESIDE[version], Path(scratch)):
                run(["dpkg-deb", "--extract", str(package), str(root)])
        make_builtin(root)
    found = Wine(said_by(Wine("", root).program(ROOT, "--version")), root)
    if found.major != version:
        give_up(f"what Debian {BESIDE[version]} has is not Wine {version}: it says {found.version!r}")
    complete.touch()
    return found


def why_not() -> str | None:
    """Return why nothing can be unpacked and run beside this system, if so."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if sys.platform != "linux" or missing:
        return f"that takes Debian's tools, and there is no {' and no '.join(missing or ['Linux'])}"
    if _MACHINE != "x86_64":
        return f"it is for x86_64, and this is {_MACHINE}"
    if not _KEYRING.exists():
        return f"there is no {_KEYRING} to check its packages by (Debian package debian-archive-keyring)"
    done = subprocess.run([*namespace(), "true"], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        return f"it takes a mount namespace, which this system refuses: {done.stderr.strip()}"
    return None


def lay_out(root: Path) -> None:
    """Make what no package of those brings: the links that all of Debian 13 relies on, and some files."""
    for name in (
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "proc",
        "dev",
        "root",
        "tmp",
        "var/tmp",
    ):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")


def make_builtin(root: Path) -> None:
    """Give Wine the library that its package's script gives it: zlib, marked as one of Wine's own."""
    for library in (root / "usr/x86_64-w64-mingw32/lib").glob("zlib*.dll"):
        data = library.read_bytes()
        # Where other programs have a text for DOS; the loader of Wine looks for it there.
        marked = data[:64] + b"Wine builtin DLL".ljust(32, b"\0") + data[96:]
        (root / "usr/lib/x86_64-linux-gnu/wine/x86_64-windows" / library.name).write_bytes(marked)


def download(release: str, scratch: Path) -> list[Path]:
    """Download a release's packages of Wine and all that they depend on, by an apt of its own state."""
    for name in ("lists/partial", "archives/partial"):
        (scratch / name).mkdir(parents=True)
    status, sources, settings = scratch / "status", scratch / "sources.list", scratch / "apt.conf"
    status.touch()
    sources.write_text(f"deb [arch=amd64 signed-by={_KEYRING}] {archive()} {release} main\n")
    settings.write_text(
        f'Dir::State::lists "{scratch}/lists";\n'
        f'Dir::State::status "{status}";\n'
        f'Dir::State::extended_states "{scratch}/extended_states";\n'
        f'Dir::Cache "{scratch}";\n'
        f'Dir::Etc::sourcelist "{sources}";\n'
        'Dir::Etc::sourceparts "-";\n'
        'Dir::Etc::preferencesparts "-";\n'
        f'Dir::Log "{scratch}";\n'
        'APT::Architecture "amd64";\n'
        'APT::Architectures { "amd64"; };\n'
        'APT::Install-Recommends "false";\n'
        'APT::Sandbox::User "root";\n'
    )
    apt = ["apt-get", "--quiet=2", f"--config-file={settings}"]
    run([*apt, "update"])
    run([*apt, "install", "--yes", "--download-only", *_UNPACKED])
    packages = sorted((scratch / "archives").glob("*.deb"))
    if not packages:
        give_up(f"'apt-get install --download-only {' '.join(_UNPACKED)}' downloaded nothing")
    return packages


def archive() -> str:
    """Return the address of Debian's archive that the machine's own apt uses."""
    targets = said_by(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(CREATED_BY)"])
    release = said_by(["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"])
    for line in targets.splitlines():
        address, suite, kind = line.split(" ", 2)
        if suite == release and kind == "Packages":
            return address
    give_up(f"apt's sources on this machine name no archive of Debian {release}".rstrip())


def run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        give_up(f"'{' '.join(command)}' failed (exit status {done.returncode})")
