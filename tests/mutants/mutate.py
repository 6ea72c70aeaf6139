"""What could be wrong in a module: mutants, each of which differs from it in one place.

A change is one of text, so that all other lines stay where they are. Not changed is what no test could see:
words in strings, annotations, assertions for the type checker, and what another system runs. This module must
never write a file or run anything.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

import attrs

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}

#: What of a function's decorators says that it has no body of its own.
_BODILESS: Final = ("abstractmethod", "overload")

_LONGEST: Final = 70


@attrs.frozen
class Mutant:
    """A module with one thing changed.

    Attributes:
        line: where.
        scope: the function or class around it, dotted; empty outside of all.
        before, after: the text there, and what stands in its place.
        source: the whole module.
    """

    line: int
    scope: str
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        """What it is called. Lines that are added elsewhere do not change it."""
        return f"{self.scope or 'module'}: {self.before} -> {self.after}"


def mutants_of(source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its text; none if it is another system's."""
    tree = ast.parse(source)
    if any(_ends_here(node) for node in tree.body):
        return []
    finder = _Finder(source)
    finder.visit(tree)
    return sorted(finder.found, key=lambda mutant: mutant.line)


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.found: list[Mutant] = []
        self._source = source.encode()
        self._lines = [0, *accumulate(map(len, self._source.splitlines(keepends=True)))]
        self._scopes: list[str] = []

    # --- What is changed ---

    def visit_Compare(self, node: ast.Compare) -> None:
        for number, op in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[number] = _COMPARISONS[type(op)]()
            self._expression(node, changed)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._expression(node, changed)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub)):
            self._expression(node, node.operand)
        if not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._arithmetic(node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._expression(node, ast.Constant(not node.value))
        elif isinstance(node.value, (int, float)):
            self._expression(node, ast.Constant(node.value + 1))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._text(node, "return None")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        holds = _holds_here(node.test)
        if holds is None:
            self._condition(node.test)
            self.generic_visit(node)
        else:
            self._visit_all(node.body if holds else node.orelse)

    def visit_While(self, node: ast.While) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        holds = _holds_here(node.test)
        if holds is None:
            self._condition(node.test)
            self.generic_visit(node)
        else:
            self.visit(node.body if holds else node.orelse)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        self._removed(node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        # A name without a value would be an error at once.
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self._removed(node)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._arithmetic(node)
        self._removed(node)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._removed(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._removed(node)
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._removed(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._removed(node)

    # --- What is around it, and what is not changed ---

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scopes.append(node.name)
        self._visit_all((*node.decorator_list, *node.body))
        self._scopes.pop()

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # what is in it has no place before Python 3.12

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if any(ast.unparse(decorator).endswith(_BODILESS) for decorator in node.decorator_list):
            return
        self._scopes.append(node.name)
        self._positional(node)
        defaults = (one for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None)
        self._visit_all((*node.decorator_list, *defaults, *node.body))
        self._scopes.pop()

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    # --- Changing it ---

    def _condition(self, test: ast.expr) -> None:
        # The others have a change of their own that is as good.
        if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
            self._expression(test, ast.UnaryOp(ast.Not(), test))

    def _arithmetic(self, node: ast.BinOp | ast.AugAssign) -> None:
        other = _ARITHMETIC.get(type(node.op))
        if other is not None:
            changed = copy.deepcopy(node)
            changed.op = other()
            text = ast.unparse(changed)
            self._text(node, f"({text})" if isinstance(node, ast.BinOp) else text)

    def _positional(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Let arguments be given by their place that are to be given by their names."""
        if not node.args.kwonlyargs or node.args.vararg is not None:
            return
        start, end = self._at(node.lineno, node.col_offset), self._at(node.body[0].lineno, 0)
        if end <= start:
            return  # all in one line
        star = self._source.find(b"*,", start, end)
        if star >= 0:
            self._add(node.lineno, star, star + 2, "")

    def _expression(self, node: ast.expr, changed: ast.expr) -> None:
        self._text(node, f"({ast.unparse(changed)})")

    def _removed(self, node: ast.stmt) -> None:
        self._text(node, "pass")

    def _text(self, node: ast.expr | ast.stmt, after: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._at(node.lineno, node.col_offset)
        self._add(node.lineno, start, self._at(node.end_lineno, node.end_col_offset), after)

    def _at(self, line: int, column: int) -> int:
        return self._lines[line - 1] + column

    def _add(self, line: int, start: int, end: int, after: str) -> None:
        before = self._source[start:end].decode()
        source = (self._source[:start] + after.encode() + self._source[end:]).decode()
        # All others are an expression for an expression, or a statement for one. A test compiles some.
        if not after and not _is_python(source):
            return
        shown = _one_line(after) or "nothing"
        self.found.append(Mutant(line, ".".join(self._scopes), _one_line(before), shown, source))


def _is_python(source: str) -> bool:
    """Return whether it compiles: a default must not come before an argument without one."""
    try:
        compile(source, "<mutant>", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _ends_here(node: ast.stmt) -> bool:
    """Return whether a module goes no further on this system: it says that it is for another one."""
    if isinstance(node, ast.Assert):
        return _holds_here(node.test) is False
    return (
        isinstance(node, ast.If) and _holds_here(node.test) is True and isinstance(node.body[-1], ast.Raise)
    )


def _holds_here(test: ast.expr) -> bool | None:
    """Return whether a question for the system or the type checker is true here; None if it is none."""
    if isinstance(test, ast.Name) and test.id == "TYPE_CHECKING":
        return False
    match test:
        case ast.Compare(
            left=ast.Attribute(value=ast.Name(id="sys"), attr="platform"),
            ops=[op],
            comparators=[ast.Constant(value=str(name))],
        ) if isinstance(op, (ast.Eq, ast.NotEq)):
            return (sys.platform == name) is isinstance(op, ast.Eq)
    return None


def names_of(mutants: Iterable[Mutant]) -> Iterator[str]:
    """Return the mutants' names, each once: the second of two alike is number 2, and so on."""
    seen: dict[str, int] = {}
    for mutant in mutants:
        number = seen[mutant.name] = seen.get(mutant.name, 0) + 1
        yield mutant.name if number == 1 else f"{mutant.name} ({number})"
