"""What ran, for `clusterctl tasks`: asked of the controller page by page; of its SQLite file, in a thread, while there is no controller.

Nothing here is without a bound: a page takes the controller some milliseconds, and it has as many for others before the next; an answer of
ours is what fits into a second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.core.wire.messages import DescribeTask, PageTasks, PurgePage, PurgeTasks
from clusterd.errors import ControlError, ControllerLost, NoRecords
from clusterd.storage.taskstore.selection import Selection, cursor_of, span_of
from clusterd.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterd.control.requests import TasksPurge, TasksQuery
    from clusterd.core.model.profile import Profile
    from clusterd.daemon.controller_link import ControllerLink
    from clusterd.storage.taskstore.pages import Span

__all__ = ["TaskRecords"]

ANSWER_SECONDS: Final = 1.0
"""After that an answer says how far it is; who asked goes on from there."""
PATIENCE: Final = 8.0
"""Seconds for one question to the controller: less than clusterctl waits for us."""
PURGED_AT_ONCE: Final = 200

_Page = tuple[list[dict[str, Any]], "Span | None"]


class TaskRecords:
    """The records of one cluster.

    Args:
        link: to the controller.
        file: of its SQLite database, which may not exist.
        profile: gives the profile in effect.
        default_set: gives the engine set that a number alone means.
    """

    def __init__(
        self, link: ControllerLink, file: Path, profile: Callable[[], Profile], default_set: Callable[[], str]
    ) -> None:
        self._link = link
        self._file = file
        self._profile = profile
        self._default_set = default_set

    async def page(self, request: TasksQuery) -> dict[str, Any]:
        """Some tasks; see `control.service`.

        Raises:
            ClusterdError: there are no records, or they cannot be read now; or what is asked makes no sense.
        """
        selection, query = self._selected(request)
        source = self._source()
        rest: Span | None = span_of(request.cursor)
        tasks: list[dict[str, Any]] = []
        until = clock.monotonic() + ANSWER_SECONDS
        while rest is not None and len(tasks) < request.limit:
            found, rest = await self._page(source, query, rest, request.limit - len(tasks), request)
            tasks += filter(selection.takes, found)
            if clock.monotonic() >= until:
                break
        return {"tasks": tasks, "next": cursor_of(rest), "source": source}

    async def show(self, name: str) -> dict[str, Any]:
        """One task; raises as `page` does."""
        source = self._source()
        if source == "controller":
            answer = await self._ask(lambda number: DescribeTask(number, name))
            task: dict[str, Any] = answer["task"]
        else:
            from clusterd.storage.taskstore.archive import read_task  # noqa: PLC0415 - sqlite3, which few daemons need

            task = await asyncio.to_thread(read_task, self._file, name)
        return {"task": task, "source": source}

    async def purge(self, request: TasksPurge) -> dict[str, Any]:
        """Forget tasks; raises as `page` does."""
        if self._source() != "controller":
            raise ControlError("records are purged by the controller, which does not run", hint="clusterctl start")
        if request.tasks is not None:
            return {"purged": await self._purge_named(request.tasks), "next": None}
        selection, query = self._selected(request)
        if selection.state in {"waiting", "running", "unfinished"}:
            raise ControlError(
                f"what is {selection.state} cannot be purged",
                code="bad_query",
                hint="only what has ended: ok, error, aborted",
            )
        rest: Span | None = span_of(request.cursor)
        purged = 0
        until = clock.monotonic() + ANSWER_SECONDS
        while rest is not None:
            after, before = rest
            answer = await self._walk(lambda number: PurgePage(number, query, after, before))  # noqa: B023 - awaited here
            purged += answer["purged"]
            rest = _span(answer["rest"])
            if clock.monotonic() >= until:
                break
        return {"purged": purged, "next": cursor_of(rest)}

    async def _purge_named(self, names: list[str]) -> int:
        """All of them, or, where one is unknown or has not ended, none."""
        ids: dict[str, bytes] = {}
        for name in names:
            task = (await self._ask(lambda number: DescribeTask(number, name)))["task"]  # noqa: B023 - awaited here
            if task["completed"] is None:
                raise ControlError(
                    f"task {task['short']} has not ended: it is {task['state']}", hint="nothing was purged"
                )
            ids[task["id"]] = _wire_id(task["id"])
        chosen = list(ids.values())
        purged = 0
        for start in range(0, len(chosen), PURGED_AT_ONCE):
            some = chosen[start : start + PURGED_AT_ONCE]
            purged += (await self._ask(lambda number: PurgeTasks(number, some)))["purged"]  # noqa: B023 - awaited here
        return purged

    # --- how ---

    def _selected(self, request: TasksQuery | TasksPurge) -> tuple[Selection, dict[str, Any]]:
        selection = msgspec.convert(request, Selection, from_attributes=True)
        default_set = self._default_set() if (selection.engine or "").isdecimal() else ""
        return selection, selection.query(default_set)

    def _source(self) -> str:
        """`controller`, or `file` while there is none.

        Raises:
            NoRecords: nothing is kept.
            ControllerLost: what is kept cannot be asked for now.
        """
        if self._link.is_up:
            return "controller"
        database = self._profile().controller.database
        if database == "sqlite" and self._file.exists():
            return "file"
        if database == "none":
            raise NoRecords(
                "no records of tasks are kept (database: none)",
                hint="set `controller.database` in the profile to memory, sqlite or mongodb",
            )
        text = "the controller does not run, and what it remembers of tasks is "
        match database:
            case "memory":
                raise ControllerLost(
                    f"{text}gone with it (database: memory)",
                    hint="with `controller.database: sqlite` in the profile records outlive it",
                )
            case "sqlite":
                raise ControllerLost(
                    f"the controller does not run, and there is no {self._file}: nothing was recorded yet"
                )
            case _:
                raise ControllerLost(f"{text}for it to ask for (database: {database})", hint="clusterctl start")

    async def _page(self, source: str, query: dict[str, Any], span: Span, limit: int, request: TasksQuery) -> _Page:
        is_newest_first = not request.oldest_first
        if source == "controller":
            after, before = span
            answer = await self._walk(
                lambda number: PageTasks(number, query, limit, after, before, is_newest_first, request.full)
            )
            return answer["tasks"], _span(answer["rest"])
        from clusterd.storage.taskstore.archive import read_page  # noqa: PLC0415 - as above

        return await asyncio.to_thread(
            read_page, self._file, query, span, limit, is_newest_first=is_newest_first, is_full=request.full
        )

    async def _walk(self, make: Callable[[int], Any]) -> dict[str, Any]:
        """Ask for a page; where others follow, let the controller have as much time for everybody else as this one took it."""
        began = clock.monotonic()
        answer = await self._ask(make)
        if answer["rest"] is not None:
            await asyncio.sleep(clock.monotonic() - began)
        return answer

    async def _ask(self, make: Callable[[int], Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE):
                answer: dict[str, Any] = await self._link.request(make)
        except TimeoutError:
            raise ControlError(
                f"the controller did not answer within {PATIENCE:g} s",
                code="no_answer",
                hint="clusterctl status says how it is",
            ) from None
        return answer


def _span(rest: list[int] | None) -> Span | None:
    return None if rest is None else span_of(f"{rest[0]}:{rest[1]}")


def _wire_id(name: str) -> bytes:
    """The bytes behind the hex digits of a task of ours, the text itself of a stock client's."""
    try:
        return bytes.fromhex(name)
    except ValueError:
        return name.encode()
