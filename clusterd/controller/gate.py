"""Holds back what a durable controller says until the store has committed what it said it for: output commit.

Each turn of the loop changes rows and says things. What is said on data connections, and the acknowledgement of what was heard there, waits
here with the number of the turn's last change, in order, and goes when the store has committed that number; so does all that stock
clients and engines are told. The loop does not wait: the next turns queue behind. While the store is in trouble work that was accepted
goes on: batches go, acknowledgements do not, so that whoever holds a request or a result goes on holding it. Invariant: nothing is
acknowledged that is not committed.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clusterd.controller.backlog import FULL_BYTES, Backlog
from clusterd.controller.peers import Client
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.controller.connection import Batch, Connection
    from clusterd.storage.taskstore.durable import DurableStore

log = logging.getLogger(__name__)
DRAIN_SECONDS: Final = 3.0
FORGETS: Final = 0.9
"""A long wait counts so much less with each release after it."""
RANGE: Final = 8
"""A wait that was told stays as it is while what is waited is not longer, and not shorter than this part of it."""


class _Heard(NamedTuple):
    change: int
    connection: Connection
    seq: int


class Gate:
    """The gate of one controller.

    Args:
        store: commits; its `on_commit` is to wake the loop.
        is_parked: says whether tasks of a client, by handle, wait and are not in the store.
        full_bytes: what may be to be written.

    Attributes:
        backlog: what is to be written.
    """

    def __init__(self, store: DurableStore, is_parked: Callable[[int], bool], full_bytes: int = FULL_BYTES) -> None:
        self._is_parked = is_parked
        self._store = store
        self.backlog = Backlog(store, full_bytes)
        # What waits, in the order in which it was said; with the number of the change that must be committed before, and since when.
        # What is for no connection of ours is a call instead of a batch.
        self._batches: deque[tuple[int, float, Connection | None, Batch | Callable[[], object]]] = deque()
        # How long what left lately had waited, and what was last told of that.
        self._lasted = 0.0
        self._told = 0.0
        self._heard: deque[_Heard] = deque()
        # Connections that brought something that has not entered `_heard`: in this turn, or since tasks of their clients are parked.
        self._unheard: dict[Connection, None] = {}
        self._trouble = ""

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def unacknowledged(self) -> int:
        """Messages that were heard and are not acknowledged."""
        return len(self._heard) + len(self._unheard)

    def hold(self, connection: Connection, batch: Batch) -> None:
        """Send a batch when what was changed until the end of this turn is committed."""
        # Not `last_change` as it is now: what is said first in a turn may follow from what is changed last.
        self._batches.append((-1, 0.0, connection, batch))

    def hold_call(self, call: Callable[[], object]) -> None:
        """Likewise of what goes by no connection of ours: it is said by a call, which must not fail."""
        self._batches.append((-1, 0.0, None, call))

    def hear(self, connections: Iterable[Connection]) -> None:
        """Acknowledge what was received from these until now when what follows from it is committed."""
        for connection in connections:
            self._unheard[connection] = None

    def close_turn(self, now: float) -> None:
        """Everything of this turn has been said; let go of what may leave."""
        change = self._store.last_change
        for connection in list(self._unheard):
            owner = connection.owner
            if connection.is_gone or type(owner) is not Client or not self._is_parked(owner.handle):
                del self._unheard[connection]
                self._heard.append(_Heard(-1, connection, connection.session.received))
        for index in range(len(self._batches) - 1, -1, -1):
            at, _, to, said = self._batches[index]
            if at >= 0:
                break
            self._batches[index] = (change, now, to, said)
        for index in range(len(self._heard) - 1, -1, -1):
            heard = self._heard[index]
            if heard.change >= 0:
                break
            self._heard[index] = heard._replace(change=change)
        self.release(now)

    def release(self, now: float) -> None:
        """Send what is committed."""
        committed = self._store.committed
        self._look_at_store()
        batches, heard = self._batches, self._heard
        is_going = bool(batches) and (bool(self._trouble) or batches[0][0] <= committed)
        is_acking = bool(heard) and heard[0].change <= committed
        if not is_going and not is_acking:
            return
        fault.point("controller.release.before_send")
        latest: dict[Connection, int] = {}
        while heard and heard[0].change <= committed:
            _, connection, seq = heard.popleft()
            latest[connection] = seq
        for connection, seq in latest.items():
            connection.session.deal_with(seq)
        if is_going:
            self._lasted = max(now - batches[0][1], FORGETS * self._lasted)
        # What a call says meanwhile has no number yet, and waits for the end of the next turn.
        while batches and batches[0][0] >= 0 and (self._trouble or batches[0][0] <= committed):
            _, _, to, said = batches.popleft()
            _pass_on(to, said)
        fault.point("controller.release.half_done")
        for connection in latest:
            # What carries it may have left just now.
            if not connection.is_gone:
                connection.endpoint.acknowledge_soon(connection, now)

    def delay(self, now: float) -> float | None:
        """How long what is said may take to leave, in seconds, with something to spare; None while that is as it was told last."""
        batches = self._batches
        lasts = max(self._lasted, now - batches[0][1]) if batches and batches[0][0] >= 0 else self._lasted
        if self._told / RANGE <= lasts <= self._told:
            return None
        self._told = 2 * lasts
        return self._told

    def drain(self, now: float) -> None:
        """The end: commit what is left, and send it."""
        self._store.flush(DRAIN_SECONDS)
        self.release(now)

    def _look_at_store(self) -> None:
        store = self._store
        trouble = store.trouble
        if bool(trouble) != bool(self._trouble):
            if trouble:
                log.error(
                    "new tasks are refused until they can be written down again; those accepted go on: %s", trouble
                )
            else:
                log.info("tasks are written down again, and taken")
        self._trouble = trouble
        self.backlog.look()

    @property
    def trouble(self) -> str:
        """Why new tasks are refused; empty while they are taken."""
        return self._store.trouble or self._store.refusal

    def about(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "waiting": len(self._batches),
            "unacknowledged": self.unacknowledged,
            "backlog": self._store.backlog,
            "is_full": self.backlog.is_full,
            "trouble": self.trouble,
        }


def _pass_on(connection: Connection | None, said: Any) -> None:
    """Send it on the connection, or on that which its owner has by now."""
    if connection is None:
        said()
    elif not connection.is_gone:
        connection.pass_on(said)
    # Else what an engine was to be told is in the book of its dispatches, and what a client was to be told in the store: each is told anew
    # when it attaches.
