"""What a server program needs around :func:`trio_ipc.serve`: signals, readiness, telemetry, exit statuses."""

from .run import run_service
from .statuses import ExitStatus

__all__ = ["ExitStatus", "run_service"]
