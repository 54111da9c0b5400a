"""What a client asks of its controller, and commands: queues, engines, records of tasks, and running such a task once more.

Everything here goes over the control connection and waits for the answer, so never behind a large payload.
"""

# ruff: noqa: SLF001 - a client, its connection and its futures are one machine
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.client import reruns
from clusterd.client.aggregate import AggregateFuture
from clusterd.client.future import LightFuture
from clusterd.client.maps import MapFuture
from clusterd.client.task import TaskFuture
from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError, ControllerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from clusterd.client.connection import Connection

REQUEST_TIMEOUT = 30.0
MAX_RECORDS = 2**32 - 1
# Bounds of the wire's TaskId.
_MAX_ID = 64


class Asking:
    """The part of a client that asks; see `client.Client`."""

    _connection: Connection

    # --- queues ---

    def queue_status(self, targets: Any = None) -> dict[str, Any]:
        """What waits and runs: {"engines": {id: {"queued", "running", "prefetched", "completed"}}, "unassigned", "clients"}."""
        engines = None if targets is None else self._select(targets)[0]
        status: dict[str, Any] = self._ask(m.QueueStatus, engines)
        return status

    # --- commands ---

    def interrupt(self, targets: Any = "all") -> list[int]:
        """Raise KeyboardInterrupt in what the engines run. Returns the ids that were reached."""
        return self._command(targets, "interrupt")

    def stop(self, targets: Any) -> list[int]:
        """End engines politely. Their slots are filled again unless the set is scaled down (`clusterctl scale`)."""
        return self._command(targets, "stop")

    def kill(self, targets: Any) -> list[int]:
        """End engines at once."""
        return self._command(targets, "kill")

    def restart(self, targets: Any) -> list[int]:
        """End engines and have new ones, with new ids, in their place."""
        return self._command(targets, "restart")

    def _command(self, targets: Any, command: str) -> list[int]:
        engines = self._select(targets)[0]
        answer = self._ask(m.EngineCommand, engines, command)
        failed = answer.get("failed", {})
        if failed:
            reasons = "; ".join(f"engine {engine}: {reason}" for engine, reason in sorted(failed.items()))
            raise ClusterdError(f"{command} failed for {len(failed)} of {len(engines)} engines: {reasons}")
        return sorted(int(engine) for engine in answer.get("done", []))

    # --- records of tasks ---

    def history(self, limit: int = 10_000) -> list[str]:
        """The ids (`future.task_id`) of the tasks that the controller has records of, of all clients, oldest first.

        Args:
            limit: at most so many.
        """
        return [record["msg_id"] for record in self.task_records(keys=["msg_id"], limit=limit)]

    def task_records(
        self, query: Mapping[str, Any] | None = None, *, keys: Sequence[str] | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """What the controller has on record of tasks, of all clients.

        `client.task_records({"label": "fit", "completed": {"$gt": an_hour_ago}}, keys=["status", "engine_id", "started"])`

        Args:
            query: conditions that must all hold, `{field: value}` or `{field: {operator: value}}`; operators are $eq $ne $lt $lte
                $gt $gte $in $nin $all $mod $glob $exists. Fields are those of ipyparallel's records (msg_id, label,
                submitted, started, completed, queue, client_uuid, engine_uuid, stdout, stderr, resubmitted, ...) and
                status, engine_id, attempt, name (of the function) and place (`engines/3 PID HOST`). None: every task.
            keys: fields that are wanted, beside msg_id; None: all but buffers, result_buffers and our own five.
            limit: at most so many records, the oldest.

        Returns:
            A dict for each task, in the order in which the controller got them; times are datetimes in UTC.

        Raises:
            BadQuery: the query, or a key, makes no sense; says what is wrong.
            NoRecords: the controller keeps none (`database: none`).
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MAX_RECORDS:
            raise ValueError(f"limit is a number of records, not {limit!r}")
        if isinstance(keys, str):
            raise TypeError(f"keys is a list of fields, not {keys!r}")
        conditions = _plain(dict(query or {}), "the query")
        wanted = None if keys is None else _plain(list(keys), "keys")
        records: list[dict[str, Any]] = self._ask(m.QueryTasks, conditions, wanted, limit)
        return records

    def resubmit(self, tasks: Any) -> Any:
        """Run tasks that are on record once more, on whichever engine is free, with their arguments of then.

        Args:
            tasks: a future or an id (`future.task_id`, or `msg_id` of a record), or a list of them; also what a call on several
                engines, or a map, returned.

        Returns:
            A future for one, else a list of futures. They are new tasks with ids of their own. By a future of this
            client the result is what that one's would be; by an id it is the raw value (of a cell its text, of a pull a
            list, of a chunk of a map the list of its results).

        Raises:
            UnknownTask: the controller has no record of one of them; nothing is run then.
        """
        is_single = isinstance(tasks, (str, TaskFuture))
        chosen = list(_tasks(tasks))
        if not chosen:
            return []
        self._check()
        connection = self._connection
        originals = [task if isinstance(task, TaskFuture) else None for task in chosen]
        ids = [_id(task) for task in chosen]
        futures = reruns.expect(connection, connection.tasks, ids, originals)
        try:
            self._ask(m.Resubmit, ids, [future._id for future in futures])
        except BaseException as error:
            connection.tasks.withdraw(futures, error)
            raise
        return futures[0] if is_single else futures

    def purge_tasks(self, tasks: Any = None) -> int:
        """Have the controller forget its records of tasks that have ended; results that futures hold stay.

        Args:
            tasks: as for `resubmit`; None: all.

        Returns:
            How many records that were.
        """
        chosen = None if tasks is None else [_id(task) for task in _tasks(tasks)]
        return int(self._ask(m.PurgeTasks, chosen).get("purged", 0))

    # --- how ---

    def _select(self, targets: Any) -> tuple[list[int], bool]:
        self._check()
        return self._connection.engines.select(targets)

    def _check(self) -> None:
        refusal = self._connection.tasks.refusal
        if refusal is not None:
            raise refusal()

    def _ask(self, kind: Callable[..., Any], *fields: Any) -> Any:
        if self._connection.is_turning:
            raise RuntimeError("a callback of a client cannot wait for the controller's answer: use a thread")
        answer = self._connection.requests.ask(kind, *fields)
        try:
            return answer.result(REQUEST_TIMEOUT)
        except TimeoutError:
            answer.cancel()
            raise ControllerLost(
                f"the controller did not answer {kind.__name__} within {REQUEST_TIMEOUT:g} s"
            ) from None


def _plain(value: Any, what: str) -> Any:
    """What travels as it is; a mistake must show here, not in the thread that sends."""
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise TypeError(f"{what} can hold text, numbers, times, lists and dicts alone: {error}") from error


def _tasks(tasks: Any) -> Iterator[TaskFuture | str]:
    if isinstance(tasks, (TaskFuture, str)):
        yield tasks
    elif isinstance(tasks, (AggregateFuture, MapFuture)):
        yield from tasks.tasks
    elif isinstance(tasks, LightFuture) or not hasattr(tasks, "__iter__"):
        raise TypeError(f"a task is named by its future or its id, not by {tasks!r}")
    else:
        several: Iterable[Any] = tasks
        for task in several:
            yield from _tasks(task)


def _id(task: TaskFuture | str) -> bytes:
    """The id on the wire: the bytes behind the hex digits of a task of ours, the text itself of a stock client's."""
    if isinstance(task, TaskFuture):
        return task._id
    try:
        found = bytes.fromhex(task)
    except ValueError:
        found = task.encode()
    if not 1 <= len(found) <= _MAX_ID:
        raise ValueError(f"{task!r} is not the id of a task")
    return found
