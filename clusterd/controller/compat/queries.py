"""What the hub answers stock clients about tasks and queues: (request, content) -> (reply, content, buffers), or `Refused`.

Shapes and names of errors are those that ipyparallel's Client relies on, down to the set of keys in `io` and the order of buffers.
Two faults of ipcontroller are not copied: `$gt` compares the right way round, and retried tasks are counted where they are.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STOCK
from clusterd.errors import BadQuery, ClusterdError, NoRecords, UnknownTask
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.record import (
    BUFFERS,
    FIELDS,
    RECORD,
    header_of,
    record_of,
    request_buffers,
    result_buffers,
)
from clusterd.storage.taskstore.row import HIDDEN, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterd.controller.queues import Outstanding
    from clusterd.storage.taskstore.base import TaskStore
    from clusterd.storage.taskstore.row import TaskRow

    Answer = tuple[str, dict[str, Any], list[Any]]

MAX_RECORDS: Final = 100_000
"""Of one db_request: more would hold up everybody else for seconds."""
_IO: Final = ("execute_input", "execute_result", "error", "stdout", "stderr")
_RESULT: Final = ("header", "metadata", "result_header", "result_metadata", "result_content", "received", *_IO)


class Refused(Exception):
    """An answer of msg_type hub_error.

    Attributes:
        ename, evalue: as Python would have it; clients match `ename`.
    """

    def __init__(self, ename: str, evalue: str) -> None:
        super().__init__(f"{ename}: {evalue}")
        self.ename = ename
        self.evalue = evalue


class Queries:
    """Answers questions.

    Args:
        store: the records.
        engines: names of the registered engines by wire id.
        outstanding: unfinished tasks.
        completed: how many tasks each engine has completed, by wire id.
        submit: runs the request of a row once more, under another msg_id and with another header (JSON), as balanced work.
        new_id: makes a msg_id.
    """

    def __init__(
        self,
        store: TaskStore,
        *,
        engines: Callable[[], Mapping[int, str]],
        outstanding: Callable[[], Outstanding],
        completed: Callable[[], Mapping[int, int]],
        submit: Callable[[TaskRow, str, bytes], None],
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._store = store
        self._engines = engines
        self._outstanding = outstanding
        self._completed = completed
        self._submit = submit
        self._new_id = new_id
        self._answers: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], list[Any]]]] = {
            "connection_request": self._connection,
            "queue_request": self._queue,
            "result_request": self._result,
            "history_request": self._history,
            "db_request": self._db,
            "purge_request": self._purge,
            "resubmit_request": self._resubmit,
        }

    def answer(self, msg_type: str, content: dict[str, Any], now: float | None = None) -> Answer:
        """Answer one request.

        Args:
            msg_type: of the request.
            content: likewise.
            now: seconds since the epoch; for the date of what is run once more.

        Raises:
            Refused: it has no answer; says why in the client's words.
        """
        answer = self._answers.get(msg_type)
        if answer is None:
            raise Refused("KeyError", f"Bad Message Type: {msg_type!r}")
        self._now = time.time() if now is None else now
        try:
            reply, buffers = answer(content)
        except UnknownTask as error:
            raise Refused("KeyError", f"No such message: {error.task}") from error
        except NoRecords as error:
            raise Refused("KeyError", f"NoData: {error.message}") from error
        except BadQuery as error:
            raise Refused("ValueError", str(error)) from error
        except ClusterdError as error:
            raise Refused("RuntimeError", str(error)) from error
        return msg_type.replace("_request", "_reply"), {"status": "ok", **reply}, buffers

    # --- engines and queues ---

    def _connection(self, _content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        return {"engines": {str(engine): name for engine, name in self._engines().items()}}, []

    def _queue(self, content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        engines = self._engines()
        wanted = self._targets(content.get("targets"), engines)
        waits = self._outstanding()
        reply: dict[str, Any] = {}
        if content.get("verbose"):
            ended = self._ended([engines[engine] for engine in wanted])
            for engine in wanted:
                reply[str(engine)] = {
                    "queue": waits.queue.get(engine, []),
                    "completed": ended.get(engines[engine], []),
                    "tasks": waits.tasks.get(engine, []),
                }
        else:
            completed = self._completed()
            for engine in wanted:
                reply[str(engine)] = {
                    "queue": len(waits.queue.get(engine, ())),
                    "completed": completed.get(engine, 0),
                    "tasks": len(waits.tasks.get(engine, ())),
                }
        # The only other key: clients take every key but this and `status` for an engine's id.
        reply["unassigned"] = waits.unassigned if content.get("verbose") else len(waits.unassigned)
        return reply, []

    def _ended(self, names: list[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self._store.query(parse({"engine_uuid": {"$in": names}, "completed": {"$ne": None}})):
            found.setdefault(row.engine, []).append(row.msg_id)
        return found

    @staticmethod
    def _targets(targets: Any, engines: Mapping[int, str]) -> list[int]:
        if targets is None:
            return list(engines)
        ids = {name: engine for engine, name in engines.items()}
        chosen: list[int] = []
        for target in targets if isinstance(targets, list) else [targets]:
            engine = ids.get(target) if isinstance(target, str) else target
            if isinstance(engine, bool) or not isinstance(engine, int) or engine not in engines:
                raise Refused("IndexError", f"No such engine: {target!r}")
            chosen.append(engine)
        return chosen

    # --- records ---

    def _result(self, content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        is_status_only = bool(content.get("status_only"))
        pending: list[str] = []
        completed: list[str] = []
        results: dict[str, Any] = {}
        buffers: list[Any] = []
        # Clients share the buffers out in this order, whatever order they asked in.
        for msg_id in sorted(set(_ids(content))):
            row = self._store.get(msg_id, buffers=not is_status_only)
            if row.queue == WHOLE:
                raise UnknownTask(msg_id)
            if row.outcome is None:
                pending.append(msg_id)
                continue
            completed.append(msg_id)
            if not is_status_only:
                record = record_of(row, _RESULT)
                del record["msg_id"]
                record["io"] = {name: record.pop(name) for name in _IO}
                results[msg_id] = record
                buffers.extend(result_buffers(row))
        return {"pending": pending, "completed": completed, **results}, buffers

    def _history(self, _content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        return {"history": self._store.history()}, []

    def _db(self, content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        query = parse(_dict(content.get("query") or {}, "query"))
        keys = content.get("keys")
        if keys is not None:
            keys = _texts(keys, "keys")
            unknown = [key for key in keys if key not in FIELDS]
            if unknown:
                raise Refused("KeyError", f"records have no {unknown[0]!r}")
        asks = BUFFERS.intersection(keys or ())
        rows = self._store.query(query, limit=MAX_RECORDS + 1, buffers=bool(asks))
        if len(rows) > MAX_RECORDS:
            raise Refused("ValueError", f"more than {MAX_RECORDS} records match: ask for fewer at once")
        shown = RECORD if keys is None else [key for key in keys if key not in BUFFERS]
        lengths: dict[str, list[int]] = {name: [] for name in asks}
        buffers: list[Any] = []
        for row in rows:
            for name, of in (("buffers", request_buffers), ("result_buffers", result_buffers)):
                if name in asks:
                    mine = of(row)
                    lengths[name].append(len(mine))
                    buffers.extend(mine)
        reply = {
            "records": [record_of(row, shown) for row in rows],
            "buffer_lens": lengths.get("buffers"),
            "result_buffer_lens": lengths.get("result_buffers"),
        }
        return reply, buffers

    def _purge(self, content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        msg_ids = content.get("msg_ids") or []
        engines = self._engines()
        names = [engines[engine] for engine in self._targets(content.get("engine_ids") or [], engines)]
        if msg_ids == "all":
            self._store.purge_matching(parse({}))
            return {}, []
        wanted = _texts(msg_ids, "msg_ids")
        for row in self._store.query(parse({"msg_id": {"$in": wanted}, "completed": None}), limit=1) if wanted else ():
            # All or nothing: nobody should have to find out what of it was done.
            raise Refused("IndexError", f"msg pending: {row.msg_id!r}")
        self._store.purge(wanted)
        for name in names:
            self._store.purge_matching(parse({"engine_uuid": name}))
        return {}, []

    def _resubmit(self, content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        msg_ids = _ids(content)
        rows: list[TaskRow] = []
        unknown: list[str] = []
        for msg_id in msg_ids:
            try:
                rows.append(self._store.get(msg_id))
            except UnknownTask:
                unknown.append(msg_id)
        if unknown:
            raise Refused("KeyError", f"No such msg(s): {unknown}")
        for row in rows:
            # Before the first is run: all or none.
            if row.kind != STOCK:
                raise Refused("ValueError", f"task {row.msg_id} was submitted by a client of clusterd")
            if not row.is_whole:
                why = (
                    "of a broadcast are kept for its controller alone"
                    if row.queue in HIDDEN
                    else "were too large to be kept"
                )
                raise Refused("ValueError", f"the arguments of task {row.msg_id} {why}")
        resubmitted: dict[str, str] = {}
        for row in rows:
            new_id = self._new_id()
            self._submit(row, new_id, header_again(row, new_id, self._now))
            row.resubmitted = resubmitted[row.msg_id] = new_id
            self._store.update(row)
        return {"resubmitted": resubmitted}, []


def header_again(row: TaskRow, msg_id: str, now: float) -> bytes:
    """The header of a request that is run once more: the old one with another id and date."""
    return jupyter.json_of({**header_of(row), "msg_id": msg_id, "date": jupyter.date_of(now)})


def _ids(content: dict[str, Any]) -> list[str]:
    return _texts(content.get("msg_ids") or [], "msg_ids")


def _texts(value: Any, what: str) -> list[str]:
    try:
        return msgspec.convert([value] if isinstance(value, str) else value, list[str])
    except msgspec.ValidationError as error:
        raise Refused("TypeError", f"{what}: {error}") from error


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused("TypeError", f"{what} must be a dict, not {value!r}")
    return value
