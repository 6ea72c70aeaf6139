"""How settings are checked, and gathered from a program, a TOML file and the environment.

Every class of settings derives from :class:`Settings`, so that all are loaded in the same ways. A wrong
setting is one :exc:`~trio_ipc.ConfigError` that names the field, the value and what is allowed. This module
must never guess at a value that it was not given, and never know a field.
"""

from __future__ import annotations

import enum
import functools
import os
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final, Self, TypeVar

import attrs

from .errors import ConfigError, escape, shown, shown_argument
from .logs import Log

ENV_PREFIX: Final = "TRIO_IPC_"
"""How environment variables begin by default, before a field's name in capitals."""

_LARGEST_INT: Final = 2**31 - 1

#: Digits of the largest number that is allowed. Longer texts are no numbers of ours, and Python refuses to
#: read those of more than 4,300 digits (``sys.int_info.default_max_str_digits``).
_MOST_DIGITS: Final = len(str(_LARGEST_INT))

#: How alike two names are if one may be meant for the other (difflib's ratio). "port" and "transport" are
#: 0.62, and Kubernetes sets TRIO_IPC_PORT; "endpoint" and "endpoint_path" are 0.76.
_ALIKE: Final = 0.7

#: Characters of an unknown name that a message shows.
_LONGEST_NAME: Final = 100

#: Bytes of a configuration file that are read: a device gives them without end.
_MOST_BYTES: Final = 16 * 1024 * 1024

_EnumT = TypeVar("_EnumT", bound=enum.StrEnum)

_log = Log(__name__)


def refuse(field: str, value: object, allowed: str) -> ConfigError:
    """Return the error of a field with a wrong value."""
    error = ConfigError(f"{field} is {shown(value)}, must be {allowed}")
    error.field = field
    return error


def choice(kind: type[_EnumT], field: str, value: Any, *others: str) -> _EnumT:
    """Return the member of an enumeration that ``value`` is or names; refuse anything else.

    Args:
        kind: the enumeration.
        field: the setting.
        value: what it was given.
        others: what else it may be, for the error.
    """
    try:
        return kind(value)
    except ValueError:
        raise refuse(field, value, " or ".join(f'"{choice}"' for choice in (*kind, *others))) from None


@attrs.frozen
class WholeNumber:
    """An attrs validator for whole numbers.

    Attributes:
        unit: what they count.
        least: the smallest that is allowed.
        optional: whether None is allowed, too.
    """

    unit: str
    least: int = 1
    optional: bool = False

    def __call__(self, _: object, field: attrs.Attribute[Any], value: object) -> None:
        """Refuse what is not allowed."""
        if self.optional and value is None:
            return
        # bool is an int to Python, never a duration or a size to an operator.
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= _LARGEST_INT:
            raise refuse(
                field.name, value, f"a whole number of {self.unit} from {self.least} to {_LARGEST_INT}"
            )


class Settings:
    """What all settings can do. The fields are those of a frozen attrs class that derives from this one."""

    __slots__ = ()

    _PREFIX: ClassVar[str]
    """How environment variables begin, unless the caller says something else."""
    _TABLE: ClassVar[str]
    """The table of a TOML file, likewise."""
    _OTHERS: ClassVar[tuple[str, ...]] = ()
    """How the rest of a variable's name begins that is another class's."""

    @classmethod
    def load(
        cls,
        file: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        prefix: str | None = None,
        table: str | None = None,
        strict: bool = False,
        defaults: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """Gather settings: keywords win over the environment, that over a file, that over defaults.

        Args:
            file: a TOML file with a table of fields by their names; the file's other tables, and those
                within this one, are left alone. None for no file.
            environ: variables to read, ``os.environ`` if None. Each is the prefix and a field's name in
                capitals, such as ``TRIO_IPC_TRANSPORT``. An empty one counts as not set.
            prefix: how the variables begin; None for ``TRIO_IPC_``, of a :class:`ResilientConfig`
                ``TRIO_IPC_RESILIENT_``. Give one of its own to each further endpoint of a process.
            table: the table's name, with dots for one within another; None for ``ipc``, of a
                :class:`ResilientConfig` ``ipc.resilient``.
            strict: refuse variables that begin with the prefix and are no settings. They are warned of
                otherwise, since others give a process such names: Kubernetes sets ``TRIO_IPC_SERVICE_HOST``
                for a service called ``trio-ipc``.
            defaults: the program's own values, by field, for what is set nowhere else.
            settings: values by field that nothing replaces.

        Returns:
            The settings in force.

        Raises:
            ConfigError: a wrong value; a name that is no setting, among the keywords, the defaults or in the
                table, and where it is strict in the environment; a file that cannot be read; or a prefix or
                table that names nothing.
            TypeError: an argument has the wrong type.
        """
        prefix = _checked_prefix(cls._PREFIX if prefix is None else prefix)
        table = _checked_table(cls._TABLE if table is None else table)
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}

        def take(found: Mapping[str, Any], source: str) -> None:
            cls._check_names(found, source)
            values.update(found)
            sources.update(dict.fromkeys(found, source))

        take(_checked_mapping("defaults", defaults, "values by field"), "a default of the program")
        if file is not None:
            path = _checked_file(file)
            take(_fields_in(_read_toml(path), table, path, cls._fields()), f"table [{table}] of {path}")
        for name, value in cls._read_environ(environ, prefix, strict=strict).items():
            take({name: value}, f"environment variable {prefix}{name.upper()}")
        take(settings, "a keyword")
        try:
            return cls(**values)
        except ConfigError as exc:
            if exc.field in sources:
                exc.hint = f"it was set by {sources[exc.field]}"
            raise

    def replace(self, **settings: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one.

        Raises:
            ConfigError: a wrong value or an unknown name.
        """
        self._check_names(settings, "a keyword")
        return attrs.evolve(self, **settings)  # type: ignore[misc]  # every class of settings is an attrs class

    @classmethod
    def _fields(cls) -> dict[str, attrs.Attribute[Any]]:
        return attrs.fields_dict(cls)  # type: ignore[arg-type]

    @classmethod
    def _check_names(cls, given: Mapping[Any, object], source: str) -> None:
        known = cls._fields()
        for name, value in given.items():
            if name not in known:
                meant = _meant(name, known) if isinstance(name, str) else None
                raise ConfigError(
                    f"there is no setting {shown(name)} ({source}, value {shown(value)})",
                    hint=f"did you mean {meant}?" if meant else f"known are {', '.join(known)}",
                )

    @classmethod
    def _read_environ(cls, environ: Mapping[str, str] | None, prefix: str, *, strict: bool) -> dict[str, Any]:
        variables = os.environ if environ is None else _checked_environ(environ)
        if environ is None and sys.platform == "win32":
            prefix = prefix.upper()  # as os.environ gives all names there
        fields = cls._fields()
        known = {prefix + name.upper(): field for name, field in fields.items()}
        others = tuple(prefix + other for other in cls._OTHERS)
        present = {name: text for name, text in variables.items() if name.startswith(prefix) and text}
        unknown = [name for name in present if name not in known and not name.startswith(others)]
        if unknown:
            problem = _no_settings(unknown, prefix, fields)
            if strict:
                hint = "unset what is not meant for this program, or load without strict=True"
                raise ConfigError(problem, hint=hint)
            (_warn_once if environ is None else _warn)(problem)
        return {
            field.name: _from_text(field, present[name]) for name, field in known.items() if name in present
        }


def _checked_prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {shown(prefix)}, must be a string or None")
    if not prefix or "=" in prefix or "\0" in prefix:
        raise ConfigError(f"prefix is {shown(prefix)}, must be how variables begin, such as {ENV_PREFIX}")
    return prefix


def _checked_table(table: object) -> str:
    if not isinstance(table, str):
        raise TypeError(f"table is {shown(table)}, must be a string or None")
    if not all(table.split(".")):
        raise ConfigError(f"table is {shown(table)}, must be the name of a table, such as ipc or agent.ipc")
    return table


def _checked_file(file: object) -> str:
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        raise TypeError(f"file is {shown_argument(file)}, must be the path of a TOML file or None")
    return path


def _checked_mapping(name: str, given: object, what: str) -> dict[Any, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{name} is {shown_argument(given)}, must be a mapping ({what}) or None")
    return {} if given is None else dict(given)


def _checked_environ(environ: object) -> dict[str, str]:
    variables = _checked_mapping("environ", environ, "texts by variable, as os.environ")
    for name, text in variables.items():  # which may be a secret, and is not shown
        if not (isinstance(name, str) and isinstance(text, str)):
            raise TypeError(
                f"environ has {shown(name)} with a {type(text).__name__}, must have strings by strings, as "
                "os.environ has"
            )
    return variables


# --- Names that are no settings ---


def _meant(name: str, known: Collection[str]) -> str | None:
    import difflib  # noqa: PLC0415 - for somebody's mistake only

    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=_ALIKE)
    return close[0] if close else None


def _no_settings(names: Collection[str], prefix: str, known: Collection[str]) -> str:
    """Name environment variables that are no settings. Their values may be somebody else's secrets."""
    told = []
    for name in sorted(names):
        meant = _meant(name.removeprefix(prefix), known)
        hint = f" (did you mean {prefix}{meant.upper()}?)" if meant else ""
        told.append(escape(name, _LONGEST_NAME) + hint)
    are = "is no setting" if len(told) == 1 else "are no settings"
    return f"{', '.join(told)} in the environment {are} of trio_ipc"


def _warn(problem: str) -> None:
    _log.warning("%s, and not used", problem)


#: Once for a process, since the environment is the process's, and a client that is given no configuration
#: reads it at each connect.
_warn_once: Final = functools.lru_cache(maxsize=16)(_warn)


# --- Texts and files ---


def _from_text(field: attrs.Attribute[Any], text: str) -> object:
    if isinstance(field.validator, WholeNumber) and re.fullmatch(rf"-?[0-9]{{1,{_MOST_DIGITS}}}", text):
        return int(text)
    return text  # where a number belongs, refused by the field's own check, which says what is allowed


def _read_toml(path: str) -> dict[str, Any]:
    # Imported where it is used: it costs more than the rest of this package's own imports together.
    import tomllib  # noqa: PLC0415

    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration file {path}: {exc.strerror}") from exc
    except ValueError as exc:  # a NUL in the name
        raise ConfigError(f"cannot read the configuration file {shown(path)}: {exc}") from exc
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"the configuration file {path} is larger than {_MOST_BYTES:,} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors on Windows write a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"the configuration file {path} is not valid TOML: {exc}") from exc
    except ValueError as exc:  # Python's limit for the digits of a number
        raise ConfigError(
            f"the configuration file {path} has a number that is too long to be read",
            hint=f"no setting is larger than {_LARGEST_INT}",
        ) from exc


def _fields_in(document: dict[str, Any], table: str, path: str, known: Collection[str]) -> dict[str, Any]:
    found: Any = document
    for name in table.split("."):
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise ConfigError(f"{name} in {path} is {shown(found)}, must be a table [{table}]")
    # A table within this one is somebody else's, such as [ipc.resilient].
    return {name: value for name, value in found.items() if name in known or not isinstance(value, dict)}
