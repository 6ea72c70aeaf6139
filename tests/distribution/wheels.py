"""``python -m tests.distribution.wheels LOCK``: which platforms there are wheels for, from a lock of uv.

LOCK is a pylock.toml (PEP 751) for all platforms: it names every wheel of each package.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

from .record import PYTHONS, write


def _linux(libc: str, machine: str) -> list[str]:
    """Return the tags of a Linux whose C library is of 2021, or of any year before."""
    if libc == "musl":
        return [f"musllinux_1_{minor}_{machine}" for minor in (2, 1)]
    old = [f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
    return [*(f"manylinux_2_{minor}_{machine}" for minor in range(34, 4, -1)), *old]


PLATFORMS: Final = {
    "Linux, glibc, x86-64": _linux("glibc", "x86_64"),
    "Linux, glibc, ARM64": _linux("glibc", "aarch64"),
    "Linux, glibc, ARMv7": _linux("glibc", "armv7l"),
    "Linux, musl, x86-64": _linux("musl", "x86_64"),
    "Linux, musl, ARM64": _linux("musl", "aarch64"),
    "macOS, ARM64": [*mac_platforms((14, 0), "arm64")],
    "macOS, x86-64": [*mac_platforms((14, 0), "x86_64")],
    "Windows, x86-64": ["win_amd64"],
    "Windows, ARM64": ["win_arm64"],
}

#: What has code of its own for each platform. The other dependencies are Python alone.
PACKAGES: Final = ("protobuf", "fastcrc", "psutil", "blake3")


def tags(python: str, platforms: Sequence[str]) -> Iterator[Tag]:
    """Yield what a Python accepts there; ``3.14t`` is the free-threaded one."""
    version = (3, int(python.removesuffix("t").partition(".")[2]))
    plain = f"cp3{version[1]}"
    if python.endswith("t"):
        # It knows no stable ABI.
        yield from (Tag(plain, f"{plain}t", platform) for platform in platforms)
    else:
        yield from cpython_tags(version, [plain], platforms)
    yield from compatible_tags(version, plain, platforms)


def fitting(names: Iterable[str], platforms: Sequence[str]) -> list[str]:
    """Return the Pythons that one of these wheels fits, on these platforms."""
    # A wheel for any platform has nothing compiled, as protobuf's for those that have no other.
    offered = {tag for name in names for tag in parse_wheel_filename(name)[3] if tag.platform != "any"}
    return [
        python for python in (*PYTHONS, "3.14t") if any(tag in offered for tag in tags(python, platforms))
    ]


def names_in(package: dict[str, Any]) -> list[str]:
    """Return the file names of a locked package's wheels."""
    return [urlsplit(wheel["url"]).path.rpartition("/")[2] for wheel in package.get("wheels", ())]


def found_in(lock: str) -> dict[str, Any]:
    """Return which version of each package there is, and for which platforms it has wheels."""
    packages = {package["name"]: package for package in tomllib.loads(lock)["packages"]}
    return {
        name: {
            "version": packages[name]["version"],
            "wheels": {kind: fitting(names_in(packages[name]), tags) for kind, tags in PLATFORMS.items()},
        }
        for name in PACKAGES
    }


if __name__ == "__main__":
    write("wheels", found_in(Path(sys.argv[1]).read_text(encoding="utf-8")))
