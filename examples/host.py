"""What each system has for the example programs: how a program is asked to end, names of users, and files.

All platform code of the examples is here.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

import trio

from trio_ipc.endpoint import endpoint_in_full

if sys.platform == "win32":
    #: How to start a program that can be asked to end: the console asks all of a group at a time.
    IN_ITS_OWN_GROUP: Final[Mapping[str, Any]] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    #: Whether st_ctime tells the last change of a file. Here it is the file's creation.
    KNOWS_CHANGES: Final = False

    #: Whether there is proc(5). Its path would be a folder of the current drive, and anybody's.
    HAS_PROC: Final = False

    def ask_to_end(process: trio.Process) -> None:
        """Ask a program to end, as a service manager would. It must have been started `IN_ITS_OWN_GROUP`."""
        process.send_signal(signal.CTRL_BREAK_EVENT)

    def private_endpoint(directory: str) -> str:
        """Name an endpoint for a private directory that nobody else has."""
        return endpoint_in_full(f"trio-ipc-{os.path.basename(directory)}")

    def user_name(user_id: str) -> str:
        """Return a user's name, or what it is called by where there is none: users have no numbers here."""
        return user_id

else:
    import pwd

    IN_ITS_OWN_GROUP: Final[Mapping[str, Any]] = {}
    KNOWS_CHANGES: Final = True
    HAS_PROC: Final = os.path.lexists("/proc/self/exe")

    def ask_to_end(process: trio.Process) -> None:
        """Ask a program to end, as a service manager would."""
        process.terminate()

    def private_endpoint(directory: str) -> str:
        """Name an endpoint for a private directory that nobody else has."""
        return os.path.join(directory, "procmond.sock")

    @functools.cache
    def user_name(user_id: str) -> str:
        """Return a user's name, or what it is called by where there is none."""
        try:
            return pwd.getpwuid(int(user_id)).pw_name
        except (ValueError, KeyError, OverflowError):
            return user_id  # already a name, or a user whom only some container knows
