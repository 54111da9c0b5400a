"""The append-only journal: what was appended and synced is there after any crash, in order, whole batches only.

    journal = Journal.open(directory)      # locks, repairs a torn tail (says so in .torn), reads
    state = fold(journal.replay())
    journal.append([record, ...])          # one write, one fsync; durable when it returns
    if journal.is_compaction_due: journal.compact(snapshot(state))

Records are bytes. Invariants: exactly one process has it open; at every moment one complete segment has the highest
number; nothing is ever thrown away without a copy or an error that names file and offset. Format: JOURNAL.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, Self

from clusterd.errors import StorageError
from clusterd.storage import segment
from clusterd.system import clock, fault
from clusterd.system.files import atomic_write, private_directory, sync_directory, write_all
from clusterd.system.lock import LockFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Journal", "TornTail"]

_SEGMENT_NAME = re.compile(r"journal-(\d{8})\.log")
# Below this a longer journal costs nothing: replay reads tens of MB a second.
_COMPACTION_FLOOR: Final = 1024**2
_COMPACTION_FACTOR: Final = 4


class TornTail(NamedTuple):
    """An append that a crash cut short; nobody had been told that it happened.

    Attributes:
        segment: file that it was cut off from.
        offset: where it began.
        size: its bytes.
        copy: where they are now.
    """

    segment: Path
    offset: int
    size: int
    copy: Path


class Journal:
    """One open journal; make it with `Journal.open`.

    Attributes:
        directory: where its segments lie.
        torn: what opening it had to repair, None when nothing; to be logged.
    """

    def __init__(self, directory: Path, lock: LockFile) -> None:
        self.directory = directory
        self.torn: TornTail | None = None
        self._lock = lock
        # Descriptor of the current segment, positioned at `_end`; -1 when closed.
        self._descriptor = -1
        self._number = 0
        # Offset after the last synced batch: whatever lies beyond it is not ours.
        self._end = 0
        self._snapshot_end = 0
        self._next_sequence = 0
        # Why nothing can be appended any more, empty while all is well.
        self._broken = ""
        self._replayed: list[bytes] = []

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Lock and read the journal in `directory`; begin one when there is none.

        Raises:
            LockHeld: another process has it open; says which.
            StorageError: it is damaged (nothing is changed then), or cannot be read or written.
        """
        try:
            private_directory(directory)
            lock = LockFile(directory / "lock")
            lock.acquire()
        except OSError as error:
            raise StorageError(f"the journal in {directory} cannot be opened: {error}") from error
        journal = cls(directory, lock)
        try:
            journal._load()
        except BaseException as error:
            journal.close()
            if isinstance(error, OSError):
                raise StorageError(f"the journal in {directory} cannot be read: {error}") from error
            raise
        return journal

    def replay(self) -> list[bytes]:
        """Hand over the records found by `open`, the snapshot's first; a second call returns nothing."""
        replayed, self._replayed = self._replayed, []
        return replayed

    def append(self, records: Sequence[bytes]) -> None:
        """Make the records durable, all or none.

        Raises:
            StorageError: they are not in the journal. It goes on working if its end could be restored (a full disk),
                else it must be opened again; the text says which.
        """
        if not records:
            return
        self._check_usable()
        batch = segment.encode_batch(self._next_sequence, clock.wall(), records)
        # Stays so if an exception of another kind (KeyboardInterrupt) leaves the file in an unknown state.
        self._broken = f"an append to {self._path(self._number)} was interrupted"
        try:
            fault.point("journal.append.before_write")
            write_all(self._descriptor, batch)
        except OSError as error:
            self._restore_end(error)
        try:
            fault.point("journal.append.before_fsync")
            _sync_data(self._descriptor)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the dirty pages and call the next one good
            # (https://lwn.net/Articles/752063): nothing about this descriptor can be believed any more.
            with contextlib.suppress(StorageError):
                self._restore_end(error)
            self._break(f"{self._path(self._number)} could not be synced: {error}", error)
        fault.point("journal.append.after_fsync")
        self._broken = ""
        self._end += len(batch)
        self._next_sequence += 1

    def is_writable(self) -> bool:
        """Say whether the next append would find its file there, synced so far, on a file system that takes writes."""
        if self._broken or self._descriptor < 0:
            return False
        try:
            _sync_data(self._descriptor)
            is_read_only = os.fstatvfs(self._descriptor).f_flag & os.ST_RDONLY
            return not is_read_only and os.path.samestat(os.fstat(self._descriptor), self._path(self._number).stat())
        except OSError:
            return False

    @property
    def is_compaction_due(self) -> bool:
        """Whether the journal is several times the size of its snapshot."""
        return self._end > _COMPACTION_FLOOR + _COMPACTION_FACTOR * self._snapshot_end

    def compact(self, snapshot: Sequence[bytes]) -> None:
        """Replace everything so far by `snapshot`, in a new segment.

        Raises:
            StorageError: it did not happen; the old segment is still in use.
        """
        self._check_usable()
        old_descriptor, old_number = self._descriptor, self._number
        try:
            self._begin_segment(old_number + 1, self._next_sequence, snapshot)
        except OSError as error:
            raise StorageError(f"the journal in {self.directory} cannot be compacted: {error}") from error
        os.close(old_descriptor)
        # A crash or an error from here on leaves an old segment behind, which the next opening removes.
        with contextlib.suppress(OSError):
            self._remove_below(self._number)

    def close(self) -> None:
        """Let go of the file and the lock; may be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _load(self) -> None:
        numbers = []
        for path in self.directory.iterdir():
            if match := _SEGMENT_NAME.fullmatch(path.name):
                numbers.append(int(match[1]))
            elif path.name.endswith(".tmp"):
                path.unlink()  # a compaction that did not come to its rename
        if not numbers:
            self._begin_segment(1, 0, [])
            return
        number = max(numbers)
        path = self._path(number)
        data = path.read_bytes()
        try:
            found = segment.scan(data)
            if found.number != number:
                raise segment.Damage(0, f"it says that it is segment {found.number}")  # noqa: TRY301 - one handler for all
        except segment.Damage as damage:
            raise StorageError(
                f"{path} is damaged at byte {damage.offset}: {damage.what}",
                hint="Nothing was changed. Restore the file from a backup; or move the directory"
                f" {self.directory} away to begin a new journal: what runs now is then unknown to the daemon.",
            ) from None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._number, self._end, self._snapshot_end = number, found.end, found.snapshot_end
        self._next_sequence, self._replayed = found.next_sequence, found.records
        if found.end < len(data):
            self._cut_tail(path, data)
        os.lseek(self._descriptor, self._end, os.SEEK_SET)
        self._remove_below(number)

    def _cut_tail(self, path: Path, data: bytes) -> None:
        copy = path.with_name(f"{path.name}.{self._end}.torn")
        atomic_write(copy, data[self._end :])
        fault.point("journal.repair.before_truncate")
        os.truncate(self._descriptor, self._end)
        os.fsync(self._descriptor)
        self.torn = TornTail(path, self._end, len(data) - self._end, copy)

    def _begin_segment(self, number: int, sequence: int, snapshot: Sequence[bytes]) -> None:
        """Write a segment under a temporary name and rename it when it is complete; then it is the current one."""
        content = segment.encode_header(number, sequence) + segment.encode_batch(sequence, clock.wall(), snapshot)
        path = self._path(number)
        temporary = path.with_name(path.name + ".tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        has_its_name = False
        try:
            fault.point("journal.segment.before_write")
            write_all(descriptor, content)
            fault.point("journal.segment.before_fsync")
            os.fsync(descriptor)
            fault.point("journal.segment.before_rename")
            temporary.replace(path)
            has_its_name = True
            fault.point("journal.segment.before_directory_fsync")
            sync_directory(self.directory)
            fault.point("journal.segment.before_switch")
        except BaseException:
            os.close(descriptor)
            if has_its_name:
                # The next opening will take the new one: whatever went into the old one from now on would be lost.
                self._broken = f"{path} exists, but its directory could not be synced"
            else:
                with contextlib.suppress(OSError):
                    temporary.unlink()
            raise
        self._descriptor, self._number = descriptor, number
        self._end = self._snapshot_end = len(content)
        self._next_sequence = sequence + 1

    def _remove_below(self, number: int) -> None:
        stale = [
            path
            for path in self.directory.iterdir()
            if (match := _SEGMENT_NAME.fullmatch(path.name)) and int(match[1]) < number
        ]
        for path in stale:
            fault.point("journal.segment.before_removal")
            path.unlink()
        if stale:
            sync_directory(self.directory)

    def _restore_end(self, cause: OSError) -> NoReturn:
        """Cut off what a failed append left; raises in any case."""
        name = self._path(self._number)
        try:
            os.truncate(self._descriptor, self._end)
            os.lseek(self._descriptor, self._end, os.SEEK_SET)
            self._broken = ""
        except OSError as error:
            self._break(f"{name} could be neither appended to ({cause}) nor cut back ({error})", error)
        is_full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"{name} could not be appended to: {cause}; nothing was recorded",
            hint=f"Make room on the file system of {self.directory}, then try again." if is_full else "",
        ) from cause

    def _break(self, reason: str, cause: OSError) -> NoReturn:
        self._broken = reason
        raise StorageError(
            reason, hint="The daemon must be restarted: it reads the journal again and adopts what runs."
        ) from cause

    def _check_usable(self) -> None:
        if self._broken:
            raise StorageError(self._broken, hint="The daemon must be restarted: it reads the journal again.")
        if self._descriptor < 0:
            raise StorageError(f"the journal in {self.directory} is closed")

    def _path(self, number: int) -> Path:
        return self.directory / f"journal-{number:08d}.log"


# fdatasync(2) leaves out the modification time, but not the size: all that is needed to read the batch back.
_sync_data = getattr(os, "fdatasync", os.fsync)
