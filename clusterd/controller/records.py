"""Answers what clients ask of the records of tasks, natively: QueryTasks, Resubmit, PurgeTasks.

A cluster has one owner, and whoever has its key may see all of its tasks, as stock clients do: a notebook that was restarted finds
what it ran before. What is run once more is a task of who asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.core.wire.codec import encode
from clusterd.core.wire.messages import STOCK, ErrorReply, PurgeTasks, QueryTasks, Reply, Resubmit, Submit, TaskOptions
from clusterd.core.wire.session import payload_digest
from clusterd.errors import BadQuery, ClusterdError, UnknownTask
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.record import BUFFERS, FIELDS, record_of

if TYPE_CHECKING:
    from clusterd.controller.peers import Client
    from clusterd.controller.tasks import Tasks
    from clusterd.storage.taskstore.base import TaskStore
    from clusterd.storage.taskstore.row import TaskRow

MAX_REPLY: Final = 12 * 1024**2
"""Bytes of one answer: a header takes 16 MiB, and the control connection carries other things as well."""
_RECORD_BYTES: Final = 2000


class Records:
    """The native way to the records.

    Args:
        store: where they are.
        tasks: takes what is run once more.
    """

    def __init__(self, store: TaskStore, tasks: Tasks) -> None:
        self._store = store
        self._tasks = tasks

    def answer(
        self, client: Client, message: QueryTasks | Resubmit | PurgeTasks, now: float
    ) -> tuple[Reply | ErrorReply, int]:
        """The answer, and its size near enough."""
        try:
            if isinstance(message, QueryTasks):
                records, size = self._query(message)
                return Reply(message.request, records), size
            if isinstance(message, Resubmit):
                return Reply(message.request, {"resubmitted": self._resubmit(client, message, now)}), 256
            return Reply(message.request, {"purged": self._purge(message)}), 64
        except ClusterdError as error:
            return ErrorReply(message.request, error.code, error.message, error.hint), 512

    def _query(self, message: QueryTasks) -> tuple[list[dict[str, Any]], int]:
        query = parse(message.query)
        for key in message.keys or ():
            if key not in FIELDS:
                raise BadQuery(f"records have no field {key!r}", hint=f"Fields: {', '.join(sorted(FIELDS))}.")
        asks_buffers = not BUFFERS.isdisjoint(message.keys or ())
        records: list[dict[str, Any]] = []
        size = 0
        for row in self._store.query(query, limit=message.limit, buffers=asks_buffers):
            record = record_of(row, message.keys)
            for name in BUFFERS.intersection(record):
                # Whatever memory they lie in: MessagePack knows bytes.
                record[name] = [bytes(buffer) for buffer in record[name]]
                size += sum(map(len, record[name]))
            size += _RECORD_BYTES + len(record.get("stdout", "")) + len(record.get("stderr", ""))
            if size > MAX_REPLY:
                raise _too_large()
            records.append(record)
        # What was counted on the way leaves out tracebacks, labels and the like.
        size = len(encode(records))
        if size > MAX_REPLY:
            raise _too_large()
        return records, size

    def _resubmit(self, client: Client, message: Resubmit, now: float) -> list[bytes]:
        if len(message.tasks) != len(message.new_ids):
            raise BadQuery(f"{len(message.new_ids)} new ids for {len(message.tasks)} tasks")
        is_again = message.is_asked_again
        rows = [
            # What was made of it outlives its original, which may have been purged.
            self._store.get(self._known(new_id, task) if is_again else self._known(task))
            for task, new_id in zip(message.tasks, message.new_ids, strict=True)
        ]
        for row in rows:
            if row.kind == STOCK:
                raise BadQuery(f"task {row.msg_id} came from a stock client, whose results are made for stock clients")
            if not row.is_whole:
                raise BadQuery(f"the arguments of task {row.msg_id} were too large to be kept")
            if row.function and self._tasks.functions.get(row.function) is None:
                # Not even its own client is asked: it lets go of a function when the last task that names it has ended.
                raise BadQuery(f"the function of task {row.msg_id} is not here any more", hint="Submit the call anew.")
        for row, new_id in zip(rows, message.new_ids, strict=True):
            self._submit_again(client, row, new_id, now, is_offered_again=is_again)
            if row.msg_id != new_id.hex():
                row.resubmitted = new_id.hex()
                self._store.update(row)
        return list(message.new_ids)

    def _submit_again(self, client: Client, row: TaskRow, new_id: bytes, now: float, *, is_offered_again: bool) -> None:
        options = TaskOptions(label=row.label) if row.label else None
        submit = Submit(
            new_id, row.kind, row.function, None, row.body, len(row.buffers), options, is_offered_again=is_offered_again
        )
        digests = [payload_digest(frame) for frame in row.buffers]
        self._tasks.receive_client(client, [submit], row.buffers, digests, now)

    def _purge(self, message: PurgeTasks) -> int:
        if message.tasks is None:
            return self._store.purge_matching(parse({}))
        return self._store.purge([msg_id for task in message.tasks for msg_id in _names(task)])

    def _known(self, *tasks: bytes) -> str:
        """What the first of them that is on record is called there; they stand for the last one."""
        for msg_id in (name for task in tasks for name in _names(task)):
            try:
                return self._store.get(msg_id, buffers=False).msg_id
            except UnknownTask:
                continue
        raise UnknownTask(_names(tasks[-1])[0])


def _too_large() -> BadQuery:
    return BadQuery(
        f"the answer would be larger than {MAX_REPLY >> 20} MiB", hint="Ask for fewer records or keys at once."
    )


def _names(task: bytes) -> list[str]:
    """What a task with this id may be called: ours go by hex digits, those of stock clients by their text."""
    try:
        text = task.decode("ascii")
    except UnicodeDecodeError:
        return [task.hex()]
    return [task.hex(), text]
