"""``make fuzz``: coverage-guided fuzzing of the framing and of a whole server connection, by atheris.

    make fuzz ARGS="--seconds 600 server"

The corpus begins with the golden frames. An input that breaks a promise ends the run with a traceback, and is
written to ``tests/hardening/crashes/``, from where an ordinary test repeats it. Without atheris, which has
wheels for few systems, this says so and does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

#: Bytes of an input: several frames.
_LONGEST_INPUT: Final = 4_096

#: Seconds for one input, many times what any takes. More is a hang, and kept like a crash.
_SLOWEST_INPUT: Final = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the chosen targets one after another; return the first exit status that is not 0."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the framing and the server.")
    parser.add_argument("target", nargs="?", default="all", choices=["all", "decoder", "server"])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument(
        "--corpus", metavar="DIRECTORY", help="keep what was learnt here, and begin with it the next time"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("nothing was fuzzed: atheris has no wheel for this Python and system (requirements/fuzz.in)")
        return 0
    if options.here:
        with _corpus(options.corpus, options.target) as corpus:
            _fuzz(options.target, options.seconds, corpus)
    names = ["decoder", "server"] if options.target == "all" else [options.target]
    for name in names:
        # libFuzzer ends its process, whatever happens.
        command = [sys.executable, "-m", "tests.hardening.fuzz", name, "--here"]
        command += ["--seconds", str(options.seconds)]
        command += ["--corpus", options.corpus] if options.corpus else []
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


@contextlib.contextmanager
def _corpus(kept: str | None, target: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        corpus = Path(directory if kept is None else kept, target)
        corpus.mkdir(parents=True, exist_ok=True)
        yield corpus


def _fuzz(name: str, seconds: int, corpus: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["trio_ipc"]):
        from tests.hardening.fuzz_targets import CRASHES, TARGETS, seeds
    for seed in seeds():
        corpus.joinpath(hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    found = CRASHES / name
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST_INPUT}",
        f"-timeout={_SLOWEST_INPUT}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
