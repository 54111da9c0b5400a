"""Walks through a store whose backend is behind: a page is that of the backend, with what is newer here in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.storage.taskstore.pages import LOOK, Page, Span, matching_names
from clusterd.storage.taskstore.written import WrittenStore

if TYPE_CHECKING:
    from clusterd.storage.taskstore.query import Query


class PagedStore(WrittenStore):
    """What is asked of a written store in bounded steps."""

    def page(
        self, query: Query, span: Span | None = None, *, limit: int, look: int = LOOK, newest_first: bool = True
    ) -> Page:
        """See `TaskStore`."""
        span = span or Span()
        newer, hidden = self._overlay()
        found, reached = self._backend.page(query, span, limit, look, newest_first=newest_first)
        rows = [row for row in found if row.msg_id not in hidden]
        rest = None if reached is None else span.beyond(reached, newest_first=newest_first)
        # What the backend has not been looked at for is for the pages to come, here as there.
        rows.extend(
            row
            for row in newer.values()
            if span.has(row.order) and not (rest and rest.has(row.order)) and query.matches(row)
        )
        rows.sort(key=lambda row: row.order, reverse=newest_first)
        if len(rows) > limit:
            del rows[limit:]
            rest = span.beyond(rows[-1].order, newest_first=newest_first)
        return Page(rows, rest)

    def purge_page(self, query: Query, span: Span | None = None, *, look: int = LOOK) -> tuple[int, Span | None]:
        """See `TaskStore`."""
        page = self.page(query, span, limit=look, look=look)
        doomed = [row.msg_id for row in page.rows if row.outcome is not None]
        self._purge(doomed)
        return len(doomed), page.rest

    def named(self, pattern: str, limit: int) -> list[str]:
        """See `TaskStore`."""
        newer, hidden = self._overlay()
        found = matching_names(newer, pattern, limit)
        found += [name for name in self._backend.named(pattern, limit + len(hidden)) if name not in hidden]
        return found[:limit]
