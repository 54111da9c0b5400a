"""Runs a Jupyter request and makes the reply: apply, execute, and messages for comms.

As for other tasks: user code runs in the main thread and in the one namespace, nothing that it does leaves `run` as an exception, and
KeyboardInterrupt is raised at most once a task. What it shows is published while it runs (`live`).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from IPython.core import page
from IPython.core.error import TryNext

from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from clusterd.engine.executor import Outcome, Stopped
from clusterd.engine.stock import library, replies
from clusterd.engine.stock.kernel import Kernel
from clusterd.engine.stock.live import Live
from clusterd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.engine.executor import Executor
    from clusterd.link import Link

_OK = {"status": "ok"}


class StockRunner:
    """The one of an engine.

    Args:
        executor: whose namespace, shell and signals these tasks share.
        link: the engine's, for output.
        uuid: of the engine.
    """

    def __init__(self, executor: Executor, link: Link, uuid: bytes) -> None:
        self._executor = executor
        self._namespace = executor.namespace
        self._shell = executor.namespace.shell
        self._live = Live(link, executor)
        self._comms = library.Comms(self._live)
        self._identity = replies.Identity(uuid)
        self._kernel = Kernel(self._identity)
        if hasattr(type(self._shell), "kernel"):
            # The zygote has rehearsed with another one.
            self._shell.kernel = self._kernel
        # ipyparallel.serialize, once it was needed.
        self._library: Any = None
        self._by_type: dict[str, Callable[[jupyter.Request, Sequence[Any]], tuple[dict[str, Any], list[Any]]]] = {
            "apply_request": self._apply,
            "execute_request": self._execute,
            "comm_open": self._comm,
            "comm_msg": self._comm,
            "comm_close": self._comm,
        }
        # Of the task that runs, or ran last.
        self._type = ""
        self._metadata: dict[str, Any] = {}
        _page_through_reply(self._shell)

    def run(
        self, dispatch: m.Dispatch, engine_id: int, body: Any, frames: Sequence[Any]
    ) -> tuple[Outcome, list[tuple[m.Published, Sequence[Any]]]]:
        """Run one task to its end.

        Args:
            dispatch: says which.
            engine_id: what clients call this engine.
            body: the request, packed.
            frames: its buffers.

        Returns:
            Its outcome, and output (with frames) that has to be sent before that because the link did not take it yet.

        Raises:
            Stopped: SIGTERM ended it; there is no outcome.
        """
        self._identity.id = engine_id
        self._live.begin(dispatch.task, dispatch.attempt)
        self._shell.live = self._live
        try:
            outcome = self._run(body, frames)
        finally:
            self._shell.live = None
            unsent = self._live.finish()
            self._kernel.wake()
        return outcome, unsent

    def take_events(self) -> list[Any]:
        """What the link said during the last task."""
        return self._live.take_events()

    def _run(self, body: Any, frames: Sequence[Any]) -> Outcome:
        started = time.time()
        clock = time.perf_counter()
        packed: list[Any] = []
        self._type, self._metadata = "", {}
        self._comms.install()
        try:
            request = jupyter.unpack_request(body)
            self._type = jupyter.header_of(request.header).msg_type
            self._metadata = jupyter.dict_of(request.metadata, "metadata")
            run = self._by_type.get(self._type)
            if run is None:
                raise TaskError(f"engines know no {self._type}", hint=f"They know {', '.join(self._by_type)}.")  # noqa: TRY301
            content, packed = self._executor.call(run, request, frames)
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the task's
            content = self._failure(error)
        finished = started + (time.perf_counter() - clock)
        return self._outcome(content, packed, started, finished)

    def refuse(self, error: TaskError, outcome: Outcome) -> Outcome:
        """The outcome of the task that ran last when its result cannot be sent."""
        content = replies.failure(error, str(error).splitlines(), self._identity, self._method)
        return self._outcome(content, [], outcome.started, outcome.finished)

    def _outcome(self, content: dict[str, Any], packed: list[Any], started: float, finished: float) -> Outcome:
        metadata = replies.metadata(self._identity, self._metadata, started, content)
        body = jupyter.pack_reply(jupyter.Reply(replies.plain_json(metadata), replies.plain_json(content)))
        status = m.STATUS_OK
        if content["status"] != "ok":
            status = m.STATUS_ERROR if metadata["dependencies_met"] else m.STATUS_UNMET
        return Outcome(status, body, packed, started, finished)

    @property
    def _method(self) -> str:
        return "execute" if self._type == "execute_request" else "apply"

    # --- the requests ---

    def _apply(self, _request: jupyter.Request, frames: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        serialize = self._library
        if serialize is None:
            serialize = self._library = library.load(self._shell, self._kernel)
            self._comms.install()
        names = self._namespace.names
        function, args, kwargs = serialize.unpack_apply_message(frames, names)
        if self._namespace.kept:
            with self._namespace.linked(()):
                value = function(*args, **kwargs)
        else:
            value = function(*args, **kwargs)
        # Pickling runs user code too.
        return _OK, [replies.flat(part) for part in serialize.serialize_object(value)]

    def _execute(self, request: jupyter.Request, _frames: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        asked = jupyter.dict_of(request.content, "content")
        code = str(asked.get("code", ""))
        is_silent = bool(asked.get("silent", False))
        shell = self._shell
        count = shell.execution_count
        if not is_silent:
            self._live.publish("execute_input", {"code": code, "execution_count": count})
        with self._namespace.linked(()):
            error = shell.run_request(code, is_silent=is_silent)
        if not is_silent and asked.get("store_history", True):
            shell.execution_count = count + 1
        else:
            count -= 1
        if isinstance(error, Stopped):
            raise error
        content = dict(_OK) if error is None else self._failure(error)
        expressions = asked.get("user_expressions")
        values = shell.user_expressions(expressions) if error is None and isinstance(expressions, dict) else {}
        content |= {
            "execution_count": count,
            "user_expressions": values,
            "payload": shell.payload_manager.read_payload(),
        }
        shell.payload_manager.clear_payload()
        return content, []

    def _comm(self, request: jupyter.Request, frames: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        message = {
            "header": jupyter.dict_of(request.header, "header"),
            "parent_header": jupyter.dict_of(request.parent, "parent header"),
            "metadata": self._metadata,
            "content": jupyter.dict_of(request.content, "content"),
            "buffers": list(frames),
        }
        self._comms.receive(self._type, message)
        return _OK, []

    def _failure(self, error: BaseException) -> dict[str, Any]:
        """Content of the reply; other clients and the output of the task get the error too."""
        lines = replies.traceback_lines(self._shell, error)
        content = replies.failure(error, lines, self._identity, self._method)
        shown = {name: content[name] for name in ("ename", "evalue", "traceback")}
        # One may come while this waits for room, and there is nothing left to interrupt.
        with contextlib.suppress(KeyboardInterrupt):
            self._live.publish("error", shown)
        # As above: it names all locals of the task.
        error.__traceback__ = None
        if self._method == "execute":
            count = self._shell.execution_count - 1
            content |= {"execution_count": count, "user_expressions": {}, "payload": []}
        return content


def _page_through_reply(shell: Any) -> None:
    """What `?` and its like would page goes into the reply of an execute request, as a payload."""

    def to_payload(text: Any, start: int = 0, **_: Any) -> None:
        if shell.live is None:
            raise TryNext
        data = text if isinstance(text, dict) else {"text/plain": text}
        shell.payload_manager.write_payload({"source": "page", "data": data, "start": max(0, start)})

    shell.set_hook("show_in_pager", page.as_hook(to_payload), 0)
