"""What autodoc cannot know of the public names: where they come from, messages, and what only Windows has.

A public name is defined in a private module. Its comment stands there, and other docstrings call it by its
name alone. Links and comments are found by that name.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from google.protobuf.descriptor import FieldDescriptor
from sphinx.addnodes import pending_xref
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tests.site.public import MODULES

ROOT = Path(__file__).parents[2]

#: Where Trio's manual has what our docstrings and signatures name. Trio publishes its inventory on its site
#: only, and a build needs no network.
TRIO = {
    "reference-core": (
        "BrokenResourceError",
        "BusyResourceError",
        "CancelScope",
        "Cancelled",
        "CapacityLimiter",
        "ClosedResourceError",
        "Event",
        "Nursery",
        "TASK_STATUS_IGNORED",
        "TaskStatus",
        "TooSlowError",
        "current_time",
        "from_thread.check_cancelled",
        "open_nursery",
        "run",
        "to_thread.current_default_thread_limiter",
    ),
    "reference-io": (
        "SocketListener",
        "SocketStream",
        "abc.AsyncResource",
        "abc.HalfCloseableStream",
        "abc.Listener",
        "abc.ReceiveStream",
        "abc.SendStream",
        "abc.Stream",
        "open_tcp_listeners",
        "open_tcp_stream",
        "serve_listeners",
        "serve_tcp",
    ),
    "reference-lowlevel": ("abc.Instrument", "lowlevel.Task"),
    "reference-testing": ("testing.MockClock",),
}

#: The same of all libraries without an inventory in the tree.
ELSEWHERE = {
    "google.protobuf.message.Message": (
        "https://googleapis.dev/python/protobuf/latest/google/protobuf/message.html"
        "#google.protobuf.message.Message"
    ),
    **{
        f"trio.{name}": f"https://trio.readthedocs.io/en/stable/{page}.html#trio.{name}"
        for page, names in TRIO.items()
        for name in names
    },
}


#: Classes that public ones are made of. Their methods are described in the public ones.
PRIVATE = "Duplex|DetachableListener"

#: Characters of a default in a signature: those of a path or a short tuple.
LONGEST_DEFAULT = 40

log = logging.getLogger(__name__)


# --- Docstrings -------------------------------------------------------------------------------------


def comment_on(name: str) -> list[str] | None:
    """Return the ``#:`` comment of a constant or type alias, from whichever module defines it."""
    for module in sorted(module for module in sys.modules if module.startswith("trio_ipc")):
        if not getattr(sys.modules[module], "__file__", "").endswith(".py"):
            continue
        found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
        if found:
            return list(found)
    return None


def describe(_app: Any, kind: str, name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Make a docstring ready for napoleon, which comes next."""
    if kind == "data":
        # its own comment, and not the docstring of its type
        comment = comment_on(name.rpartition(".")[2])
        if comment is None:
            log.warning("%s has no comment with #: where it is defined", name)
        lines[:] = comment or []
    if kind in {"attribute", "data", "property"}:
        # napoleon takes what stands before a colon in the first line for a type; this line is no text
        lines.insert(0, "\\")
    lines[:] = prepared(lines)


def prepared(lines: list[str]) -> list[str]:
    """Return a docstring that refers to nothing private, and has an item for each attribute and argument."""
    text = re.sub(rf"; see :meth:`(?:{PRIVATE})\.\w+`", "", "\n".join(lines))
    text = re.sub(rf"See :meth:`(?:{PRIVATE})\.\w+`\. ", "", text)
    text = re.sub(
        r"^(    )([a-z_]+(?:, [a-z_]+)+)(: .*(?:\n     +\S.*)*)",
        lambda found: "\n".join(f"{found[1]}{name}{found[3]}" for name in found[2].split(", ")),
        text,
        flags=re.MULTILINE,
    )
    return text.split("\n")


def show_defaults(_app: Any, thing: Any, _bound: bool) -> None:
    """Give the signature of an attrs class the defaults of its fields.

    Sphinx takes defaults as they are written, and attrs has written ``attr_dict['size'].default``.
    """
    fields = getattr(thing, "__globals__", {}).get("attr_dict")
    if fields is None:
        return
    defaults = {field.alias: as_written(field.default) for field in fields.values() if field.init}
    signature = inspect.signature(thing)
    thing.__signature__ = signature.replace(
        parameters=[
            one if one.default is one.empty else one.replace(default=defaults.get(name, one.default))
            for name, one in signature.parameters.items()
        ]
    )


class Computed:
    """A default that is made anew each time, or is too long for a signature. Its field's text says more."""

    def __repr__(self) -> str:
        return "..."


def as_written(default: Any) -> Any:
    """Return a default if a reader could write it down."""
    if isinstance(default, enum.Enum):
        return default  # Sphinx shows it by its name
    text = repr(default)
    return Computed() if len(text) > LONGEST_DEFAULT or text.startswith(("<", "Factory(")) else default


def show_bases(_app: Any, _name: str, _thing: Any, _options: Any, bases: list[Any]) -> None:
    """Leave out the bases that say nothing to a reader, or are private."""
    public = {id(getattr(sys.modules[module], name)) for module in MODULES for name in names_of(module)}
    bases[:] = [
        base
        for base in bases
        if not getattr(base, "__module__", "").startswith("trio_ipc") or id(base) in public
    ]
    bases[:] = [base for base in bases if "Generic" not in repr(base)] or [object]


def names_of(module: str) -> list[str]:
    """Return the public names of a module. The plugin's are its fixtures."""
    names = getattr(importlib.import_module(module), "__all__", None)
    return [] if names is None else list(names)


# --- Links --------------------------------------------------------------------------------------------------


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Find what a docstring or a signature calls by a private module, or without one."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".~")
    if target in ELSEWHERE:
        return nodes.reference("", "", content, refuri=ELSEWHERE[target], internal=False)
    domain = env.get_domain("py")
    parts = target.split(".")
    for length in range(min(2, len(parts)), 0, -1):
        tail = ".".join(parts[-length:])
        for module in MODULES:
            if f"{module}.{tail}" in domain.objects:
                return domain.resolve_xref(
                    env, node["refdoc"], app.builder, "obj", f"{module}.{tail}", node, content
                )
    return content if is_private(target) else None


def qualify(_app: Any, document: Any) -> None:
    """Give a class that several modules have the one that a signature without a module means: Trio's."""
    for node in document.findall(pending_xref):
        target = node["reftarget"]
        module = node.get("py:module")
        if (
            node.get("refdomain") == "py"
            and target in {"Client", "Server"}
            and target not in names_of(module or "trio_ipc")
        ):
            node["reftarget"] = f"trio_ipc.{target}"


def is_private(target: str) -> bool:
    """Return whether this is something of ours that has no entry, since it is not public."""
    name = target.rpartition(".")[2] if target.startswith("trio_ipc.") else target.partition(".")[0]
    return not any(name in names_of(module) for module in MODULES) and any(
        name in vars(module) for place, module in sys.modules.items() if place.startswith("trio_ipc.")
    )


# --- Directives ---------------------------------------------------------------------------------------------


class Entry(SphinxDirective):
    """Something that takes a public name, and writes its entry."""

    required_arguments = 1
    has_content = True

    def entry(self) -> list[str]:
        """Return the lines of reStructuredText."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        return self.parse_text_to_nodes("\n".join(self.entry()))


class MessageEntry(Entry):
    """``.. protobuf:: NAME``: a message of DaemonEye's with its fields, or an enumeration with its values."""

    def entry(self) -> list[str]:
        """Return the lines of reStructuredText."""
        name = self.arguments[0]
        descriptor = getattr(importlib.import_module("trio_ipc.daemoneye"), name).DESCRIPTOR
        lines = [f".. py:class:: {name}", "   :module: trio_ipc.daemoneye", "", *self.text(), ""]
        if hasattr(descriptor, "values"):
            return [*lines, *(f"   - ``{value.name}`` = {value.number}" for value in descriptor.values)]
        return [*lines, *(f"   - ``{field.name}``: {type_of(field)}" for field in descriptor.fields)]

    def text(self) -> list[str]:
        """Return what is said of it."""
        return [f"   {line}" for line in self.content]


def type_of(field: Any) -> str:
    """Return a field's type as the .proto has it, with a link where it is a message."""
    kinds = {
        getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
        for name in dir(FieldDescriptor)
        if name.startswith("TYPE_")
    }
    named = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map of {type_of(key)} to {type_of(value)}"
    kind = kinds[field.type] if named is None else f":class:`~trio_ipc.daemoneye.{named.name}`"
    repeated = getattr(field, "is_repeated", None)
    if repeated is None:  # before protobuf 6
        repeated = field.label == FieldDescriptor.LABEL_REPEATED
    return f"repeated {kind}" if repeated else kind


class WindowsEntry(Entry):
    """``.. windows:: NAME`` with the ``file`` in transports/windows/ that defines it: read, not imported."""

    option_spec = {"file": str}  # noqa: RUF012 - docutils' own way

    def entry(self) -> list[str]:
        """Return the lines of reStructuredText."""
        source = ROOT / "trio_ipc" / "transports" / "windows" / self.options["file"]
        tree = ast.parse(source.read_text(encoding="utf-8"))
        [found] = [node for node in tree.body if getattr(node, "name", None) == self.arguments[0]]
        return entry_of(found, "trio_ipc.transports", self.config)


def entry_of(found: Any, module: str, config: Any) -> list[str]:
    """Return the entry of a class with its methods, or of a function, from its source."""
    if isinstance(found, ast.ClassDef):
        kind, signature = "class", ""
    else:
        kind = "function" if module else "method"
        arguments = found.args
        if not module:
            del arguments.args[:1]  # self
        returns = f" -> {ast.unparse(found.returns)}" if found.returns is not None else ""
        signature = f"({ast.unparse(arguments)}){returns}"
    lines = [f".. py:{kind}:: {found.name}{signature}"]
    if isinstance(found, ast.AsyncFunctionDef):
        lines.append("   :async:")
    if module:
        lines.append(f"   :module: {module}")
    text = inspect.cleandoc(ast.get_docstring(found) or "")
    # an item of napoleon's may have several lines
    made = "\n".join(GoogleDocstring(prepared(text.split("\n")), config).lines())
    lines += ["", *(f"   {line}" for line in made.split("\n")), ""]
    if isinstance(found, ast.ClassDef):
        for node in found.body:
            if is_documented(node):
                lines += [f"   {line}" for line in entry_of(node, "", config)]
    return lines


def is_documented(node: Any) -> bool:
    """Return whether this is a public method with a docstring."""
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.name not in {"detach", "release"}  # one listener's way of giving its pipe to another
        and ast.get_docstring(node) is not None
    )


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", describe, priority=400)
    app.connect("autodoc-process-bases", show_bases)
    app.connect("autodoc-before-process-signature", show_defaults, priority=600)  # after Sphinx's own
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", qualify)
    app.add_directive("protobuf", MessageEntry)
    app.add_directive("windows", WindowsEntry)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
