"""READS a traitlets configuration file (`c.PBSLauncher.queue = "batch"`) as a text: nothing in it is ever run.

Taken are plain assignments whose value stands there: literals, names assigned before, texts and lists joined by `+`, f-strings of
such. All else is noted with its line: what is computed, conditional, or done by a call. Like the interpreter, a later assignment
replaces an earlier one; unlike it, one in an `if` replaces nothing, and the names assigned there are no longer known.
"""

from __future__ import annotations

import ast
from typing import Any, Final, NamedTuple

__all__ = ["Assignment", "Note", "PythonConfig", "read_config"]

MAX_TEXT: Final = 1024 * 1024
_MAX_DEPTH: Final = 40
_MAX_SIZE: Final = 65_536
"""Characters and elements of a list or dict."""


class Note(NamedTuple):
    """Something that was not taken over.

    Attributes:
        source: the file, as it is named in messages.
        line: from 1; 0 when it is about the whole file.
        subject: what it is about: `PBSLauncher.queue`, or a line of code.
        reason: why, and what to do.
    """

    source: str
    line: int
    subject: str
    reason: str

    def rendered(self) -> str:
        """Return it on one line, with its place."""
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.subject}: {self.reason}"


class Assignment(NamedTuple):
    """The last value of one setting.

    Attributes:
        value: of plain types.
        source: the file.
        line: where it stands.
    """

    value: Any
    source: str
    line: int


class PythonConfig(NamedTuple):
    """What a file says.

    Attributes:
        settings: by class and trait.
        notes: what could not be read.
    """

    settings: dict[tuple[str, str], Assignment]
    notes: list[Note]


class _NotStatic(Exception):
    """The value is known at run time only."""


def read_config(text: str, source: str) -> PythonConfig:
    """Read the text of one file."""
    reader = _Reader(source)
    if len(text) > MAX_TEXT:
        return PythonConfig({}, [Note(source, 0, "the whole file", f"it has more than {MAX_TEXT} characters")])
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        reason = f"not Python 3: {error.msg} (print without brackets, for instance, is Python 2)"
        return PythonConfig({}, [Note(source, error.lineno or 0, "the whole file", reason)])
    except (ValueError, RecursionError, MemoryError) as error:
        return PythonConfig({}, [Note(source, 0, "the whole file", f"cannot be read: {error}")])
    for statement in statements:
        reader.take(statement)
    return PythonConfig(reader.settings, reader.notes)


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.settings: dict[tuple[str, str], Assignment] = {}
        self.notes: list[Note] = []
        # Names assigned so far whose value is known.
        self.names: dict[str, Any] = {}

    def take(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, statement)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, statement)
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                pass  # a value that needs the module is noted where it stands
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=ast.Call(func=ast.Name(id="get_config"))):
                pass
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.names.pop(statement.name, None)
            case _:
                self._not_followed(statement)

    def _assign(self, target: ast.expr, value: ast.expr, statement: ast.stmt) -> None:
        if isinstance(target, ast.Name):
            try:
                self.names[target.id] = _value(value, self.names)
            except _NotStatic:
                self.names.pop(target.id, None)
            return
        key = _setting(target)
        if key is None:
            self._note(statement, _shown(statement), "is no setting of the form c.Class.name")
            return
        try:
            self.settings[key] = Assignment(_value(value, self.names), self.source, statement.lineno)
        except _NotStatic:
            # What an earlier line said does not hold either.
            self.settings.pop(key, None)
            self._note(statement, ".".join(key), f"its value is computed: {_shown(value)}; write it into the profile")

    def _not_followed(self, statement: ast.stmt) -> None:
        """Note each setting below a statement that decides, loops or calls; forget the names that it may change."""
        inside: list[tuple[int, str]] = []
        for node in ast.walk(statement):
            targets: list[ast.expr] = []
            match node:
                case ast.Assign():
                    targets = node.targets
                case ast.AugAssign() | ast.AnnAssign():
                    targets = [node.target]
                case ast.Name(ctx=ast.Store() | ast.Del()):
                    self.names.pop(node.id, None)
                case ast.Call(func=ast.Attribute(value=target)):  # the list of a setting is appended to
                    targets = [target]
                    self.names.pop(getattr(target, "id", ""), None)
            inside += [(node.lineno, ".".join(key)) for target in targets if (key := _setting(target))]  # type: ignore[attr-defined]
        for line, subject in inside:
            reason = "set by code that is not followed (a condition, a loop, a call); see whether it holds"
            self.notes.append(Note(self.source, line, subject, reason))
        if not inside:
            self._note(statement, _shown(statement), "is not run")

    def _note(self, node: ast.stmt, subject: str, reason: str) -> None:
        self.notes.append(Note(self.source, node.lineno, subject, reason))


def _value(node: ast.expr, names: dict[str, Any], levels: int = _MAX_DEPTH) -> Any:
    """Return the value of an expression that can be read off the text. Nobody changes a value, so they may share parts."""
    if not levels:
        raise _NotStatic
    result: Any
    match node:
        case ast.Constant(value=str() | int() | float() | None as result):
            pass
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List() | ast.Tuple():
            result = [_value(element, names, levels - 1) for element in node.elts]
        case ast.Dict():
            result = _mapping(node, names, levels)
        case ast.UnaryOp(op=ast.USub()):
            result = _negative(_value(node.operand, names, levels - 1))
        case ast.BinOp(op=ast.Add() | ast.Mult() as operation):
            left, right = (_value(side, names, levels - 1) for side in (node.left, node.right))
            result = _sum(left, right) if isinstance(operation, ast.Add) else _product(left, right)
        case ast.JoinedStr():
            result = _formatted(node, names, levels)
        case _:
            raise _NotStatic
    # `a = [a, a]`, sixty times, likewise.
    if isinstance(result, (list, dict)) and _size(result) > _MAX_SIZE:
        raise _NotStatic
    return result


def _size(value: Any) -> int:
    match value:
        case str():
            return len(value) + 1
        case list():
            return 1 + sum(map(_size, value))
        case dict():
            return 1 + sum(_size(key) + _size(inner) for key, inner in value.items())
        case _:
            return 1


def _mapping(node: ast.Dict, names: dict[str, Any], levels: int) -> dict[str | int, Any]:
    result = {}
    for key, value in zip(node.keys, node.values, strict=True):
        name = None if key is None else _value(key, names, levels - 1)  # `**other` has no key
        if not isinstance(name, (str, int)):
            raise _NotStatic
        result[name] = _value(value, names, levels - 1)
    return result


def _negative(value: Any) -> float:
    if isinstance(value, (int, float)):
        return -value
    raise _NotStatic


def _sum(left: Any, right: Any) -> Any:
    is_number = all(isinstance(side, (int, float)) for side in (left, right))
    is_text = isinstance(left, str) and isinstance(right, str)
    is_list = isinstance(left, list) and isinstance(right, list)
    # `a = a + a`, sixty times, is an exabyte.
    if is_number or ((is_text or is_list) and len(left) + len(right) <= MAX_TEXT):
        return left + right
    raise _NotStatic


def _product(left: Any, right: Any) -> int:
    # 24 * 3600; never a text times a number.
    if isinstance(left, int) and isinstance(right, int) and max(abs(left), abs(right)) < 2**31:
        return left * right
    raise _NotStatic


def _formatted(node: ast.JoinedStr, names: dict[str, Any], levels: int) -> str:
    text = ""
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            value = _value(part.value, names, levels - 1)
            if part.format_spec is not None or part.conversion != -1 or not isinstance(value, (str, int)):
                raise _NotStatic
            text = _sum(text, str(value))
        else:
            text = _sum(text, _value(part, names, levels - 1))
    return text


def _setting(node: ast.expr) -> tuple[str, str] | None:
    """Return class and name of `c.Class.name`."""
    match node:
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="c"), attr=section), attr=name):
            return section, name
        case _:
            return None


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 80 else text[:77] + "..."
