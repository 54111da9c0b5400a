"""The operations of template expressions, each bounded before it is carried out: nothing large comes of something small.

Types are stricter than Python's: numbers with numbers, texts with texts. Results are bounded again by who asks.
"""

from __future__ import annotations

import ast
import math
import operator
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BINARY", "COMPARE", "FUNCTIONS", "MAX_INTEGER", "MAX_TEXT", "UNARY", "Value"]

Value: TypeAlias = int | float | str | None
"""What a name may stand for, and what comes out; bool is an int."""

MAX_INTEGER: Final = 2**63
MAX_TEXT: Final = 65_536
"""Characters of any text on the way: as long as the longest value of a profile."""
# With operands below MAX_INTEGER the result has 4,096 bits at the most, and is then refused for its size.
_MAX_EXPONENT: Final = 64
_MAX_DIGITS: Final = 15


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > _MAX_EXPONENT:
        raise ValueError(f"an exponent is at most {_MAX_EXPONENT}")
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("the root of a negative number")  # noqa: TRY004 - the value is wrong, not its type
    return float(result) if isinstance(result, float) else int(result)


def _shift_left(value: int, bits: int) -> int:
    if bits > _MAX_EXPONENT:
        raise ValueError(f"a shift is by at most {_MAX_EXPONENT} bits")
    return value << bits


def _times(left: Value, right: Value) -> Value:
    if isinstance(left, str) or isinstance(right, str):
        text, count = (left, right) if isinstance(left, str) else (right, left)
        if not isinstance(text, str) or not isinstance(count, int):
            raise TypeError("a text is repeated by a whole number")
        if len(text) * count > MAX_TEXT:
            raise ValueError(f"a text has at most {MAX_TEXT} characters")
        return text * count
    return operator.mul(_number(left), _number(right))  # type: ignore[no-any-return]


def _plus(left: Value, right: Value) -> Value:
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    return _number(left) + _number(right)


def _on_numbers(function: Callable[[float, float], float]) -> Callable[[Value, Value], Value]:
    # Above all it keeps `%` from texts: '%9999999999d' % n asks for 10 GB.
    return lambda left, right: function(_number(left), _number(right))


def _on_integers(function: Callable[[int, int], int]) -> Callable[[Value, Value], Value]:
    return lambda left, right: function(_integer(left), _integer(right))


def _number(value: Value) -> float:
    if value is None or isinstance(value, str):
        raise TypeError(f"a number is needed, not {_named(value)}")
    return value


def _integer(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a whole number is needed, not {_named(value)}")
    return value


def _named(value: Value) -> str:
    if value is None:
        return "a setting that is not set"
    return f"the text {value[:40]!r}" if isinstance(value, str) else str(value)


def _as_int(value: Value) -> int:
    if isinstance(value, str) and len(value) > 20:
        raise ValueError("too many digits")
    return int(value) if isinstance(value, str) else int(_number(value))


def _round(value: Value, digits: Value = None) -> Value:
    if digits is None:
        return round(_number(value))
    if abs(_integer(digits)) > _MAX_DIGITS:
        raise ValueError(f"round() to at most {_MAX_DIGITS} digits")
    return round(_number(value), _integer(digits))


def _length(value: Value) -> int:
    if not isinstance(value, str):
        raise TypeError("len() is of a text")
    return len(value)


def _text(value: Value) -> str:
    if value is None:
        raise TypeError(f"str() of {_named(value)}")
    return str(value)


def _smallest(*values: Value) -> Value:
    return min(_number(value) for value in values)


def _largest(*values: Value) -> Value:
    return max(_number(value) for value in values)


FUNCTIONS: Final[dict[str, tuple[Callable[..., Value], int, int]]] = {
    "abs": (lambda value: abs(_number(value)), 1, 1),
    "ceil": (lambda value: math.ceil(_number(value)), 1, 1),
    "floor": (lambda value: math.floor(_number(value)), 1, 1),
    "int": (_as_int, 1, 1),
    "len": (_length, 1, 1),
    "max": (_largest, 1, 16),
    "min": (_smallest, 1, 16),
    "round": (_round, 1, 2),
    "str": (_text, 1, 1),
}
"""By name: what is called, and the least and largest number of its arguments."""

BINARY: Final[dict[type[ast.operator], Callable[[Value, Value], Value]]] = {
    ast.Add: _plus,
    ast.Sub: _on_numbers(operator.sub),
    ast.Mult: _times,
    ast.Div: _on_numbers(operator.truediv),
    ast.FloorDiv: _on_numbers(operator.floordiv),
    ast.Mod: _on_numbers(operator.mod),
    ast.Pow: _on_numbers(_power),
    ast.LShift: _on_integers(_shift_left),
    ast.RShift: _on_integers(operator.rshift),
}
UNARY: Final[dict[type[ast.unaryop], Callable[[Value], Value]]] = {
    ast.UAdd: lambda value: +_number(value),
    ast.USub: lambda value: -_number(value),
    ast.Not: operator.not_,
}


def _contains(left: Value, right: Value) -> bool:
    if not isinstance(left, str) or not isinstance(right, str):
        raise TypeError("`in` looks for a text in a text")
    return left in right


def _ordered(function: Callable[[float, float], bool]) -> Callable[[Value, Value], bool]:
    return lambda left, right: function(_number(left), _number(right))


COMPARE: Final[dict[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _contains,
    ast.NotIn: lambda left, right: not _contains(left, right),
}
