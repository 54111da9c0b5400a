"""A query as a condition of SQL, as far as columns go; what it does not say is looked at row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from clusterd.storage.taskstore.query import Query

_COLUMN_OF: Final = {
    "msg_id": "msg_id",
    "client_uuid": "client",
    "queue": "queue",
    "status": "status",
}
"""Fields that are columns as they are."""


def translated(query: Query) -> tuple[str, list[Any], bool]:
    """(a condition, its values, whether it says all that the query says); never less is found than what matches."""
    terms, values = ["1"], []
    is_exact = True
    for condition in query.conditions:
        column = _COLUMN_OF.get(condition.field)
        argument = condition.argument
        if column and condition.operator == "$eq" and isinstance(argument, str):
            terms.append(f"{column} = ?")
            values.append(argument)
        elif column and condition.operator == "$in" and len(argument) <= 500 and all(type(x) is str for x in argument):
            terms.append(f"{column} IN ({', '.join('?' * len(argument))})")
            values.extend(argument)
        elif (
            condition.field == "engine_uuid" and condition.operator == "$eq" and isinstance(argument, str) and argument
        ):
            terms.append("engine = ?")
            values.append(argument)
        elif condition.field in {"submitted", "completed"} and condition.operator in _BOUNDS and argument is not None:
            # A microsecond more than asked: the query itself decides about the edge.
            sign, by = _BOUNDS[condition.operator]
            terms.append(f"{condition.field} {sign} ?")
            values.append((argument + by) / 1_000_000)
            is_exact = False
        else:
            is_exact = False
    return " AND ".join(terms), values, is_exact


_BOUNDS: Final = {"$lt": ("<=", 1), "$lte": ("<=", 1), "$gt": (">=", -1), "$gte": (">=", -1)}
