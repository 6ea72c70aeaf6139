"""Names of endpoints: the platform's default, its form, and its limits.

Pure functions on strings, so that a wrong name is refused when the configuration is made and not when a
socket call fails. This module must never touch the file system; that is the transports' work.
"""

from __future__ import annotations

import os
import sys

#: Bytes of ``sockaddr_un.sun_path`` less its NUL: unix(7) on Linux, unix(4) on macOS and the BSDs.
MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103

#: Where DaemonEye's collector listens (ADR-0004's default endpoint; see docs/wire-protocol.md).
DEFAULT_ENDPOINT = "/var/run/daemoneye/procmond.sock"


def default_endpoint() -> str:
    """Return the endpoint that DaemonEye uses on this platform.

    Returns:
        An absolute socket path.
    """
    return DEFAULT_ENDPOINT


def endpoint_problem(name: str) -> str | None:
    """Say what is wrong with an endpoint's name.

    Args:
        name: the path of a Unix stream socket.

    Returns:
        What is allowed, as the end of a sentence such as "must be ...", or None for a good name.
    """
    if not name:
        return "the path of a socket, not empty"
    if "\0" in name:
        return "a path without NUL bytes"
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
