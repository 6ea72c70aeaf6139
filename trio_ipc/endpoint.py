"""Names of endpoints: the platform's default, its form, and its limits.

Pure functions on strings, so that a wrong name is refused when the configuration is made and not when a
socket call fails. This module must never touch the file system; that is the transports' work.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final

from .errors import ConfigError

#: Bytes of ``sockaddr_un.sun_path`` less its NUL: unix(7) on Linux, unix(4) on macOS and the BSDs.
MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103

#: Where DaemonEye's collector listens (ADR-0004's default endpoint; see docs/wire-protocol.md).
DEFAULT_SOCKET: Final = "/var/run/daemoneye/procmond.sock"
DEFAULT_PIPE: Final = r"\\.\pipe\daemoneye\procmond"

#: The folder in which the pipes of this machine have their names ("Pipe Names" in Microsoft's reference).
PIPE_FOLDER: Final = "\\\\.\\pipe\\"

#: Characters of a pipe's whole name, the folder included (CreateNamedPipeW, lpName).
MAX_PIPE_CHARACTERS: Final = 256

#: How sockets are written for other programs, such as gRPC's, docker's and ZeroMQ's.
_URL: Final = re.compile(r"(unix|file|ipc):", re.IGNORECASE)

_PIPE_FORM: Final = rf"a bare name such as procmond, or {PIPE_FOLDER}NAME in full"


def socket_path_problem(name: str) -> str | None:
    """Say what is wrong with the path of a Unix socket.

    Args:
        name: the path of a Unix stream socket.

    Returns:
        What is allowed, as the end of a sentence such as "must be ...", or None for a good path.
    """
    if not name:
        return "the path of a socket, not empty"
    if name[0] in "@\0":
        return (
            "an absolute path (an abstract socket has neither owner nor mode: any user could take its name); "
            f"write /run/{_plain(name)}/{_plain(name)}.sock"
        )
    if "\0" in name:
        return "a path without NUL bytes"
    if _is_url(name):
        return f"an absolute path (not a URL): write {_path_in_url(name)}"
    if name[0] == "~":
        home = "/home/NAME" if name[1:2] in {"", "/"} else "/home/"
        return f"an absolute path (only a shell knows what ~ is): write {home}{name[1:]}"
    if not os.path.isabs(name):
        return "an absolute path (a daemon's working directory is no promise)"
    if name.endswith("/") or os.path.basename(name) in {".", ".."}:
        return "the path of a socket, not of a directory"
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return f"a path that this system's encoding ({sys.getfilesystemencoding()}) can write"
    if size > MAX_PATH_BYTES:
        return f"at most {MAX_PATH_BYTES} bytes long on this system (it has {size})"
    return None


def _plain(name: str) -> str:
    """Return what can stand in a path of the name of an abstract socket."""
    return re.sub(r"[^\w.-]+", "-", name[1:], flags=re.ASCII).strip("-.") or "NAME"


def _is_url(name: str) -> bool:
    return _URL.match(name) is not None


def _path_in_url(url: str) -> str:
    # unix:/x, unix:x, unix://x and unix:///x are all in use.
    return "/" + _URL.sub("", url, count=1).lstrip("/")


def pipe_name_problem(name: str) -> str | None:
    r"""Say what is wrong with the name of a Windows named pipe.

    Windows tidies a name before it looks it up: it turns slashes round, drops a final dot or space, and
    resolves ``..``, so that ``\\.\pipe\..\C:\file`` is a file. A name must be one that stays as it is.

    Args:
        name: a bare name, or one in ``\\.\pipe\``. The folder's case does not matter.

    Returns:
        What is allowed, as the end of a sentence such as "must be ...", or None for a good name.
    """
    if not name:
        return f"{_PIPE_FORM}, not empty"
    if "\0" in name:
        return "a name without NUL characters"
    if "/" in name:
        return f"{_PIPE_FORM}, without slashes"
    in_full = name[: len(PIPE_FOLDER)].lower() == PIPE_FOLDER
    if not in_full and ("\\" in name or ":" in name):
        return f"{_PIPE_FORM}{_why_no_pipe(name)}"
    parts = (name[len(PIPE_FOLDER) :] if in_full else name).split("\\")
    if not all(parts):
        return f"{_PIPE_FORM}, without an empty part"
    if any(part[-1] in ". " for part in parts):
        return f"{_PIPE_FORM}, no part of which ends in a dot or a space (Windows would drop it)"
    size = _utf16_units(name if in_full else PIPE_FOLDER + name)
    if size > MAX_PIPE_CHARACTERS:
        return f"at most {MAX_PIPE_CHARACTERS} characters long with its {PIPE_FOLDER} (it has {size})"
    return None


def _why_no_pipe(name: str) -> str:
    if name.startswith("\\\\?\\"):
        return ", with a dot where this has a question mark"
    if name.startswith("\\\\.\\"):
        return " (another device is none)"
    if name.startswith("\\\\"):
        return " (a pipe of this machine: others are never connected to)"
    return " (a file's path is none)"


def pipe_path(name: str) -> str:
    r"""Return a pipe's name in full, ``\\.\pipe\`` included.

    Raises:
        ConfigError: :func:`pipe_name_problem` finds fault with the name.
    """
    problem = pipe_name_problem(name)
    if problem is not None:
        raise ConfigError(f"the endpoint is {name!r}, must be {problem}")
    return name if name.startswith("\\") else PIPE_FOLDER + name


def _utf16_units(text: str) -> int:
    # What Windows counts as a character: one outside the basic plane takes two.
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _in_pipe_folder(name: str) -> str:
    return pipe_path(name) if pipe_name_problem(name) is None else name


if sys.platform == "win32":
    DEFAULT_ENDPOINT = DEFAULT_PIPE
    endpoint_problem = pipe_name_problem
    _in_full = _in_pipe_folder
else:
    DEFAULT_ENDPOINT = DEFAULT_SOCKET
    endpoint_problem = socket_path_problem

    def _in_full(name: str) -> str:
        # Not what a working directory could be put before; who has such a file writes ./@name.
        return name if name[0] in "@\0~" or _is_url(name) else os.path.abspath(name)


def endpoint_in_full(name: str) -> str:
    """Return the name that a person in a shell means: a path from the working directory, a pipe's bare name.

    Returns:
        An absolute path, or a pipe's full name. What is neither comes back as it was, for
        :func:`endpoint_problem` to say what is wrong.
    """
    return _in_full(name) if name else name


def default_endpoint() -> str:
    """Return the endpoint that DaemonEye uses on this platform.

    Returns:
        The absolute path of a socket, or the full name of a pipe.
    """
    return DEFAULT_ENDPOINT
