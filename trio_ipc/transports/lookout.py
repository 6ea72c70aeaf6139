"""What has become of a socket file while it is served.

Whoever may write its directory can remove the file or put another in its place; the server's socket goes on
listening, and no client finds it. Nobody tells the server, so it has to look. This module must never change
what it looks at.
"""

from __future__ import annotations

import os
import stat

import attrs


@attrs.frozen(kw_only=True)
class EndpointState:
    """A socket file and its directory at one moment.

    Attributes:
        file: ``there``, ``removed``, ``replaced`` by another file, or ``out of reach``.
        mode: its permissions, None where it is not there.
        directory_mode: those of its directory, None where that can't be told.
        directory_owner: the user that the directory belongs to, likewise.
    """

    file: str
    mode: int | None = None
    directory_mode: int | None = None
    directory_owner: int | None = None

    @classmethod
    def of(cls, endpoint: str, inode: tuple[int, int]) -> EndpointState:
        """Look at a path. Does not wait for anything but the file system.

        Args:
            endpoint: absolute path of the socket.
            inode: device and number of the file that the server made.
        """
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
