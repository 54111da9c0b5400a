"""EVALUATES the small expressions of job templates: `n//4`, `min(n, 64)`, `queue or 'batch'`. Never eval, never an attribute.

The grammar is what `_check` lets through, with the operations of `arithmetic`; everything else of Python is refused, with its
column, also where it would never be reached. Time and memory are bounded: by the length of the text, by the size of every
value in between, and by `arithmetic` for the operations that make large things of small ones.
"""

from __future__ import annotations

import ast
import difflib
import math
from typing import TYPE_CHECKING, Final

from clusterd.launchers.arithmetic import BINARY, COMPARE, FUNCTIONS, MAX_INTEGER, MAX_TEXT, UNARY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterd.launchers.arithmetic import Value

__all__ = ["Expression", "Refused"]

MAX_LENGTH: Final = 256
"""Characters of one expression; it bounds the parser's recursion, too."""
MAX_DEPTH: Final = 32
"""Levels of an expression: each costs two frames of Python's stack."""


class Refused(Exception):
    """An expression is none of ours, or has no value.

    Attributes:
        column: where, in characters from the beginning of the expression's text, from 0.
        message: what is wrong.
        hint: what to write instead; may be empty.
    """

    def __init__(self, column: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.column = column
        self.message = message
        self.hint = hint


_REFUSED_WORDS: Final[dict[type[ast.AST], str]] = {
    ast.Attribute: "an attribute (the dot)",
    ast.Subscript: "an index [...]",
    ast.Lambda: "a lambda",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.Await: "await",
    ast.Starred: "a star",
    ast.Tuple: "a tuple",
    ast.List: "a list",
    ast.Dict: "a dict",
    ast.Set: "a set",
}
_HINT: Final = f"numbers, texts, the settings, + - * / // % **, comparisons, if ... else, {', '.join(f'{name}()' for name in FUNCTIONS)}"


def _is_ours(node: ast.expr) -> bool:
    match node:
        case ast.Name() | ast.BoolOp() | ast.IfExp():
            return True
        case ast.BinOp():
            return type(node.op) in BINARY
        case ast.UnaryOp():
            return type(node.op) in UNARY
        case ast.Compare():
            return all(type(op) in COMPARE for op in node.ops)
        case _:
            return False


class Expression:
    """One expression, checked; it may be evaluated any number of times.

    Raises:
        Refused: it is none of ours.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise Refused(0, f"an expression has at most {MAX_LENGTH} characters")
        if "\\" in text:
            # Not needed for anything here, and Python warns about some of them while it parses.
            raise Refused(text.index("\\"), "a backslash has no place in an expression")
        self._text = text
        self._indent = len(text) - len(text.lstrip())
        try:
            self._body = ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            raise Refused(self._syntax_column(error), "this is no expression", _HINT) from None
        except (ValueError, RecursionError, MemoryError):  # a NUL; too deeply nested
            raise Refused(0, "this is no expression", _HINT) from None
        self._check(self._body, MAX_DEPTH)

    @property
    def names(self) -> frozenset[str]:
        """The settings that it asks for."""
        called = {id(node.func) for node in ast.walk(self._body) if isinstance(node, ast.Call)}
        return frozenset(
            node.id for node in ast.walk(self._body) if isinstance(node, ast.Name) and id(node) not in called
        )

    def evaluate(self, values: Mapping[str, Value]) -> Value:
        """Return its value.

        Raises:
            Refused: a name is unknown, a value does not fit, or something grew too large.
        """
        return self._value(self._body, values)

    def _check(self, node: ast.expr, levels: int) -> None:
        """Refuse what is not in the grammar, the parts that are never reached included."""
        if not levels:
            raise Refused(self._column(node), f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, ast.Call):
            self._check_call(node)
            for argument in node.args:
                self._check(argument, levels - 1)
            return
        if isinstance(node, ast.Constant):
            self._check_constant(node)
        elif not _is_ours(node):
            words = _REFUSED_WORDS.get(type(node), f"this ({type(node).__name__})")
            raise Refused(self._column(node), f"{words} has no place in an expression", _HINT)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._check(child, levels - 1)

    def _check_constant(self, node: ast.Constant) -> None:
        # The value of literals, too: 1e999 is infinite.
        if node.value is None or isinstance(node.value, (int, float, str)):
            self._bounded(node, node.value)
            return
        raise Refused(self._column(node), f"{type(node.value).__name__} has no place in an expression", _HINT)

    def _check_call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            if isinstance(node.func, ast.Attribute):
                raise Refused(self._column(node.func), f"{_REFUSED_WORDS[ast.Attribute]} has no place here", _HINT)
            raise Refused(self._column(node), "this cannot be called", f"there are {', '.join(FUNCTIONS)}")
        _, least, most = FUNCTIONS[name]
        if node.keywords:
            raise Refused(self._column(node.keywords[0].value), f"{name}() takes no named arguments")
        if not least <= len(node.args) <= most:
            raise Refused(self._column(node), f"{name}() takes {least} to {most} arguments, not {len(node.args)}")

    def _value(self, node: ast.expr, values: Mapping[str, Value]) -> Value:
        try:
            value = self._compute(node, values)
        except Refused:
            raise
        except ZeroDivisionError:
            raise Refused(self._column(node), "division by zero") from None
        except OverflowError:
            raise Refused(self._column(node), "the number is too large") from None
        except (TypeError, ValueError) as error:
            raise Refused(self._column(node), str(error)) from None
        return self._bounded(node, value)

    def _compute(self, node: ast.expr, values: Mapping[str, Value]) -> Value:
        result: Value
        match node:
            case ast.Constant(value=int() | float() | str() | None as result):
                pass
            case ast.Name():
                result = self._named(node, values)
            case ast.BinOp():
                result = BINARY[type(node.op)](self._value(node.left, values), self._value(node.right, values))
            case ast.UnaryOp():
                result = UNARY[type(node.op)](self._value(node.operand, values))
            case ast.BoolOp():
                result = self._either(node, values)
            case ast.Compare():
                result = self._compared(node, values)
            case ast.IfExp():
                result = self._value(node.body if self._value(node.test, values) else node.orelse, values)
            case ast.Call(func=ast.Name(id=name)):
                result = FUNCTIONS[name][0](*[self._value(argument, values) for argument in node.args])
            case _:
                raise AssertionError(node)  # _check lets nothing else through
        return result

    def _compared(self, node: ast.Compare, values: Mapping[str, Value]) -> bool:
        left = self._value(node.left, values)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._value(comparator, values)
            if not COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _either(self, node: ast.BoolOp, values: Mapping[str, Value]) -> Value:
        stops_at = isinstance(node.op, ast.Or)
        result: Value = None
        for part in node.values:
            result = self._value(part, values)
            if bool(result) is stops_at:
                break
        return result

    def _named(self, node: ast.Name, values: Mapping[str, Value]) -> Value:
        if node.id in values:
            return values[node.id]
        near = difflib.get_close_matches(node.id, values, n=1)
        hint = f"did you mean {near[0]}?" if near else f"a variable of the shell is written ${{{{{node.id}}}}}"
        raise Refused(self._column(node), f"there is no setting `{node.id}`", hint)

    def _bounded(self, node: ast.expr, value: Value) -> Value:
        if isinstance(value, str):
            is_fine = len(value) <= MAX_TEXT
        elif isinstance(value, int):
            is_fine = -MAX_INTEGER < value < MAX_INTEGER
        else:
            is_fine = value is None or math.isfinite(value)
        if not is_fine:
            raise Refused(self._column(node), f"the {'text' if isinstance(value, str) else 'number'} is too large")
        return value

    def _column(self, node: ast.expr) -> int:
        # ast counts bytes of UTF-8.
        stripped = self._text.strip().encode()
        return self._indent + len(stripped[: node.col_offset].decode(errors="replace"))

    def _syntax_column(self, error: SyntaxError) -> int:
        return min(self._indent + max((error.offset or 1) - 1, 0), len(self._text))
