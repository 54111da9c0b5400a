"""The engines' processes: who they are, what their pages say, how they ended; those that were forked and those found.

Performs, decides nothing. An engine whose zygote lives is reported dead by it, with its status; any other is an orphan,
whose pidfd says that it ended and nobody how. Invariants: a signal goes to a verified process only; identity file and page
of an engine are removed when it is known to be dead, and not before.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clusterd.agent import logs
from clusterd.core.model import page
from clusterd.core.model.ids import engine_hex, engine_uuid
from clusterd.core.wire.messages import EngineState
from clusterd.system import barrier, paths, process, shared_page

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from clusterd.core.model.launch import AgentSpec

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """An engine of an earlier agent; one that is not alive is to be reported and forgotten (`gone`)."""

    uuid: bytes
    slot: int
    pid: int
    is_alive: bool


class Child:
    """One engine's process."""

    __slots__ = ("handle", "is_orphan", "log", "log_begin", "memory", "pid", "slot", "uuid")

    def __init__(self, uuid: bytes, slot: int, log_file: Path) -> None:
        self.uuid = uuid
        self.slot = slot
        self.log = log_file
        # Where this engine's part of the log begins.
        self.log_begin = logs.size(log_file)
        self.pid = 0
        # None before it is forked, and when it was dead before it could be opened.
        self.handle: process.ProcessHandle | None = None
        # Its status page, once it was found.
        self.memory: mmap.mmap | None = None
        # True when no zygote will tell its end.
        self.is_orphan = False


class Nursery:
    """All engines' processes of one set on this node.

    Args:
        spec: of the set.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        self._units = Path(spec.runtime_dir) / "units"
        # By uuid: all and only engines that were ordered or found and are not known to be dead.
        self.children: dict[bytes, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(self.children.values())

    # --- coming and going ---

    def expect(self, uuid: bytes, slot: int) -> None:
        """An engine was ordered."""
        self.children[uuid] = Child(uuid, slot, self._log(slot))

    def forked(self, uuid: bytes, pid: int, start_time: int) -> None:
        """It exists."""
        child = self.children.get(uuid)
        if child is None:
            return
        child.pid = pid
        identity = process.ProcessIdentity(paths.host_id(), process.boot_id(), pid, start_time, process.pid_namespace())
        child.handle = process.ProcessHandle.open(identity)

    def tail(self, uuid: bytes) -> str:
        """The last lines that it wrote."""
        child = self.children[uuid]
        return logs.tail(child.log, child.log_begin)

    def gone(self, uuid: bytes) -> None:
        """It is dead, and that was told: clean up after it."""
        child = self.children.pop(uuid, None)
        if child is None:
            return
        if child.handle is not None:
            child.handle.close()
        if child.memory is not None:
            child.memory.close()
        self._remove(uuid)

    def orphan_all(self) -> list[bytes]:
        """The zygote is gone: nobody tells their ends any more. Those that were ordered and never reported."""
        unborn = []
        for child in self:
            child.is_orphan = True
            if not child.pid:
                unborn.append(child.uuid)
        return unborn

    def ended_orphans(self) -> list[bytes]:
        """Orphans that have ended since the last look."""
        return [
            child.uuid
            for child in self
            if child.is_orphan and child.pid and (child.handle is None or not child.handle.is_alive())
        ]

    def find(self) -> list[Found]:
        """Look for engines of this set that have no agent: those that live, and those of whose death nobody was told."""
        found = []
        for path in sorted(self._units.glob("engine-*.json")):
            identity = _read_identity(path)
            if identity is None or identity.get("engine_set") != self._spec.engine_set:
                continue
            who = _who(identity)
            try:
                uuid = engine_uuid(identity["uuid"])
                slot = int(identity["slot"])
            except (KeyError, ValueError, TypeError):
                who = None
            if who is None:
                log.warning("%s is no identity of an engine: ignored", path)
                continue
            if uuid in self.children or self._has_other_agent(str(identity.get("launch"))):
                continue
            handle = process.ProcessHandle.open(who)
            if handle is None and process.probe(who) != "gone":
                continue
            child = self.children[uuid] = Child(uuid, slot, self._log(slot))
            child.pid, child.handle, child.is_orphan = who.pid, handle, True
            child.log_begin = 0
            found.append(Found(uuid, slot, who.pid, handle is not None))
        return found

    def identity_of(self, uuid: bytes) -> process.ProcessIdentity | None:
        """Who the engine says it is, in its identity file."""
        return _who(_read_identity(self._units / f"engine-{engine_hex(uuid)}.json"))

    # --- asking and telling ---

    def signal(self, uuid: bytes, number: int) -> bool:
        """Send a signal; False when the engine is gone."""
        child = self.children.get(uuid)
        return child is not None and child.handle is not None and child.handle.send_signal(number)

    def record(self, uuid: bytes) -> page.EngineRecord | None:
        """What the engine's page says; None while it has none."""
        child = self.children.get(uuid)
        memory = None if child is None else self._memory(child)
        if memory is None:
            return None
        with memoryview(memory) as view:
            content = page.read(view)
        return None if content is None else content[1]

    def state(self, uuid: bytes) -> EngineState:
        """What an inventory says of the engine."""
        child = self.children[uuid]
        record = self.record(uuid)
        if record is None:
            return EngineState(uuid, child.slot, child.pid, "starting")
        return EngineState(
            uuid,
            child.slot,
            child.pid,
            record.state,
            record.task,
            record.attempt,
            record.since,
            record.order,
            record.wire_id,
            record.has_results,
        )

    def inventory(self) -> list[EngineState]:
        """What all engines do; also those that were ordered and not yet reported: they may have registered before we hear of it."""
        return [self.state(child.uuid) for child in self]

    def revoke(self, uuid: bytes, epoch: int, first: int, last: int) -> page.EngineRecord | None:
        """Keep the engine from beginning these orders; see `page.revoke`."""
        child = self.children.get(uuid)
        memory = None if child is None else self._memory(child)
        if memory is None:
            return None
        with memoryview(memory) as view:
            return page.revoke(view, epoch, first, last, fence=barrier.full)

    def revoke_others(self, epoch: int) -> None:
        """Keep all engines from beginning what controllers before the one of `epoch` had given them."""
        for child in self:
            record = self.record(child.uuid)
            if record is not None and record.epoch not in (0, epoch):
                self.revoke(child.uuid, record.epoch, 0, page.ALL_ORDERS)

    def close(self) -> None:
        """Let go of all; what runs goes on."""
        for child in self:
            if child.handle is not None:
                child.handle.close()
            if child.memory is not None:
                child.memory.close()
        self.children.clear()

    # --- inside ---

    def _memory(self, child: Child) -> mmap.mmap | None:
        if child.memory is None:
            # The engine makes it a moment after its fork.
            with contextlib.suppress(OSError, ValueError):
                path = self._units / f"engine-{engine_hex(child.uuid)}.page"
                child.memory = shared_page.open_existing(path, page.SIZE, is_writable=True)
        return child.memory

    def _log(self, slot: int) -> Path:
        return Path(self._spec.log_dir) / f"engine-{self._spec.engine_set}-{slot}.log"

    def _has_other_agent(self, launch: str) -> bool:
        """An engine whose agent lives is that one's, be it in the same directory (two jobs of one set on a node)."""
        if launch == self._spec.launch:
            return False
        who = _who(_read_identity(self._units / f"agent-{launch}.json"))
        return who is not None and process.is_same_and_alive(who)

    def _remove(self, uuid: bytes) -> None:
        for suffix in ("json", "page"):
            (self._units / f"engine-{engine_hex(uuid)}.{suffix}").unlink(missing_ok=True)


def _read_identity(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _who(identity: dict[str, Any] | None) -> process.ProcessIdentity | None:
    if identity is None:
        return None
    try:
        return process.ProcessIdentity(*(identity[field] for field in process.ProcessIdentity._fields))
    except KeyError:
        return None
