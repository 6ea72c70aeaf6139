"""What the example programs share: their endpoint options, and one-line complaints.

Nothing here may know about processes or hashes. Every program is run by `trio_ipc.run_program`, and what it
prints about a failure besides goes through `complain`: a peer's text never reaches a terminal raw.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from trio_ipc import ConfigError, IpcConfig
from trio_ipc.endpoint import endpoint_in_full

#: What the programs are set to where nobody says otherwise: binaries in the field speak CRC-32C, others IEEE.
DEFAULTS: Final[Mapping[str, Any]] = {"crc32_variant": "auto"}


# --- settings ---


def add_endpoint_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--endpoint` and `--config`, which mean the same to both programs.

    Args:
        several: whether `--endpoint` may be given more than once; see `load_configs`.
    """
    parser.add_argument(
        "--endpoint",
        metavar="PATH",
        action="append" if several else "store",
        help="the socket, on Windows the pipe; wins over file and environment"
        + ("; may be given several times" if several else ""),
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with a table [ipc]"
        + (" and, for how several are called, one [ipc.resilient]" if several else "")
        + "; TRIO_IPC_... variables win over it",
    )


def load_config(options: argparse.Namespace) -> IpcConfig:
    """Gather the settings: file, then environment, then `--endpoint`.

    Raises:
        ConfigError: a setting is wrong.
    """
    config = IpcConfig.load(options.config, defaults=DEFAULTS)
    return config if options.endpoint is None else _at(config, options.endpoint)


def load_configs(options: argparse.Namespace) -> list[IpcConfig]:
    """Do the same where `--endpoint` may be given several times; there is one for each, or only one.

    Raises:
        ConfigError: a setting is wrong, or two endpoints are the same.
    """
    config = IpcConfig.load(options.config, defaults=DEFAULTS)
    configs = [config] if options.endpoint is None else [_at(config, one) for one in options.endpoint]
    for path, count in Counter(config.endpoint_path for config in configs).items():
        if count > 1:
            raise ConfigError(f"--endpoint {path!r} is given {count} times", hint="name each collector once")
    return configs


def _at(config: IpcConfig, endpoint: str) -> IpcConfig:
    # A person in a shell may well mean a relative path; the library takes absolute ones only.
    try:
        in_full = endpoint_in_full(endpoint)
    except OSError as exc:
        problem = f"--endpoint {endpoint!r} is relative to a working directory that is gone"
        raise ConfigError(f"{problem}: {exc.strerror}", hint="give an absolute path") from exc
    return config.replace(endpoint_path=in_full)


def printable(text: str) -> str:
    """Make text from elsewhere safe for a terminal: no escape sequences, no line breaks."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def complain(program: str, problem: object) -> None:
    """Print one line to standard error, if that can be done."""
    with contextlib.suppress(OSError):  # there is nobody else to tell
        print(f"{program}: {printable(str(problem))}", file=sys.stderr, flush=True)
