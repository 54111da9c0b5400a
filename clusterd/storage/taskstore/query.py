"""The query language of task records: `{field: value}` or `{field: {operator: argument, ...}}`, all of which must hold.

Null (no value) equals null and differs from all else; it has no order, no pattern, no remainder and no elements. Values of different
types are different and have no order either. Fields that hold times compare as times: the argument is ISO 8601 text (without a
zone: UTC), a datetime, or seconds since the epoch. Buffers cannot be asked for.
"""

from __future__ import annotations

import fnmatch
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clusterd.errors import BadQuery
from clusterd.storage.taskstore.record import BUFFERS, FIELDS, TIMES
from clusterd.storage.taskstore.row import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterd.storage.taskstore.row import TaskRow

# Numbers compare with numbers and text with text; True is no number here, as in JSON.
_ORDERED: Final = ((int, float), (str,))
_MAX_PATTERN: Final = 1024


class Condition(NamedTuple):
    """One condition. Of fields that hold times, `argument` is in whole microseconds since the epoch (`$in`, `$nin`: a list of them)."""

    field: str
    operator: str
    argument: Any


class Query:
    """A query that was understood.

    Attributes:
        conditions: its conditions.
    """

    __slots__ = ("_checks", "conditions")

    def __init__(self, conditions: list[Condition]) -> None:
        self.conditions = conditions
        self._checks = [
            (_getter(condition.field), _PREDICATES[condition.operator](condition.argument)) for condition in conditions
        ]

    def matches(self, row: TaskRow) -> bool:
        """Say whether all conditions hold, and it is no row that nobody is shown."""
        return row.queue not in HIDDEN and all(check(get(row)) for get, check in self._checks)

    def msg_ids(self) -> list[str] | None:
        """The ids that alone can match; None where it names none."""
        for condition in self.conditions:
            if condition.field == "msg_id":
                if condition.operator == "$eq":
                    return [condition.argument] if isinstance(condition.argument, str) else []
                if condition.operator == "$in":
                    return [item for item in condition.argument if isinstance(item, str)]
        return None


def parse(query: Mapping[str, Any]) -> Query:
    """Understand a query.

    Raises:
        BadQuery: it names a field or an operator that does not exist, or an argument that its operator cannot take.
    """
    conditions: list[Condition] = []
    for name, condition in query.items():
        if name in BUFFERS:
            raise BadQuery(f"{name!r} cannot be searched; ask for it by the keys of the query")
        if name not in FIELDS:
            raise BadQuery(f"records have no field {name!r}", hint=f"Fields: {', '.join(sorted(FIELDS))}.")
        is_operators = isinstance(condition, dict) and any(str(key).startswith("$") for key in condition)
        for operator, argument in condition.items() if is_operators else (("$eq", condition),):
            if operator not in _PREDICATES:
                raise BadQuery(
                    f"{name}: {operator!r} is no operator", hint=f"Operators: {', '.join(sorted(_PREDICATES))}."
                )
            conditions.append(Condition(name, operator, _argument(name, operator, argument)))
    return Query(conditions)


def _argument(name: str, operator: str, argument: Any) -> Any:
    where = f"{name}: {operator}"
    if operator in {"$in", "$nin", "$all"}:
        if not isinstance(argument, list | tuple | set | frozenset):
            raise BadQuery(f"{where} needs a list, not {argument!r}")
        return [_time(name, where, item) for item in argument]
    if operator == "$mod":
        is_pair = isinstance(argument, list | tuple) and len(argument) == 2
        if not is_pair or not all(_is_number(item) for item in argument) or not argument[0]:
            raise BadQuery(f"{where} needs [divisor, remainder], not {argument!r}")
        return list(argument)
    if operator == "$glob":
        if not isinstance(argument, str) or len(argument) > _MAX_PATTERN or name in TIMES:
            raise BadQuery(f"{where} needs a pattern of up to {_MAX_PATTERN} characters, and a field that holds text")
        return argument
    if operator == "$exists":
        return bool(argument)
    return _time(name, where, argument)


def _time(name: str, where: str, value: Any) -> Any:
    """The argument for a field that holds times, as `_getter` gives them; any other unchanged."""
    if name not in TIMES or value is None:
        return value
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise BadQuery(f"{where}: {value!r} is no time (ISO 8601, such as 2026-01-31T12:00:00Z)") from None
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return _microseconds(moment.timestamp())
    if _is_number(value):
        return _microseconds(value)
    raise BadQuery(f"{where}: {value!r} is no time")


def _microseconds(seconds: float) -> int:
    """Times are equal when they are written the same: to the microsecond."""
    return round(seconds * 1_000_000)


def _getter(name: str) -> Callable[[TaskRow], Any]:
    get = FIELDS[name]
    if name not in TIMES:
        return get

    def in_microseconds(row: TaskRow) -> int | None:
        seconds = get(row)
        return None if seconds is None else _microseconds(seconds)

    return in_microseconds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(value: Any, argument: Any) -> bool:
    return bool(value == argument) and isinstance(value, bool) == isinstance(argument, bool)


def _is_ordered(value: Any, argument: Any) -> bool:
    if isinstance(value, bool) or isinstance(argument, bool):
        return False
    return any(isinstance(value, kinds) and isinstance(argument, kinds) for kinds in _ORDERED)


def _all(argument: list[Any]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if isinstance(value, list):
            return all(any(_equal(element, item) for element in value) for item in argument)
        return value is not None and bool(argument) and all(_equal(value, item) for item in argument)

    return check


def _mod(argument: list[Any]) -> Callable[[Any], bool]:
    divisor, remainder = argument
    return lambda value: _is_number(value) and value % divisor == remainder


def _glob(argument: str) -> Callable[[Any], bool]:
    match = re.compile(fnmatch.translate(argument)).match
    return lambda value: isinstance(value, str) and match(value) is not None


# By operator: what makes a predicate of its argument.
_PREDICATES: Final[dict[str, Callable[[Any], Callable[[Any], bool]]]] = {
    "$eq": lambda argument: lambda value: _equal(value, argument),
    "$ne": lambda argument: lambda value: not _equal(value, argument),
    "$lt": lambda argument: lambda value: _is_ordered(value, argument) and value < argument,
    "$lte": lambda argument: lambda value: _is_ordered(value, argument) and value <= argument,
    "$gt": lambda argument: lambda value: _is_ordered(value, argument) and value > argument,
    "$gte": lambda argument: lambda value: _is_ordered(value, argument) and value >= argument,
    "$in": lambda argument: lambda value: any(_equal(value, item) for item in argument),
    "$nin": lambda argument: lambda value: not any(_equal(value, item) for item in argument),
    "$all": _all,
    "$mod": _mod,
    "$glob": _glob,
    "$exists": lambda argument: lambda value: (value is not None) is argument,
}
