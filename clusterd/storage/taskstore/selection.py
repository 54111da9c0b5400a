"""Which tasks somebody means who cannot write queries: by state, label, name, engine, client and time."""

from __future__ import annotations

import string
from typing import Any

from msgspec import Struct

from clusterd.errors import BadQuery
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.told import ENDED, UNENDED

STATES = (*UNENDED, *ENDED)
_HEX = frozenset(string.hexdigits)


class Selection(Struct, frozen=True, kw_only=True):
    """All of what is set must hold.

    Attributes:
        state: one of STATES.
        label, name: a pattern with `*` and `?`.
        engine: `engines/3`, a set, `3` (of the default set), or `id:7`.
        client: its uuid, or the beginning of it.
        since, before: seconds since the epoch between which it was submitted.
        ended_before: seconds since the epoch.
    """

    state: str | None = None
    label: str | None = None
    name: str | None = None
    engine: str | None = None
    client: str | None = None
    since: float | None = None
    before: float | None = None
    ended_before: float | None = None

    def query(self, default_set: str = "engines") -> dict[str, Any]:
        """The query; of states that only a controller knows it finds more, see `takes`.

        Args:
            default_set: where an engine is that is named by its number alone.

        Raises:
            BadQuery: there is no such state, or no such engine.
        """
        query: dict[str, Any] = {}
        if self.state is not None:
            query |= _state(self.state)
        for field in ("label", "name"):
            if (pattern := getattr(self, field)) is not None:
                query[field] = {"$glob": pattern}
        if self.engine is not None:
            query |= _engine(self.engine, default_set)
        if self.client is not None:
            query["client_uuid"] = {"$glob": f"{_literal(self.client)}*"}
        bounds = {"$gte": self.since, "$lt": self.before}
        if submitted := {operator: value for operator, value in bounds.items() if value is not None}:
            query["submitted"] = submitted
        if self.ended_before is not None:
            query["completed"] = {"$lt": self.ended_before}
        return query

    def takes(self, task: dict[str, Any]) -> bool:
        """Say whether a task that was found, as it is told, is in the state that is meant."""
        return self.state is None or task["state"] == self.state


def span_of(cursor: str | None) -> Span:
    """A span from the text that `cursor_of` made; all for none."""
    if cursor is None:
        return Span()
    after, _, before = cursor.partition(":")
    return Span(int(after), int(before))


def cursor_of(rest: Span | None) -> str | None:
    """What is left, as text."""
    return None if rest is None else f"{rest[0]}:{rest[1]}"


def _state(state: str) -> dict[str, Any]:
    if state in UNENDED:
        return {"completed": None}
    if state == "error":
        return {"status": {"$ne": None, "$nin": ["ok", "aborted"]}}
    if state in ENDED:
        return {"status": state}
    raise BadQuery(f"a task is never {state!r}", hint=f"States: {', '.join(STATES)}.")


def _engine(engine: str, default_set: str) -> dict[str, Any]:
    kind, _, number = engine.partition(":")
    if kind == "id" and number.isdecimal():
        return {"engine_id": int(number)}
    if engine.isdecimal():
        engine = f"{default_set}/{engine}"
    if not engine or set(engine) & set("*?[] "):
        raise BadQuery(f"{engine!r} is no engine", hint="Write engines/3, the name of a set, or id:7.")
    return {"place": {"$glob": f"{engine} *" if "/" in engine else f"{engine}/*"}}


def _literal(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)
