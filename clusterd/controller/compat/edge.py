"""What all parts of the edge share: sockets, key, the controller's parts, and the way in for a message.

Every message from outside passes `open`: taken apart, verified, taken once. What does not pass is counted, and ends there: a wrong
signature gets no answer, as ipcontroller does it.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
from typing import TYPE_CHECKING, Any

from clusterd.controller.compat.keys import OldKey, StockKeys
from clusterd.core.wire import jupyter
from clusterd.errors import AuthenticationError, WireError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from clusterd.controller.compat.sessions import Sessions
    from clusterd.controller.compat.sockets import Handler, StockSockets
    from clusterd.controller.gate import Gate
    from clusterd.controller.hub import Hub
    from clusterd.controller.operations import Operations
    from clusterd.controller.tasks import Tasks
    from clusterd.storage.taskstore.base import TaskStore

    MessageHandler = Callable[[jupyter.Message, jupyter.Header, float], None]

log = logging.getLogger(__name__)


class Edge:
    """Shared by `front`, `clients`, `engines` and `output`.

    Args:
        sockets: bound.
        keys: of the connection files, present and earlier.
        hub, tasks, operations: the controller's parts.
        ping: seconds between two heartbeats.
        shut_down: ends the controller, with a reason.
        counters: of what was dropped, by reason; for status.
        has_digests: frames on the native engine link need digests.
        ip: that the sockets are bound to.
        is_curve: who reaches these sockets has proved that it may; ipcontroller's peers have no key then, and sign nothing.
        store: of the records of tasks.
        gate: holds back what is said until what it rests on is committed; None where nothing is durable.
    """

    def __init__(
        self,
        sockets: StockSockets,
        keys: StockKeys,
        *,
        hub: Hub,
        tasks: Tasks,
        operations: Operations,
        ping: float,
        shut_down: Callable[[str], None],
        counters: Counter[str],
        has_digests: bool,
        ip: str,
        is_curve: bool,
        store: TaskStore,
        gate: Gate | None = None,
    ) -> None:
        self.sockets = sockets
        self.keys = keys
        # Whose key the message is signed with that is being dealt with.
        self.heard_with = keys.present
        # All stock clients; set by who serves them.
        self.sessions: Sessions
        self.hub = hub
        self.tasks = tasks
        self.operations = operations
        self.ping = ping
        self.shut_down = shut_down
        self.counters = counters
        self.has_digests = has_digests
        self.ip = ip
        self.is_curve = is_curve
        self.store = store
        self.gate = gate
        # Session of messages that the controller makes itself.
        self.session = secrets.token_hex(16)
        self._prefix = f"{self.session}_{os.getpid()}_"
        self._numbers = itertools.count()

    def listen(self, name: str, handler: Handler) -> None:
        """Have what arrives on a socket given to `handler(frames, now)`; one that fails ends that message, not the controller."""

        def guarded(frames: list[bytes], now: float) -> None:
            try:
                handler(frames, now)
            except WireError as error:
                self.drop(error)
            except Exception as error:  # noqa: BLE001 - the boundary: one message of one peer is not worth a cluster
                self.fail(f"a message on {name}", error)

        self.sockets.handle(name, guarded)

    def listen_to_messages(self, name: str, handler: MessageHandler, identities: int | None = None) -> None:
        """The same for a socket on which all are messages: given to `handler(message, header, now)` when they may be acted on.

        Args:
            name: of the socket.
            handler: what deals with one.
            identities: how many frames belong in front of the delimiter; None: any number.
        """

        def opened(frames: list[bytes], now: float) -> None:
            message = self.open(frames)
            if message is None:
                return
            header = jupyter.header_of(message.header)
            if identities is not None and len(message.identities) != identities:
                raise WireError(f"{header.msg_type} on {name} with {len(message.identities)} identities")
            handler(message, header, now)

        self.listen(name, opened)

    def say(self, what: str, call: Callable[[], object]) -> None:
        """Say something by a call: now, or, where tasks are durable, when what was changed until the end of this turn is committed."""
        if self.gate is None:
            call()
            return

        def guarded() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the boundary, as in `listen`
                self.fail(what, error)

        self.gate.hold_call(guarded)

    def fail(self, what: str, error: Exception) -> None:
        """Count and log what is a mistake of ours."""
        self.counters["failed"] += 1
        log.error("stock: %s could not be dealt with", what, exc_info=error)

    def open(self, frames: Sequence[Any]) -> jupyter.Message | None:
        """A message that may be acted on; None for one that may not, which is counted."""
        try:
            message = jupyter.split(frames)
            # Whoever knows the CURVE key may have it from a file whose key was changed: from then on nothing passes unsigned.
            if message.signature or not self.is_curve or self.keys.has_changed:
                self.heard_with = self.keys.check(message)
        except jupyter.Replayed:
            self.counters["replayed"] += 1
        except OldKey:
            self.counters["old_key"] += 1
        except AuthenticationError:
            self.counters["bad_mac"] += 1
        except WireError as error:
            self.drop(error)
        else:
            return message
        return None

    def drop(self, error: WireError) -> None:
        """Count a message that makes no sense."""
        self.counters["malformed"] += 1
        log.debug("stock message dropped: %s", error)

    def header(self, msg_type: str, now_wall: float, session: str = "") -> bytes:
        """A header of the controller's own making; `session` where it speaks for one of our engines."""
        return self.new_header(msg_type, now_wall, session)[0]

    def new_header(self, msg_type: str, now_wall: float, session: str = "") -> tuple[bytes, str]:
        """The same, and the msg_id in it."""
        msg_id = f"{self._prefix}{next(self._numbers)}"
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "username": "clusterd",
            "session": session or self.session,
            "date": jupyter.date_of(now_wall),
            "version": jupyter.VERSION,
        }
        return jupyter.json_of(header), msg_id

    def sealed(
        self,
        header: bytes,
        parent: bytes,
        metadata: bytes,
        content: bytes,
        signer: jupyter.Signer | None = None,
    ) -> list[bytes]:
        """The frames of a message from the delimiter on, without buffers, signed with the present key, or another."""
        signature = (signer or self.keys.present).sign(header, parent, metadata, content)
        return [jupyter.DELIMITER, signature, header, parent, metadata, content]

    def relayed(self, message: jupyter.Message, signer: jupyter.Signer) -> list[Any]:
        """The frames of a message that passes through, from the delimiter on, for who has this key; unchanged where that can be."""
        if not self.keys.has_changed:
            return message.frames
        parts = (message.header, message.parent, message.metadata, message.content)
        return [*self.sealed(*parts, signer), *message.buffers]

    def signers_for(self, session: str | None) -> Sequence[jupyter.Signer]:
        """The keys with which is signed what all clients can hear: that of the one whom it concerns, or (None) of all."""
        keys = self.keys
        if keys.earlier is None:
            return (keys.present,)
        known = None if session is None else self.sessions.named(session)
        if known is not None:
            return (known.signer,)
        used = {each.signer for each in self.sessions.all() if keys.is_accepted(each.signer)}
        return tuple(used) or (keys.present, keys.earlier)
