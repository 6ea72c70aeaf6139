"""The settings of a transport: checked once, then frozen.

Fields and defaults are ADR-0004's. A wrong setting is one :exc:`~trio_ipc.ConfigError` that names the
field, the value and what is allowed. This module must never start anything or guess at a value that it
was not given.
"""

from __future__ import annotations

import enum
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, Self, TypeVar

import attrs

from .endpoint import default_endpoint, endpoint_problem
from .errors import ConfigError

ENV_PREFIX: Final = "TRIO_IPC_"
"""Environment variables are this and a field's name in capitals: ``TRIO_IPC_READ_TIMEOUT_MS``."""

_LARGEST_INT: Final = 2**31 - 1
_EnumT = TypeVar("_EnumT", bound=enum.StrEnum)


class TransportType(enum.StrEnum):
    """Which implementation carries the frames. The protocol is the same for both (ADR-0004)."""

    INTERPROCESS = "interprocess"
    """The default."""
    LEGACY = "legacy"
    """The way back: written by hand, it shares neither input and output nor framing with the default."""


class Crc32Variant(enum.StrEnum):
    """Which CRC-32 a frame's header carries. Both sides must be set to the same one."""

    IEEE = "ieee"
    """The zlib and PNG polynomial; the ADR's default."""
    CASTAGNOLI = "castagnoli"
    """CRC-32C (RFC 3720, appendix B.4); what DaemonEye binaries in the field use."""


def _refuse(field: str, value: object, allowed: str) -> ConfigError:
    error = ConfigError(f"{field} is {value!r}, must be {allowed}")
    error.field = field
    return error


def choice(kind: type[_EnumT], field: str, value: Any) -> _EnumT:
    """Return the member of an enumeration that ``value`` is or names; refuse anything else."""
    try:
        return kind(value)
    except ValueError:
        raise _refuse(field, value, " or ".join(f'"{choice}"' for choice in kind)) from None


def _transport(value: TransportType | str) -> TransportType:
    return choice(TransportType, "transport", value)


def _crc32_variant(value: Crc32Variant | str) -> Crc32Variant:
    return choice(Crc32Variant, "crc32_variant", value)


def _path_text(value: str | os.PathLike[str]) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _endpoint(_: object, field: attrs.Attribute[Any], value: object) -> None:
    problem = endpoint_problem(value) if isinstance(value, str) else "a string"
    if problem is not None:
        raise _refuse(field.name, value, problem)


def _group_text(value: object) -> object:
    # An operator writes a number in TOML as a number, in the environment as text.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _group(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if sys.platform == "win32":
        raise _refuse(field.name, value, "left out on Windows: there a PeerPolicy names the users")
    if not isinstance(value, str) or not value or "\0" in value or value.startswith("-"):
        raise _refuse(field.name, value, "the name or the number of a group")


def whole_number(unit: str, *, least: int = 1, optional: bool = False) -> Any:
    """Return an attrs validator for whole numbers of ``unit`` from ``least``."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        # bool is an int to Python, never a duration or a size to an operator.
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST_INT:
            raise _refuse(field.name, value, f"a whole number of {unit} from {least} to {_LARGEST_INT}")

    return check


@attrs.frozen(kw_only=True)
class IpcConfig:
    """How an endpoint is served and called. Both sides take the same settings.

    Raises:
        ConfigError: a field has a wrong value.

    Attributes:
        transport: the implementation that carries the frames.
        endpoint_path: absolute path of the Unix socket; a :class:`pathlib.Path` becomes a string.
        max_frame_bytes: the largest payload, in bytes, in both directions. A payload of exactly this
            size is allowed.
        accept_timeout_ms: on the server, how long an accepted connection waits for one of the
            ``max_connections`` places before it is closed; on the client, how long connecting may take.
        read_timeout_ms: how long to wait for a frame to begin, and again from its first byte to its
            last. Also the handler's budget while ``handler_timeout_ms`` is None.
        write_timeout_ms: how long handing over a whole frame may take.
        max_connections: connections served at a time. As many again may wait for a place.
        socket_group: on the server, name or number of a group whose members may connect as well: the socket's
            mode is 0660 then, that of directories that it makes 0750, and the default policy of peers lets
            members in (:meth:`PeerPolicy.group`). None for the owner alone. Only for Unix.
        crc32_variant: which checksum the frames carry.
        handler_timeout_ms: how long a handler may take, or None for ``read_timeout_ms``.
        shutdown_grace_ms: how long requests in flight may go on after a stop was asked for.
        poll_attempts: how often a connection looks for the peer's next bytes before its task falls
            asleep, 0 for never. It makes a round trip several times faster at the price of some CPU
            time while a connection is busy; one that waits longer stops trying. A look takes some 4 µs,
            and after 300 µs it falls asleep in any case.
    """

    transport: TransportType = attrs.field(
        default=TransportType.INTERPROCESS,
        converter=_transport,
    )
    endpoint_path: str = attrs.field(factory=default_endpoint, converter=_path_text, validator=_endpoint)
    max_frame_bytes: int = attrs.field(default=1024 * 1024, validator=whole_number("bytes"))
    accept_timeout_ms: int = attrs.field(default=5_000, validator=whole_number("milliseconds"))
    read_timeout_ms: int = attrs.field(default=30_000, validator=whole_number("milliseconds"))
    write_timeout_ms: int = attrs.field(default=10_000, validator=whole_number("milliseconds"))
    max_connections: int = attrs.field(default=16, validator=whole_number("connections"))
    socket_group: str | None = attrs.field(default=None, converter=_group_text, validator=_group)
    crc32_variant: Crc32Variant = attrs.field(default=Crc32Variant.IEEE, converter=_crc32_variant)
    handler_timeout_ms: int | None = attrs.field(
        default=None, validator=whole_number("milliseconds", optional=True)
    )
    shutdown_grace_ms: int = attrs.field(default=5_000, validator=whole_number("milliseconds", least=0))
    poll_attempts: int = attrs.field(default=75, validator=whole_number("attempts", least=0))

    @property
    def handler_timeout(self) -> float:
        """The handler's budget in seconds."""
        in_ms = self.read_timeout_ms if self.handler_timeout_ms is None else self.handler_timeout_ms
        return in_ms / 1000

    @classmethod
    def load(
        cls,
        file: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Self:
        """Gather the settings from keywords, a TOML file and the environment, later ones over earlier.

        Args:
            file: a TOML file whose table ``[ipc]`` holds fields by their names; its other tables are
                left alone. None for no file.
            environ: variables to read, ``os.environ`` if None. Each is ``TRIO_IPC_`` and the field's
                name in capitals, such as ``TRIO_IPC_TRANSPORT``. An empty one counts as not set.
            settings: the program's own defaults, by field.

        Returns:
            The settings in force.

        Raises:
            ConfigError: a wrong value, an unknown name, or a file that cannot be read.
        """
        sources = dict.fromkeys(settings, "a keyword")
        _check_names(settings, "a keyword")
        if file is not None:
            table = _read_toml(os.fspath(file))
            settings |= table
            sources |= dict.fromkeys(table, f"table [ipc] of {os.fspath(file)}")
        variables = _read_environ(os.environ if environ is None else environ)
        settings |= variables
        sources |= {name: f"environment variable {ENV_PREFIX}{name.upper()}" for name in variables}
        try:
            return cls(**settings)
        except ConfigError as exc:
            if exc.field is not None:
                exc.hint = f"it was set by {sources[exc.field]}"
            raise

    def replace(self, **settings: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one.

        Raises:
            ConfigError: a wrong value or an unknown name.
        """
        _check_names(settings, "a keyword")
        return attrs.evolve(self, **settings)


def config_of(given: object) -> IpcConfig:
    """Return the settings that a caller gave, or those of the environment for None.

    Raises:
        TypeError: it is something else.
        ConfigError: the environment holds a wrong setting.
    """
    if given is None:
        return IpcConfig.load()
    if not isinstance(given, IpcConfig):
        raise TypeError(f"config is {given!r}, must be an IpcConfig or None: IpcConfig(endpoint_path=...)")
    return given


def _field_names() -> list[str]:
    return [field.name for field in attrs.fields(IpcConfig)]


def _check_names(names: Mapping[str, object], source: str, known: list[str] | None = None) -> None:
    known = known or _field_names()
    for name in names:
        if name not in known:
            import difflib  # noqa: PLC0415 - for somebody's mistake only

            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"there is no setting {name!r} ({source}, value {names[name]!r})", hint=hint)


def _read_toml(path: str) -> dict[str, Any]:
    # Imported where it is used: it costs more than the rest of this package's own imports together.
    import tomllib  # noqa: PLC0415

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration file {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"the configuration file {path} is not valid TOML: {exc}") from exc
    table = document.get("ipc", {})
    if not isinstance(table, dict):
        raise ConfigError(f"ipc in {path} is {table!r}, must be a table [ipc]")
    _check_names(table, f"table [ipc] of {path}")
    return table


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    texts = {name: text for name, text in environ.items() if name.startswith(ENV_PREFIX) and text}
    known = {ENV_PREFIX + field.upper(): field for field in _field_names()}
    _check_names(texts, "an environment variable", list(known))
    return {known[name]: _from_text(known[name], text) for name, text in texts.items()}


def _from_text(name: str, text: str) -> object:
    if name in {"transport", "endpoint_path", "socket_group", "crc32_variant"}:
        return text
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    return text  # refused by the field's own check, which says what is allowed
