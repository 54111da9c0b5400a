"""A query as a condition of SQL, as far as columns go; what it does not say is looked at row by row. And pages of what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.storage.taskstore import schema

if TYPE_CHECKING:
    import sqlite3

    from clusterd.storage.taskstore.pages import Span
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow

_COLUMN_OF: Final = {
    "msg_id": "msg_id",
    "client_uuid": "client",
    "status": "status",
}
"""Fields that are columns as they are."""
_TEXTS: Final = {"msg_id": "msg_id", "label": "label", "name": "name", "place": "place"}
"""Columns that patterns may be matched with by SQLite: its GLOB knows `*` and `?` as fnmatch does, but other brackets."""


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
        elif column and condition.operator == "$nin" and all(type(x) is str for x in argument) and len(argument) <= 500:
            terms.append(f"({column} IS NULL OR {column} NOT IN ({', '.join('?' * len(argument))}))")
            values.extend(argument)
        elif condition.field in {"status", "completed"} and condition.operator in {"$eq", "$ne"} and argument is None:
            terms.append(f"{condition.field} IS {'NOT ' * (condition.operator == '$ne')}NULL")
        elif condition.field in _TEXTS and condition.operator == "$glob" and not {"[", "]", "\0"} & set(argument):
            # An empty label is null in a record, and matches nothing.
            text = _TEXTS[condition.field]
            terms.append(f"({text} GLOB ? AND {text} <> '')")
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


def read_page(
    reader: sqlite3.Connection, query: Query, span: Span, limit: int, look: int, *, newest_first: bool
) -> tuple[list[TaskRow], int | None]:
    """See `Backend.page`."""
    where, values, _ = translated(query)
    direction = "DESC" if newest_first else "ASC"
    found = reader.execute(
        f"SELECT id FROM tasks WHERE id > ? AND id < ? ORDER BY id {direction} LIMIT 1 OFFSET ?",  # noqa: S608 - our own words
        (span.after, span.end, look - 1),
    ).fetchone()
    edge = None if found is None else int(found[0])
    part = span if edge is None else span.until(edge, newest_first=newest_first)
    # An index on what is asked for may lead through all rows; by id it is `look` of them. One bound on each side: of two that SQLite
    # is given it goes by the first, through all that the second leaves out.
    select = f"{schema.SELECT} NOT INDEXED WHERE id > ? AND id < ? AND {where} ORDER BY id {direction}"
    rows: list[TaskRow] = []
    for columns in reader.execute(select, (part.after, part.end, *values)):
        row = schema.row_of(columns)
        if query.matches(row):
            rows.append(row)
            if len(rows) == limit:
                return rows, row.order
    return rows, edge


def read_named(reader: sqlite3.Connection, pattern: str, limit: int) -> list[str]:
    """See `Backend.named`."""
    found = reader.execute("SELECT msg_id FROM tasks WHERE msg_id GLOB ? LIMIT ?", (pattern, limit))
    return [msg_id for (msg_id,) in found]
