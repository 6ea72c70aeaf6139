"""What has become of a socket file while it is served.

Every user who may write its directory can remove the file or put another in its place; the server's socket
goes on listening, and no client finds it. Nobody tells the server, so it has to look. This module must never
change what it looks at.
"""

from __future__ import annotations

import os
import stat

import attrs


def root_directory() -> tuple[int, int] | None:
    """Return device and number of this process's root directory, by which a later chroot(2) is noticed."""
    try:
        found = os.stat("/")
    except OSError:
        return None  # nothing can be told by it, and nothing is
    return found.st_dev, found.st_ino


def is_mounted_alone(endpoint: str) -> bool:
    """Return whether a socket file is a mount of its own, as containers have it where its path was mounted.

    It then stays the same file, whatever becomes of the directory that it came from. Only Linux tells
    (proc_pid_mountinfo(5)).
    """
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            points = {line.split(b" ")[4] for line in lines}
    except (OSError, IndexError):
        return False
    path = os.fsencode(os.path.realpath(endpoint))
    for plain, written in ((b"\\", rb"\134"), (b" ", rb"\040"), (b"\t", rb"\011"), (b"\n", rb"\012")):
        path = path.replace(plain, written)
    return path in points


@attrs.frozen(kw_only=True)
class EndpointState:
    """A socket file and its directory at one moment.

    Attributes:
        file: ``there``, ``removed``, ``replaced`` by another file, ``out of reach`` where the system does
            not let us look, or ``out of sight`` where this process has another root directory by now, or
            where nothing was seen there from the beginning.
        mode: its permissions, None where it is not there.
        group: the group that it belongs to, likewise.
        directory_mode: those of its directory, None where that can't be told.
        directory_owner: the user that the directory belongs to, likewise.
    """

    file: str
    mode: int | None = None
    group: int | None = None
    directory_mode: int | None = None
    directory_owner: int | None = None

    @classmethod
    def of(cls, endpoint: str, inode: tuple[int, int], root: tuple[int, int] | None = None) -> EndpointState:
        """Look at a path. Does not wait for anything but the file system.

        Args:
            endpoint: absolute path of the socket.
            inode: device and number of the file that the server made.
            root: :func:`root_directory` of when it made it, if that is known.
        """
        state = cls._found(endpoint, inode)
        if state.file != "there" and root is not None and root_directory() != root:
            return cls(file="out of sight")
        return state

    @classmethod
    def _found(cls, endpoint: str, inode: tuple[int, int]) -> EndpointState:
        try:
            directory = os.stat(os.path.dirname(endpoint))
            file = os.lstat(endpoint)
        except FileNotFoundError:
            return cls(file="removed")
        except OSError:
            return cls(file="out of reach")
        ours = (file.st_dev, file.st_ino) == inode
        return cls(
            file="there" if ours else "replaced",
            mode=stat.S_IMODE(file.st_mode) if ours else None,
            group=file.st_gid if ours else None,
            directory_mode=stat.S_IMODE(directory.st_mode),
            directory_owner=directory.st_uid,
        )

    def changes(self, now: EndpointState) -> str:
        """Say what is different now, for people; empty if nothing is."""
        if now.file != self.file:
            return f"it was {now.file}"
        said = []
        if now.mode != self.mode:
            said.append(f"its mode was changed from {self.mode:04o} to {now.mode:04o}")
        if now.group != self.group:
            said.append(f"its group was changed from gid {self.group} to {now.group}")
        if now.directory_mode != self.directory_mode:
            said.append(
                f"the mode of its directory was changed from {self.directory_mode:04o} to "
                f"{now.directory_mode:04o}"
            )
        if now.directory_owner != self.directory_owner:
            said.append(
                f"the owner of its directory was changed from uid {self.directory_owner} to "
                f"{now.directory_owner}"
            )
        return " and ".join(said)
