"""What a server program needs around :func:`trio_ipc.serve`: signals, readiness, telemetry, exit statuses.

And of that what other programs need as well.
"""

from .program import run_program, standard_output, until_stopped
from .run import run_service
from .statuses import ExitStatus

__all__ = ["ExitStatus", "run_program", "run_service", "standard_output", "until_stopped"]
