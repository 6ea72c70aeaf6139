"""Reports in the log and in snapshots when a served endpoint was taken away.

Nobody tells the server that, so it has to look. This module must never change what it looks at.
"""

from __future__ import annotations

from typing import Final

import trio

from trio_ipc.logs import Log
from trio_ipc.opening import EndpointListener
from trio_ipc.telemetry import ServerTelemetry

_log = Log(__name__)

#: Seconds between two looks at the socket file. A look takes two system calls.
_LOOK_EVERY: Final = 5.0


class Monitor:
    """Looks at an endpoint while :meth:`run` runs.

    Args:
        listener: where it listens.
        endpoint: its name, for logs.
        telemetry: what is found goes there, too.
    """

    def __init__(self, listener: EndpointListener, endpoint: str, telemetry: ServerTelemetry) -> None:
        self._listener = listener
        self._endpoint = endpoint
        self._telemetry = telemetry
        found = listener.look()
        # What was out of sight from the beginning is not looked for.
        self._at_first = None if found is None or found.file == "out of sight" else found

    async def run(self) -> None:
        """Look every few seconds until cancelled; not at all where nobody can take the endpoint away."""
        told = ""
        while self._at_first is not None:
            await trio.sleep(_LOOK_EVERY)
            now = self._listener.look()
            if now is not None and now.file == "out of sight":
                # Nothing is known of it any more, and nothing would be said that is true.
                _log.warning(
                    "%s is watched no longer: this process has another root directory by now (chroot)",
                    self._endpoint,
                    extra={"endpoint": self._endpoint},
                )
                return
            changes = "" if now is None else self._at_first.changes(now)
            self._telemetry.endpoint_intact = not changes
            if changes != told:
                self._tell(changes)
            told, now = changes, None

    def _tell(self, changes: str) -> None:
        fields = {"endpoint": self._endpoint}
        if changes:
            advice = "see who did that; if clients cannot connect, start the server again"
            _log.warning(
                "%s is not as this server made it: %s; %s", self._endpoint, changes, advice, extra=fields
            )
        else:
            _log.info("%s is as this server made it again", self._endpoint, extra=fields)
