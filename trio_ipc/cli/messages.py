"""Messages as JSON, and JSON as messages: protobuf's own mapping, with the names that stand in the .proto.

Nothing here reads or writes. A field of protobuf's 64 bits is a string in JSON, bytes are base64 (protobuf's
"ProtoJSON Format").
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from trio_ipc.errors import IpcError

_MessageT = TypeVar("_MessageT", bound=Message)

#: What begins or ends something in JSON (RFC 8259, section 2), and what is escaped in a string.
_MARK: Final = re.compile(r'["{}\[\]]|\\.', re.DOTALL)

#: What may stand between two requests: blanks and line breaks (RFC 8259, "ws"), and the mark of bytes' order
#: that some editors on Windows write first.
_BETWEEN: Final = " \t\r\n\ufeff"

#: Messages that are no object in JSON, each with an example (protobuf's "ProtoJSON Format").
OTHER_FORMS: Final[Mapping[str, Any]] = {
    f"google.protobuf.{name}": form
    for name, form in {
        "BoolValue": True,
        "BytesValue": "Ynl0ZXM=",
        "DoubleValue": 1.5,
        "FloatValue": 1.5,
        "Int32Value": 1,
        "Int64Value": "1",
        "StringValue": "value",
        "UInt32Value": 1,
        "UInt64Value": "1",
        "Duration": "1.500s",
        "FieldMask": "name",
        "ListValue": ["value"],
        "Timestamp": "2026-01-01T00:00:00Z",
        "Value": "value",
    }.items()
}


class NotAMessageError(ValueError):
    """A text is no JSON, or says what the message has no place for. ``str()`` of it says why."""


def message_in(text: str, kind: type[_MessageT]) -> _MessageT:
    """Return the message that a JSON text says.

    Args:
        text: one object, or the form of ``OTHER_FORMS``. Fields have the names of the .proto, or protobuf's
            JSON names.
        kind: the message's class.

    Raises:
        NotAMessageError: it says none.
    """
    name = kind.DESCRIPTOR.full_name
    try:
        if name in OTHER_FORMS or text.lstrip(_BETWEEN).startswith("{"):
            return json_format.Parse(text, kind())
        why = "it is no JSON object"  # protobuf takes an empty list for an empty message
    except (ValueError, TypeError, json_format.ParseError) as exc:
        why = str(exc).partition("\n")[0]  # all fields follow, not by the .proto's names
    except RecursionError:
        why = "it is nested too deeply"
    raise NotAMessageError(f"it is no {name}: {why}")


def request_in(text: str, kind: type[_MessageT]) -> _MessageT:
    """Return the request that a JSON text says; arguments as those of :func:`message_in`.

    Raises:
        NotAMessageError: it says none, or one that no frame can carry.
    """
    request = message_in(text, kind)
    if not request.ByteSize():
        raise NotAMessageError(
            f"an empty {kind.DESCRIPTOR.full_name} encodes to no bytes, and the wire cannot carry an empty "
            "frame: set at least one field to something else than its default"
        )
    return request


def value_of(message: Message) -> Any:
    """Return a message as what :mod:`json` can write.

    Fields that are always there are there, also where they are 0 or empty: a script can ask for them.

    Raises:
        IpcError: JSON has no form for it, such as an Any of an unknown type.
    """
    try:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    except (ValueError, TypeError, json_format.Error) as exc:
        name = message.DESCRIPTOR.full_name
        raise IpcError(f"the {name} has no form in JSON: {exc}", hint="read it by a program") from exc


def failed_by(message: Message, field: str | None) -> bool:
    """Return whether a response says by a field that it failed.

    Args:
        message: the response.
        field: a bool field that is false then; None for ``success``, where there is such a one.

    Raises:
        KeyError: there is no such field of that kind.
    """
    found = message.DESCRIPTOR.fields_by_name.get(field or "success")
    if found is None or found.cpp_type != found.CPPTYPE_BOOL or found.is_repeated:
        if field is None:
            return False
        raise KeyError(field)
    return not getattr(message, found.name)


def splitter_of(kind: type[Message]) -> Splitter | LineSplitter:
    """Return what parts a stream of text into messages of that kind."""
    return LineSplitter() if kind.DESCRIPTOR.full_name in OTHER_FORMS else Splitter()


class LineSplitter:
    """Parts a stream of text into lines, as a number does not say where it ends. The last has to end, too."""

    def __init__(self) -> None:
        self._begun = io.StringIO()  # of the last line: what grows by "+" is copied at each piece

    def feed(self, text: str) -> Iterator[str]:
        """Take more text; give the lines that are whole by it and have something in them."""
        *ends, rest = text.split("\n")
        for end in ends:
            whole, self._begun = _joined(self._begun, end), io.StringIO()
            if whole:
                yield whole
        self._begun.write(rest)

    def close(self) -> None:
        """Say that nothing follows."""


class Splitter:
    """Parts a stream of text into the JSON objects that follow each other in it, on one line or on many.

    It goes by brackets and quotes alone: what is wrong inside of an object, :func:`message_in` says.
    """

    def __init__(self) -> None:
        self._begun = io.StringIO()  # of the object that is not whole yet; see LineSplitter
        self._backslash = ""  # at the end, if what it escapes has not come yet
        self._depth = 0
        self._in_string = False

    def feed(self, text: str) -> Iterator[str]:
        """Take more text; give the objects that are whole by it, without what stands between.

        Raises:
            NotAMessageError: something else than an object begins.
        """
        text, self._backslash = self._backslash + text, ""
        start = seen = 0
        for found in _MARK.finditer(text):
            mark, seen = found.group(), found.end()
            if mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string and mark in "{[":
                if not self._depth:
                    self._refuse_other(text[start : found.start()])
                self._depth += 1
            elif not self._in_string and mark in "}]":
                self._depth = max(0, self._depth - 1)
                if not self._depth:
                    whole, self._begun = _joined(self._begun, text[start:seen]), io.StringIO()
                    start = seen
                    yield whole
        if not self._depth:
            self._refuse_other(text[start:])
            return
        if seen < len(text) and text.endswith("\\"):
            self._backslash = "\\"
        self._begun.write(text[start : len(text) - len(self._backslash)])

    def close(self) -> None:
        """Say that nothing follows.

        Raises:
            NotAMessageError: an object is not whole.
        """
        if self._depth:
            raise NotAMessageError("it ends within an object")

    @staticmethod
    def _refuse_other(text: str) -> None:
        text = text.strip(_BETWEEN)
        if text:
            shown = json.dumps(text[:40])
            raise NotAMessageError(f"it is no JSON object, which begins with a brace: {shown}")


def _joined(begun: io.StringIO, end: str) -> str:
    begun.write(end)
    return begun.getvalue().strip(_BETWEEN)
