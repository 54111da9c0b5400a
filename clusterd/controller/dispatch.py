"""Performs what the scheduler decides: sends tasks to engines and outcomes to clients.

One function per action, by type. It decides nothing, with one exception that needs bytes, not tasks: a client whose unread results
are over its budget is reported as blocked (its tasks are not dispatched until it has caught up).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.controller.connection import LARGE_BODY_BYTES
from clusterd.core.model.task import Place, Reason
from clusterd.core.scheduler import actions, events
from clusterd.core.wire.messages import Deliver, Dispatch, Drained, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.hub import Hub
    from clusterd.controller.operations import Operations
    from clusterd.controller.peers import Client
    from clusterd.controller.recorder import Recorder
    from clusterd.controller.tasks import Tasks

log = logging.getLogger(__name__)
# A blocked client is free again when what it has not read is down to this part of its budget.
UNBLOCKED_PART = 4
# Functions that an engine is known to have been told. It keeps fewer, and asks for what it has dropped.
MAX_TOLD = 4096


class Performer:
    """Turns the scheduler's actions into messages.

    Args:
        result_bytes: unread results of one client, beyond the window of its connection, above which it is blocked.
    """

    def __init__(self, result_bytes: int) -> None:
        self._result_bytes = result_bytes
        self.hub: Hub
        self.tasks: Tasks
        self.operations: Operations
        # There is one wherever a payload has a row.
        self.recorder: Recorder
        # How many results were for nobody, by reason.
        self.discarded: dict[str, int] = {}
        # Handles of all and only clients whose `is_blocked` is set.
        self._blocked: set[int] = set()
        self._perform_by_type: dict[type, Callable[[Any, float], None]] = {
            actions.Dispatch: self._dispatch,
            actions.Deliver: self._deliver,
            actions.Fail: self._fail,
            actions.Forget: self._forget,
            actions.Discard: self._discard,
            actions.Keep: self._keep,
            actions.AnswerKnown: self._answer_known,
            actions.Recall: self._recall,
            actions.Interrupt: self._interrupt,
            actions.KillEngine: self._kill,
            actions.Drained: self._drained,
            actions.AdoptUnknown: self._adopt_unknown,
        }

    def __call__(self, decided: Sequence[actions.AnyAction], now: float) -> None:
        """Perform actions in order."""
        by_type = self._perform_by_type
        for action in decided:
            by_type[type(action)](action, now)

    # --- the hot path ---

    def _dispatch(self, action: actions.Dispatch, now: float) -> None:
        payload = self.tasks.payloads[action.task]
        engine = self.hub.engines_by_id[action.engine]
        if payload.row is not None:
            self.recorder.dispatched(payload.row, engine, action.attempt)
        connection = engine.connection
        if connection is None:
            if engine.door is not None:
                engine.door.dispatch(engine, action, payload, now)
            # Suspect between decision and act: it keeps the dispatch in its book, and its inventory will say that it has not got it.
            return
        function = payload.function
        if function and function not in engine.functions:
            stored = self.tasks.functions.get(function)
            if stored is not None:
                if len(engine.functions) >= MAX_TOLD:
                    engine.functions.clear()  # to tell it again does no harm
                engine.functions.add(function)
                connection.say(stored.message, len(stored.message.body), stored.payload, stored.digests)
        frames = payload.frames
        connection.say(
            Dispatch(action.task, action.attempt, action.order, payload.kind, function, payload.body, len(frames)),
            len(payload.body),
            frames,
            payload.digests,
        )

    def _deliver(self, action: actions.Deliver, now: float) -> None:
        result, frames, digests = self.tasks.take_result(action.task)
        payload = self.tasks.end(action.task)
        client = self.hub.clients_by_handle.get(action.client)
        if payload is not None and payload.row is not None:
            self.recorder.delivered(payload.row, result, frames, now)
            if self.tasks.ledger is not None:
                self.tasks.ledger.ended(action.task, payload.row, client)
        if client is None:
            return
        if client.door is not None:
            if payload is not None:
                client.door.deliver(client, payload, action, result, frames, digests, now)
            return
        message = Deliver(
            result.task,
            result.attempt,
            action.engine,
            result.status,
            result.started,
            result.finished,
            result.stdout,
            result.stderr,
            result.body,
            len(frames),
            result.display,
        )
        size = len(result.body) + len(result.stdout) + len(result.stderr)
        if result.display:
            size += LARGE_BODY_BYTES  # pictures: of unknown size, and seldom small
        self._say(client, message, size, frames, digests, now)

    # --- ends without a result ---

    def _fail(self, action: actions.Fail, now: float) -> None:
        payload = self.tasks.end(action.task)
        client = self.hub.clients_by_handle.get(action.client)
        if payload is not None and payload.row is not None:
            self.recorder.failed(payload.row, action, now)
            if self.tasks.ledger is not None:
                self.tasks.ledger.ended(action.task, payload.row, client)
        if client is not None and client.door is not None:
            if payload is not None:
                client.door.fail(client, payload, action, now)
        elif client is not None:
            client.refused += client.is_blocked and action.reason is Reason.OVERLOADED
            message = Failed(action.task, max(action.attempt, 0), action.reason.value, action.text, "", action.engine)
            self._say(client, message, 64 + len(action.text), (), (), now)

    def _forget(self, action: actions.Forget, now: float) -> None:
        for task in action.tasks:
            payload = self.tasks.end(task)
            if payload is not None and payload.row is not None:
                self.recorder.forgotten(payload.row, now)

    def _discard(self, action: actions.Discard, now: float) -> None:
        result, frames, _ = self.tasks.take_result(action.task)
        if action.why is actions.WhyDiscarded.CLIENT_GONE:
            # Others may ask for it.
            payload = self.tasks.payloads.get(action.task)
            if payload is not None and payload.row is not None:
                payload.row.is_owed = False
                self.recorder.delivered(payload.row, result, frames, now)
        why = action.why.value
        self.discarded[why] = self.discarded.get(why, 0) + 1

    def _keep(self, action: actions.Keep, now: float) -> None:
        self.tasks.keep_result(action.task)
        if self.tasks.ledger is not None:
            self.tasks.ledger.result_came(action.task, now)

    def _answer_known(self, action: actions.AnswerKnown, now: float) -> None:
        if action.place is Place.ENDED:
            self.tasks.end(action.task)  # the request that has just come with this repeat
        if action.owner == action.client:
            return  # It runs, or its outcome is on its way: deliveries are kept until acknowledged.
        client = self.hub.clients_by_handle.get(action.client)
        if client is not None:
            message = Failed(action.task, 0, "malformed", "this task id belongs to another client")
            self._say(client, message, 96, (), (), now)

    # --- what engines and agents are told ---

    def _recall(self, action: actions.Recall, _now: float) -> None:
        self.operations.recall(action.engine, action.first, action.last)

    def _interrupt(self, action: actions.Interrupt, _now: float) -> None:
        self.operations.signal(action.engine, "interrupt")

    def _kill(self, action: actions.KillEngine, _now: float) -> None:
        log.warning("engine %d is killed: %s", action.engine, action.text)
        self.operations.signal(action.engine, "kill")

    def _drained(self, action: actions.Drained, _now: float) -> None:
        for control in self.hub.notices.operators():
            control.say(Drained([action.engine]), 16)

    def _adopt_unknown(self, action: actions.AdoptUnknown, _now: float) -> None:
        log.info("engine %d holds task %s of an earlier controller", action.engine, action.task.hex())

    # --- outbound results ---

    def _say(
        self, client: Client, message: Any, size: int, frames: Sequence[Any], digests: Sequence[bytes], now: float
    ) -> None:
        data = client.data
        if client.door is not None:
            return  # whoever sent the same task again through a door has its answer, or will
        if data is not None:
            data.say(message, size, frames, digests)
            unread = data.backlog_bytes
        elif self.tasks.ledger is not None:
            return  # it is told out of the store when it attaches
        else:
            size += sum(map(len, frames)) if frames else 0
            client.undelivered.append(([message], list(frames), list(digests), size))
            client.undelivered_bytes += size
            unread = client.undelivered_bytes
        if unread > self._result_bytes and not client.is_blocked:
            client.is_blocked = True
            self._blocked.add(client.handle)
            log.warning("%s does not read its results: its tasks wait", client.name)
            self.tasks.handle(events.ResultsBlocked(client.handle), now)

    def unblock(self, now: float) -> None:
        """Let clients go on that have caught up; called once a turn."""
        for handle in list(self._blocked):
            client = self.hub.clients_by_handle.get(handle)
            if client is None:
                self._blocked.discard(handle)
            elif client.data is not None and client.data.backlog_bytes * UNBLOCKED_PART < self._result_bytes:
                client.is_blocked = False
                client.refused = 0
                self._blocked.discard(handle)
                self.tasks.handle(events.ResultsUnblocked(handle), now)
