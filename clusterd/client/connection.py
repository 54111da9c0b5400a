"""A client's place at the controller: the books, the loop that serves them, and the thread that turns it.

Users' threads leave work in the books and ring. Invariants: whatever ends the thread, every future is ended first, so nobody waits
for ever; in a forked child nothing of it is used.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

from clusterd.client.book import TaskBook
from clusterd.client.engines import EngineBook
from clusterd.client.helm import Helm
from clusterd.client.loop import Loop
from clusterd.client.requests import Requests
from clusterd.client.wake import Alarm
from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError, ControllerLost, TaskAborted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.client.future import LightFuture
    from clusterd.client.task import TaskFuture
    from clusterd.core.model.connection import NativeEndpoints

log = logging.getLogger("clusterd.client")
# close() waits for the thread, which says goodbye and ends in milliseconds.
CLOSE_TIMEOUT = 5.0
CANCEL_TIMEOUT = 5.0
# A recall takes some milliseconds; one that takes longer is most likely of a task that runs.
RECALL_SECONDS = 0.25
_open: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """Everything of a client that its views and futures need.

    Args:
        endpoints: called at each dial for the connection file as it is then.
        label: free text for `status`.
        controller_timeout: seconds without a controller after which all that is unfinished fails.
    """

    def __init__(self, endpoints: Callable[[], NativeEndpoints], *, label: str, controller_timeout: float) -> None:
        # Guards the states of futures that nobody waits for; held for nanoseconds.
        self.lock = threading.Lock()
        self.alarm = Alarm()
        self.tasks = TaskBook(self, self.alarm)
        self.requests = Requests(self.alarm)
        self.engines = EngineBook()
        self.loop = Loop(
            endpoints,
            self.tasks,
            self.requests,
            self.engines,
            self.alarm,
            uuid=os.urandom(16),
            label=label,
            controller_timeout=controller_timeout,
        )
        self._helm = Helm(self.loop, self.alarm)
        self.tasks.room.is_exempt = self._is_turning
        self.tasks.post = self._helm.post
        self._thread = threading.Thread(target=self._run, name="clusterd-client", daemon=True)
        _open.add(self)

    def start(self) -> None:
        """Begin to dial."""
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """True after `close`, or when the connection has ended for good."""
        return self.loop.is_over

    @property
    def is_turning(self) -> bool:
        """True in callbacks: this very thread carries messages now, and must not wait for one."""
        return self._helm.is_turning

    def _is_turning(self) -> bool:
        return self._helm.is_turning

    def check_may_wait(self) -> None:
        """Raise where waiting could never end."""
        if self._helm.is_turning:
            raise RuntimeError(
                "a callback of a client cannot wait for another result: it would wait for itself. Chain callbacks, or "
                "hand the work to a thread."
            )
        if self.tasks.refusal is _forked:
            raise _forked()

    def attend(self, future: LightFuture, deadline: float | None) -> None:
        """Carry messages from this thread until the future has ended, if nobody else's turn it is; may return before."""
        self._helm.drive(future, deadline)
        # What was submitted without a ring, by somebody who meant to attend to it.
        if self.tasks.queue:
            self.alarm.ring()

    def look(self) -> None:
        """Somebody asks how a future stands, and does not wait: have the I/O thread read what may have come."""
        if self.alarm.is_awaited and not self._helm.is_driven and not self.loop.is_quiet:
            self._helm.recall()

    def is_acknowledged(self, future: TaskFuture) -> bool:
        """See `TaskFuture`."""
        self.look()
        return future._is_sent and all(future is not awaited for awaited in self.tasks.receipts.awaited())  # noqa: SLF001

    def end_early(self, futures: Sequence[TaskFuture], *, is_cancelling: bool, is_waiting: bool = True) -> int:
        """Cancel or abort what has not begun; the number that is known to have ended.

        Args:
            futures: which.
            is_cancelling: they end as cancelled, else with TaskAborted.
            is_waiting: wait for the controller's answer; never done in a callback or an event loop.
        """
        for future in futures:
            future._is_cancelling = is_cancelling  # noqa: SLF001 - one machine
        queued = self.tasks.take_queued(futures)
        for future in queued:
            future._fail(None if is_cancelling else TaskAborted("the task was aborted before it was sent"))  # noqa: SLF001
        known = set(map(id, queued))
        sent = [future for future in futures if id(future) not in known and not future.done()]
        if not sent or self.requests.refusal is not None:
            return len(queued)
        answer = self.requests.ask(m.Abort, [future._id for future in sent], None)  # noqa: SLF001
        if not is_waiting or self.is_turning or is_in_event_loop():
            return len(queued)
        try:
            aborted = int(answer.result(CANCEL_TIMEOUT).get("aborted", 0))
        except (TimeoutError, ControllerLost):
            return len(queued)
        # What an engine holds is called back, and nobody can say yet which of it has begun.
        deadline = time.monotonic() + RECALL_SECONDS
        for future in sent:
            future.wait(max(0.0, deadline - time.monotonic()))
        return len(queued) + max(aborted, sum(future.was_ended_early for future in sent))

    # --- the end ---

    def close(self) -> None:
        """Say goodbye and end; what is unfinished fails. Idempotent, from any thread."""
        if self.tasks.refusal is _forked:
            return
        self.loop.is_over = True
        self._helm.recall()
        if self._thread.ident is None:
            self._end()
        elif not self.is_turning:
            self._thread.join(CLOSE_TIMEOUT)

    def release(self) -> None:
        """The client was dropped: end as soon as nothing is unfinished."""
        if self.tasks.refusal is _forked:
            return
        self.loop.is_orphan = True
        self.alarm.ring()

    def forked(self) -> None:
        """In a forked child, before anything else: sockets, thread and locks belong to the parent."""
        self.lock = threading.Lock()
        # Whatever thread held them at the fork does not exist here.
        for part in (self.tasks, self.tasks.functions, self.requests, self.alarm):
            part.renew_lock()
        self.tasks.refusal = self.requests.refusal = _forked
        self.loop.is_over = True

    def _run(self) -> None:
        try:
            self.loop.open()
            self._helm.run()
        except Exception as error:
            log.exception("the I/O thread of a client failed")
            self.loop.fatal = ClusterdError(f"the client failed inside: {type(error).__name__}: {error}")
            self.loop.is_over = True
        finally:
            with self._helm.held():
                self._end()

    def _end(self) -> None:
        fatal = self.loop.fatal
        final = _closed if fatal is None else lambda: fatal
        self.tasks.end_all(final, is_final=True)
        self.requests.end_all(final, is_final=True)
        self.loop.ready.set()
        self.engines.wake()
        self.loop.close()
        self.alarm.close()
        _open.discard(self)


def is_in_event_loop() -> bool:
    """True when this thread runs an asyncio loop right now."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - documented as for such use


def _closed() -> ClusterdError:
    return TaskAborted("the client was closed", hint="Results have to be fetched before close(), or within `with`.")


def _forked() -> ClusterdError:
    return ClusterdError(
        "this client belongs to the parent process", hint="Make a new clusterd.Client in the child, or use spawn."
    )


def _after_fork() -> None:
    for connection in list(_open):
        connection.forked()


def _at_exit() -> None:
    for connection in list(_open):
        connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
