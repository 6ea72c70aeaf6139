"""The peers: what each is, how its program is started, and why it may be left out."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parents[2]

#: Where `make interop-peers` puts programs.
BUILT: Final = ROOT / "build" / "interop"


@attrs.frozen
class Peer:
    """A program that is both, server and client.

    Attributes:
        name: its name on the command line and in the tables.
        label: what it is, in words.
        command: how it is started, from the project's root.
        tool: what it is built with; None for what needs no building.
        waits_for_place: whether its server lets a connection over the limit wait, instead of closing it.
        has_auto: whether it finds out its peer's checksum variant where it is told to.
    """

    name: str
    label: str
    command: tuple[str, ...]
    tool: str | None = None
    waits_for_place: bool = False
    has_auto: bool = False

    def left_out(self) -> str | None:
        """Return why this peer can't take part here, None if it can."""
        if sys.platform == "win32":
            return "the peers listen at the paths of sockets"
        if self.tool is None or os.access(self.command[0], os.X_OK):
            return None
        if shutil.which(self.tool) is None:
            return f"{self.tool} is not installed"
        return f"it is not built: `make interop-{self.name}`"


def _ours(transport: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.interop.ours", transport)


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(
            "ours",
            "`trio_ipc`, default transport",
            _ours("interprocess"),
            waits_for_place=True,
            has_auto=True,
        ),
        Peer(
            "legacy",
            "`trio_ipc`, legacy transport",
            _ours("legacy"),
            waits_for_place=True,
            has_auto=True,
        ),
        # With nothing on its path but the standard library.
        Peer(
            "python",
            "Python's standard library alone",
            (sys.executable, "-S", "-m", "tests.interop.stdlib"),
        ),
        Peer("go", "Go, protobuf-go", (str(BUILT / "go" / "peer"),), "go"),
        Peer("rust", "Rust, tokio and prost", (str(BUILT / "rust" / "release" / "peer"),), "cargo"),
    )
}
