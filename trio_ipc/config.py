"""The settings of a transport: checked once, then frozen.

Fields and defaults are ADR-0004's. How they are loaded is :mod:`.settings`'. This module must never start
anything.
"""

from __future__ import annotations

import enum
import os
import sys
from typing import Any, ClassVar, Final, Literal, TypeAlias

import attrs

from .endpoint import default_endpoint, endpoint_problem
from .errors import shown_argument
from .settings import ENV_PREFIX, Settings, WholeNumber, choice, refuse


class TransportType(enum.StrEnum):
    """Which implementation carries the frames. The protocol is the same for both (ADR-0004)."""

    INTERPROCESS = "interprocess"
    """The default."""
    LEGACY = "legacy"
    """The way back: written by hand, it shares neither input and output nor framing with the default."""


class Crc32Variant(enum.StrEnum):
    """Which CRC-32 a frame's header carries. Both sides must use the same one."""

    IEEE = "ieee"
    """The zlib and PNG polynomial; the ADR's default."""
    CASTAGNOLI = "castagnoli"
    """CRC-32C (RFC 3720, appendix B.4); what DaemonEye binaries in the field use."""

    @property
    def other(self) -> Crc32Variant:
        """The one that this is not."""
        return Crc32Variant.CASTAGNOLI if self is Crc32Variant.IEEE else Crc32Variant.IEEE


#: The setting of who finds out which variant a peer uses: a server by each connection's first frame, a client
#: by a request that does no harm.
AUTO: Final = "auto"

#: What ``crc32_variant`` may be set to.
Crc32Setting: TypeAlias = Crc32Variant | Literal["auto"]


def _transport(value: TransportType | str) -> TransportType:
    return choice(TransportType, "transport", value)


def _crc32_variant(value: Crc32Setting | str) -> Crc32Setting:
    return AUTO if value == AUTO else choice(Crc32Variant, "crc32_variant", value, AUTO)


def _path_text(value: str | os.PathLike[str]) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _endpoint(_: object, field: attrs.Attribute[Any], value: object) -> None:
    problem = endpoint_problem(value) if isinstance(value, str) else "a string"
    if problem is not None:
        raise refuse(field.name, value, problem)


def _group_text(value: object) -> object:
    # An operator writes a number in TOML as a number, in the environment as text. No larger one is an id.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return str(value)
    return value


def _group(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if sys.platform == "win32":
        raise refuse(field.name, value, "left out on Windows: there a PeerPolicy names the users")
    if not isinstance(value, str) or not value or "\0" in value or value.startswith("-"):
        raise refuse(field.name, value, "the name or the number of a group")


@attrs.frozen(kw_only=True)
class IpcConfig(Settings):
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
        crc32_variant: which checksum the frames carry; or ``"auto"``, to find out which the peer uses. A
            server judges each connection by its first frame. A client makes a request that does no harm, on
            two connections if need be, and believes the response.
        handler_timeout_ms: how long a handler may take, or None for ``read_timeout_ms``.
        shutdown_grace_ms: how long requests in flight may go on after a stop was asked for.
        poll_attempts: how often a connection looks for the peer's next bytes before its task falls
            asleep, 0 for never. It makes a round trip several times faster at the price of some CPU
            time while a connection is busy; one that waits longer stops trying. An attempt is a pass of
            the scheduler and one look, or eight where no other task ran. After 300 µs the task falls
            asleep in any case.
    """

    _PREFIX: ClassVar[str] = ENV_PREFIX
    _TABLE: ClassVar[str] = "ipc"
    _OTHERS: ClassVar[tuple[str, ...]] = ("RESILIENT_",)

    transport: TransportType = attrs.field(
        default=TransportType.INTERPROCESS,
        converter=_transport,
    )
    endpoint_path: str = attrs.field(factory=default_endpoint, converter=_path_text, validator=_endpoint)
    max_frame_bytes: int = attrs.field(default=1024 * 1024, validator=WholeNumber("bytes"))
    accept_timeout_ms: int = attrs.field(default=5_000, validator=WholeNumber("milliseconds"))
    read_timeout_ms: int = attrs.field(default=30_000, validator=WholeNumber("milliseconds"))
    write_timeout_ms: int = attrs.field(default=10_000, validator=WholeNumber("milliseconds"))
    max_connections: int = attrs.field(default=16, validator=WholeNumber("connections"))
    socket_group: str | None = attrs.field(default=None, converter=_group_text, validator=_group)
    crc32_variant: Crc32Setting = attrs.field(default=Crc32Variant.IEEE, converter=_crc32_variant)
    handler_timeout_ms: int | None = attrs.field(
        default=None, validator=WholeNumber("milliseconds", optional=True)
    )
    shutdown_grace_ms: int = attrs.field(default=5_000, validator=WholeNumber("milliseconds", least=0))
    poll_attempts: int = attrs.field(default=75, validator=WholeNumber("attempts", least=0))

    @property
    def handler_timeout(self) -> float:
        """The handler's budget in seconds."""
        in_ms = self.read_timeout_ms if self.handler_timeout_ms is None else self.handler_timeout_ms
        return in_ms / 1000


def checked_config(given: object) -> IpcConfig:
    """Return the settings that a caller gave, where there are no others.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, IpcConfig):
        raise TypeError(
            f"config is {shown_argument(given)}, must be an IpcConfig: IpcConfig(endpoint_path=...)"
        )
    return given


def config_of(given: object) -> IpcConfig:
    """Return the settings that a caller gave, or those of the environment for None.

    Raises:
        TypeError: it is something else.
        ConfigError: the environment holds a wrong setting.
    """
    if given is None:
        return IpcConfig.load()
    if not isinstance(given, IpcConfig):
        raise TypeError(
            f"config is {shown_argument(given)}, must be an IpcConfig or None: IpcConfig(endpoint_path=...)"
        )
    return given
