"""The collector as a program: listen, answer until told to stop, leave nothing behind.

All that a service does around that is :func:`trio_ipc.run_service`'s: what it prints, its signals, how it
reads its settings again (docs/rollback.md), and what it tells of what it did.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trio_ipc import ExitStatus, run_program, run_service
from trio_ipc.daemoneye import DETECTION

from ..common import add_endpoint_options, load_config
from .collector import Collector

PROGRAM = "procmond"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    return run_program(lambda: _main(arguments), name=PROGRAM)


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="Answer process tasks about this machine."
    )
    add_endpoint_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log every task to standard error")
    parser.add_argument(
        "--telemetry",
        metavar="FILE",
        help="write what was done to this file, as JSON, at SIGUSR1 and at the end "
        "(without it, SIGUSR1 gives a line on standard error)",
    )
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        help="write metrics to this file every 15 s, for node_exporter's textfile collector",
    )
    parser.add_argument(
        "--log-style", choices=["text", "json"], default="text", help="how lines on standard error look"
    )
    options = parser.parse_args(arguments)
    status = run_service(
        Collector().handle,
        DETECTION,
        lambda: load_config(options),
        name=PROGRAM,
        log_style=options.log_style,
        log_level="INFO" if options.verbose else "WARNING",
        snapshot_file=options.telemetry,
        metrics_file=options.metrics,
    )
    return int(status is not ExitStatus.OK)  # the examples know 0 and 1 alone


if __name__ == "__main__":
    sys.exit(main())
