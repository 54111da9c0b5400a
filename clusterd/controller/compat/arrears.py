"""What a durable controller owes stock clients: replies that are in the store and were not sent, and tasks that an earlier one took.

A stock client acknowledges nothing, and cannot be addressed before it speaks: its routing ids died with the controller's sockets. A reply
that comes twice is an exception in ipyparallel's I/O thread, which may then read nothing more. So each is sent once at the most: that it
is not owed any more is committed before it is said, and taken back where its client is not there. What is owed to a session is read from
the store, a few at a time, when it sends work. Invariant: nothing that is owed is held here for who does not speak, or does not read.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat import accounts
from clusterd.controller.compat.accounts import Wish, decode_wish, encode_wish
from clusterd.controller.compat.origin import Origin, metadata_of
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STOCK
from clusterd.errors import ClusterdError, StorageError, UnknownTask, WireError
from clusterd.storage.taskstore.row import PART, WHOLE, Outcome, TaskRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.compat.announcements import Announcements
    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.intake import Intake
    from clusterd.controller.compat.origin import Group
    from clusterd.controller.compat.outbox import Outbox
    from clusterd.controller.compat.output import Output
    from clusterd.controller.compat.sessions import Session, Sessions
    from clusterd.storage.taskstore.durable import DurableStore

log = logging.getLogger(__name__)
PAGE: Final = 64
"""Replies of one session that are read from the store in one go ..."""
PAGE_BYTES: Final = 16 * 1024**2
"""... and bytes of them after which ZeroMQ has to take them first."""


class _Payment:
    """What a session is being sent out of the store: `untold` by id, with their bytes (None: not looked up); `left`: on their way."""

    __slots__ = ("left", "untold")

    def __init__(self) -> None:
        self.untold: deque[tuple[str, int]] | None = None
        self.left = 0


class Arrears:
    """The debts of one controller.

    Args:
        edge, outbox, output, sessions, announcements: parts of the edge.
        store: where they lie.
    """

    def __init__(
        self,
        edge: Edge,
        outbox: Outbox,
        output: Output,
        sessions: Sessions,
        announcements: Announcements,
        store: DurableStore,
    ) -> None:
        self._edge = edge
        self._outbox = outbox
        self._output = output
        self._sessions = sessions
        self._announcements = announcements
        self._store = store
        self.intake: Intake
        # Sessions that are being sent what is owed to them.
        self._payments: dict[Session, _Payment] = {}
        # Broadcasts of which some part has not ended, by msg_id.
        self._groups: dict[str, Group] = {}

    # --- each task ---

    @staticmethod
    def inscribe(row: TaskRow, origin: Origin, target: object) -> None:
        """A task is taken: its row gets what another controller will need and cannot read off it."""
        aim = list(target) if isinstance(target, tuple) else target if isinstance(target, int) else None
        group = origin.group
        whole = "" if group is None else group.origin.msg_id
        row.is_owed = True
        row.wish = encode_wish(Wish(origin.channel, origin.name, aim, whole, origin.index))

    def ended(self, session: Session, origin: Origin, row: TaskRow) -> bool:
        """A task has its outcome, which is in its row; say whether its reply is on its way now."""
        if origin.channel == "hub":
            self._settle(row)
            return False
        group = origin.group
        if group is not None:
            group.rows[origin.index] = row
            self.part_ended(session, group)
            if group.is_coalescing:
                return False
        way = (origin.channel, origin.route) if origin.route else session.way
        has_result = row.outcome is not None and row.outcome.content
        if way is None and not has_result and self._announcements.has_left(origin.target):
            self._settle(row)  # its client fails it itself, at the notice
            return False
        if way is None or not self._has_room(session):
            session.is_due = True
            return False
        self._send(session, way, row, (row,), accounts.reply_of(row))
        return True

    def _has_room(self, session: Session) -> bool:
        """Say whether a reply may go by itself; else it waits its turn in the store, until the client has read what is before it."""
        if session.waiting:
            self._payments.setdefault(session, _Payment())
        return session not in self._payments

    def spoilt(self, row: TaskRow, text: str) -> None:
        """What came as its result cannot be read."""
        before = row.outcome
        if before is not None:
            row.outcome = Outcome("error", before.completed, before.received, before.started, message=text)
            self._store.update(row)

    def _settle(self, row: TaskRow) -> None:
        row.is_owed = False
        self._store.update(row)

    # --- broadcasts ---

    def has_begun(self, msg_id: str) -> bool:
        """Say whether this is a broadcast that has not ended."""
        return msg_id in self._groups

    def begin(self, group: Group, message: jupyter.Message, engines: Sequence[int]) -> None:
        """Take a broadcast: what its parts have together is in a row of its own."""
        origin = group.origin
        group.row = row = TaskRow(
            origin.msg_id,
            origin.session,
            WHOLE,
            time.time(),
            buffers=message.buffers,
            label=None,
            header=message.header,
            metadata=message.metadata,
            content=message.content,
            is_whole=False,
            wish=encode_wish(Wish(origin.channel, engines=list(engines))),
            is_owed=True,
        )
        self._groups[origin.msg_id] = group
        self._store.put(row)

    def part_ended(self, session: Session, group: Group) -> None:
        """A part has ended, or could not begin."""
        group.left -= 1
        whole = group.row
        if group.left or whole is None:
            return
        self._groups.pop(whole.msg_id, None)
        # After its last part, also for the clock: the date of a reply is made of it.
        ends = [row.outcome.completed for row in group.rows if row is not None and row.outcome is not None]
        when = max(ends, default=time.time())
        whole.outcome = Outcome("ok", when, when)
        if not group.is_coalescing or group.is_mute:
            whole.is_owed = False
        self._store.update(whole)
        if not group.is_coalescing:
            return
        if group.is_mute:
            for row in group.rows:
                if row is not None:
                    self._settle(row)
            return
        way = (group.origin.channel, group.origin.route) if group.origin.route else session.way
        rows = [row for row in group.rows if row is not None]
        if way is not None and len(rows) == len(group.rows) and self._has_room(session):
            self._send(session, way, whole, (*rows, whole), accounts.joined(group, whole))
            return
        session.is_due = True
        if session.way is not None:
            self._payments.setdefault(session, _Payment())

    def _whole_from_store(self, whole: TaskRow) -> Group:
        """The group of a broadcast of which all parts have ended."""
        group = accounts.group_of(whole)
        for index, msg_id in enumerate(accounts.part_ids(whole)):
            try:
                group.rows[index] = self._store.get(msg_id)
            except UnknownTask:
                accounts.refuse_missing(group, whole, index)
        return group

    # --- replies on their way ---

    def _send(
        self,
        session: Session,
        way: tuple[str, bytes],
        named: TaskRow,
        rows: Sequence[TaskRow],
        reply: accounts.FromRow,
        payment: _Payment | None = None,
    ) -> None:
        """Send a reply, which stands for `rows`, when it is committed that they are not owed any more."""
        for row in rows:
            self._settle(row)

        def on_end(problem: str) -> None:
            if payment is not None:
                payment.left -= 1
            if problem:
                for row in rows:
                    row.is_owed = True
                    self._store.update(row)
                # With its next word.
                session.is_due = True
                self._payments.pop(session, None)

        channel, route = way
        hops = [route, reply.engine.encode()] if reply.engine and channel != "broadcast" else [route]
        parts = self._edge.sealed(reply.header, named.header, reply.metadata, reply.content, session.signer)
        now = self._edge.operations.now
        self._outbox.send(session, channel, [*hops, *parts, *reply.buffers], now, on_end=on_end)

    # --- who speaks ---

    def spoke(self, session: Session, channel: str, route: bytes) -> None:
        """A client sends work: that way it can be answered."""
        session.way = (channel, route)
        if session.is_due and session not in self._payments:
            payment = self._payments[session] = _Payment()
            self._go_on(session, payment)

    def _go_on(self, session: Session, payment: _Payment) -> None:
        """Send what is owed to a session, until enough of it is on its way."""
        way = session.way
        if way is None:
            del self._payments[session]
            return
        try:
            if payment.untold is None:
                session.is_due = False
                payment.untold = deque(self._store.owed_to(session.name))
            for row in self._store.whole(_page(payment.untold)):
                if row.is_owed:
                    self._pay_one(session, way, row, payment)
        except StorageError as error:
            log.error("%s is not sent what it is owed before it speaks again: %s", session.client.name, error)  # noqa: TRY400
            session.is_due = True
            self._payments.pop(session, None)
            return
        if not payment.untold and not payment.left:
            if session.is_due:
                payment.untold = None  # something has ended since
            else:
                self._payments.pop(session, None)

    def _pay_one(self, session: Session, way: tuple[str, bytes], row: TaskRow, payment: _Payment) -> None:
        """Send one. Parts of a reply that is one for all are sent with that."""
        if row.outcome is None or row.kind != STOCK:
            return
        try:
            if row.queue == WHOLE:
                group = self._whole_from_store(row)
                rows: Sequence[TaskRow] = (*[each for each in group.rows if each is not None], row)
                reply = accounts.joined(group, row)
            elif row.queue == PART and accounts.is_coalescing(row):
                return
            else:
                rows, reply = (row,), accounts.reply_of(row)
        except ClusterdError as error:
            self._edge.fail(f"the reply for {row.msg_id} from the store", error)
            return
        payment.left += 1
        self._send(session, way, row, rows, reply, payment)
        # Whoever waits for output waits for this, too, and an earlier one may have been said to nobody.
        for each in rows:
            if each.engine_id >= 0 and each.queue != WHOLE:
                self._edge.say("output", partial(self._output.idle_again, each))

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        is_due = any(not payment.left and not session.waiting for session, payment in self._payments.items())
        return 0.0 if is_due else None

    def tick(self) -> None:
        """Go on with those who have taken what they were sent."""
        for session, payment in list(self._payments.items()):
            if not payment.left and not session.waiting:
                self._go_on(session, payment)

    # --- what an earlier controller left ---

    def restore(self, whole: TaskRow, present: dict[str, TaskRow], now: float) -> list[TaskRow]:
        """Take up a broadcast; `present`: rows that have not ended, by msg_id. The parts that had not come to be written down."""
        group = accounts.group_of(whole)
        session = self._sessions.expected(jupyter.header_of(whole.header), now)
        self._groups[whole.msg_id] = group
        new: list[TaskRow] = []
        group.left = 1
        for index, (msg_id, engine) in enumerate(
            zip(accounts.part_ids(whole), accounts.engines_of(whole), strict=True)
        ):
            if msg_id in present:
                group.left += 1
            elif engine >= 0 and self._ended_row(msg_id) is None:
                row = accounts.part_row(whole, index)
                self._store.put(row)
                new.append(row)
                group.left += 1
        self.part_ended(session, group)
        return new

    def _ended_row(self, msg_id: str) -> TaskRow | None:
        try:
            return self._store.get(msg_id, buffers=False)
        except UnknownTask:
            return None

    def take_up(self, task: bytes, row: TaskRow, outcome_of: Callable[[bytes], TaskRow | None], now: float) -> None:
        """A task of an earlier controller is to be run, or is found running.

        Raises:
            WireError: its row cannot be understood, or there is no room for its client.
        """
        wish = decode_wish(row.wish)
        header = jupyter.header_of(row.header)
        session = self._sessions.expected(header, now)
        aim: int | tuple[int, ...] | None = tuple(wish.target) if isinstance(wish.target, list) else wish.target
        target = aim if isinstance(aim, int) else -1
        origin = Origin(wish.channel, b"", row.header, header, metadata_of(row.metadata), target, wish.name)
        buffers: Sequence[Any] = row.buffers
        if row.queue == PART:
            group = self._groups.get(wish.whole)
            if group is None or group.row is None:
                raise WireError(f"the broadcast that {row.msg_id} is a part of is not in the store any more")
            origin.group, origin.index, buffers = group, wish.index, group.row.buffers
        self.intake.take_up(session, origin, task, row, buffers, aim, outcome_of, now)


def _page(untold: deque[tuple[str, int]]) -> list[str]:
    """Take the ids of the next page; one that is larger goes alone."""
    page: list[str] = []
    room = PAGE_BYTES
    while untold and len(page) < PAGE and (not page or untold[0][1] <= room):
        msg_id, size = untold.popleft()
        page.append(msg_id)
        room -= size
    return page
