import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import clusterd
from clusterd.errors import LockHeld, StorageError
from clusterd.storage import journal as journal_module
from clusterd.storage import segment
from clusterd.storage.journal import Journal
from clusterd.system import fault
from tests import cells

BATCHES = [[b"one"], [b"two", b"", b"three" * 10], [b"\xc1BAT four"]]
RECORDS = [record for batch in BATCHES for record in batch]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def written(directory):
    """A journal with a snapshot and three batches; the file's path and the offsets at which its batches begin."""
    offsets = []
    with Journal.open(directory) as journal:
        journal.compact([b"snapshot"])
        for batch in BATCHES:
            offsets.append(journal._end)
            journal.append(batch)
        offsets.append(journal._end)
    return directory / "journal-00000002.log", offsets


def replay(directory):
    with Journal.open(directory) as journal:
        return journal.replay(), journal.torn


def test_records_are_there_in_order_after_reopening(directory, written):
    assert replay(directory) == ([b"snapshot", *RECORDS], None)
    with Journal.open(directory) as journal:
        journal.replay()
        assert journal.replay() == []
        journal.append([b"five"])
        journal.append([])
    assert replay(directory) == ([b"snapshot", *RECORDS, b"five"], None)


def test_compaction_replaces_everything_and_removes_the_old_segment(directory, written):
    with Journal.open(directory) as journal:
        journal.compact([b"all"])
        journal.append([b"more"])
    assert replay(directory) == ([b"all", b"more"], None)
    assert sorted(path.name for path in directory.iterdir()) == ["journal-00000003.log", "lock"]


def test_compaction_is_due_when_the_journal_is_several_times_its_snapshot(directory, monkeypatch):
    monkeypatch.setattr(journal_module, "_COMPACTION_FLOOR", 0)
    with Journal.open(directory) as journal:
        assert not journal.is_compaction_due
        journal.append([b"x" * 1000])
        assert journal.is_compaction_due
        journal.compact([b"x"])
        assert not journal.is_compaction_due


def test_second_process_is_refused(directory):
    with Journal.open(directory), pytest.raises(LockHeld, match=str(os.getpid())):
        Journal.open(directory)


def test_whether_the_next_append_would_find_its_file(directory, written):
    with Journal.open(directory) as journal:
        assert journal.is_writable()
        written[0].rename(directory / "away")
        assert not journal.is_writable()
        (directory / "away").rename(written[0])
        assert journal.is_writable()
    assert not journal.is_writable()


def test_closed_journal_refuses(directory):
    journal = Journal.open(directory)
    journal.close()
    journal.close()
    with pytest.raises(StorageError, match="closed"):
        journal.append([b"x"])


def test_cut_at_every_byte(tmp_path, written):
    """A cut in the header or snapshot is damage; behind it, whole batches stay and the rest is kept aside."""
    source, offsets = written
    data = source.read_bytes()
    counts = []
    for cut in range(len(data)):
        directory = tmp_path / f"cut-{cut}"
        directory.mkdir()
        (directory / source.name).write_bytes(data[:cut])
        if cut < offsets[0]:
            with pytest.raises(StorageError, match="damaged at byte"):
                Journal.open(directory)
            assert (directory / source.name).read_bytes() == data[:cut]
            continue
        found, torn = replay(directory)
        whole = [batch for batch, end in zip(BATCHES, offsets[1:], strict=True) if end <= cut]
        assert found == [b"snapshot", *(record for batch in whole for record in batch)]
        start = max(offset for offset in offsets if offset <= cut)
        if cut == start:
            assert torn is None
        else:
            assert (torn.offset, torn.size) == (start, cut - start)
            assert torn.copy.read_bytes() == data[start:cut]
            assert replay(directory) == (found, None)
        counts.append(len(whole))
        shutil.rmtree(directory)
    assert set(counts) == {0, 1, 2}


def test_flip_of_every_byte(tmp_path, written):
    """Damage anywhere is refused with file and offset, except in the last batch, where it looks like a torn append."""
    source, offsets = written
    data = source.read_bytes()
    for position in range(len(data)):
        directory = tmp_path / f"flip-{position}"
        directory.mkdir()
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        (directory / source.name).write_bytes(damaged)
        if position >= offsets[-2]:
            found, torn = replay(directory)
            assert found == [b"snapshot", *(record for batch in BATCHES[:-1] for record in batch)]
            assert torn.copy.read_bytes() == damaged[offsets[-2] :]
        else:
            with pytest.raises(StorageError, match=f"{source.name} is damaged at byte [0-9]+: ") as caught:
                Journal.open(directory)
            assert "Nothing was changed" in str(caught.value)
            assert (directory / source.name).read_bytes() == damaged
        shutil.rmtree(directory)


def test_lost_batch_is_noticed(directory, written):
    path, offsets = written
    data = path.read_bytes()
    path.write_bytes(data[: offsets[1]] + data[offsets[2] :])
    with pytest.raises(StorageError, match="batch 4 stands where batch 3 belongs"):
        Journal.open(directory)


def test_newer_format_and_wrong_number_are_refused(directory, written, monkeypatch):
    path, _ = written
    path.rename(directory / "journal-00000009.log")
    with pytest.raises(StorageError, match="says that it is segment 2"):
        Journal.open(directory)
    monkeypatch.setattr(segment, "FORMAT", 0)
    with pytest.raises(StorageError, match="format 1, this release reads up to 0"):
        Journal.open(directory)


@pytest.mark.parametrize("taken", [0, 7])
def test_full_disk_refuses_the_command_and_keeps_the_journal(directory, monkeypatch, taken):
    with Journal.open(directory) as journal:
        journal.append([b"before"])
        real = os.write
        left = [taken]

        def write(descriptor, data):
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, left[0] = real(descriptor, data[: left[0]]), 0
            return written

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(StorageError, match="Make room on the file system"):
                journal.append([b"refused"])
            with pytest.raises(StorageError, match="cannot be compacted"):
                journal.compact([b"refused"])
        journal.append([b"after"])
    assert replay(directory) == ([b"before", b"after"], None)
    assert sorted(path.name for path in directory.iterdir()) == ["journal-00000001.log", "lock"]


def failing(number):
    def call(*_args):
        raise OSError(number, os.strerror(number))

    return call


def test_failed_sync_ends_the_use_of_the_journal(directory, monkeypatch):
    with Journal.open(directory) as journal:
        journal.append([b"before"])
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "_sync_data", failing(errno.EIO))
            with pytest.raises(StorageError, match="must be restarted"):
                journal.append([b"refused"])
        with pytest.raises(StorageError, match="could not be synced"):
            journal.append([b"refused, too"])
    assert replay(directory) == ([b"before"], None)


def test_append_that_can_be_neither_made_nor_undone_ends_the_use(directory, monkeypatch):
    with Journal.open(directory) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing(errno.ENOSPC))
            patch.setattr(os, "truncate", failing(errno.EIO))
            with pytest.raises(StorageError, match="neither appended to"):
                journal.append([b"refused"])
        with pytest.raises(StorageError, match="neither appended to"):
            journal.append([b"refused"])


def test_compaction_that_fails_after_its_rename_ends_the_use(directory, monkeypatch):
    # Otherwise appends would go on in a segment that the next opening throws away.
    with Journal.open(directory) as journal:
        journal.append([b"before"])
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "sync_directory", failing(errno.EIO))
            with pytest.raises(StorageError, match="cannot be compacted"):
                journal.compact([b"snapshot"])
        with pytest.raises(StorageError, match="could not be synced"):
            journal.append([b"lost otherwise"])
    assert replay(directory) == ([b"snapshot"], None)


def test_unreadable_directory_is_an_error_that_names_it(tmp_path):
    (tmp_path / "journal").touch()
    with pytest.raises(StorageError, match=str(tmp_path / "journal")):
        Journal.open(tmp_path / "journal")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal-00000001.log").mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        Journal.open(tmp_path / "other")


# Appends numbers and says each one after it is durable; compacts now and then.
WRITER = """
import sys
from pathlib import Path
from clusterd.storage.journal import Journal
with Journal.open(Path(sys.argv[1])) as journal:
    records = journal.replay()
    for _ in range(7):
        record = b"%d" % len(records)
        journal.append([record])
        records.append(record)
        print(record.decode(), flush=True)
        if len(records) % 3 == 0:
            journal.compact(records)
"""
POINTS = [name for name in fault.POINTS if name.startswith("journal.")]
TABLE = "journal: killed at every write, fsync and rename"
CELLS = cells.declare(
    TABLE, [(name, n) for name in POINTS for n in (1, 2) if (name, n) != ("journal.repair.before_truncate", 2)]
)


def run_writer(directory, **environment):
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(directory)],
        env=environment,
        cwd=Path(clusterd.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("name", "n"), CELLS)
def test_killed_at_every_fault_point_nothing_acknowledged_is_lost(directory, name, n):
    acknowledged = []
    if name == "journal.repair.before_truncate":
        first = run_writer(directory)
        acknowledged = first.stdout.split()
        (segment_file,) = directory.glob("*.log")
        with segment_file.open("ab") as file:
            file.write(segment.MARK + b"torn")
    done = run_writer(directory, CLUSTERD_FAULT=f"{name}:{n}=kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged += done.stdout.split()
    with Journal.open(directory) as journal:
        found = [record.decode() for record in journal.replay()]
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + 1
    assert found == [str(number) for number in range(len(found))]
    # And it goes on from there: nothing in the way, nothing left over.
    again = run_writer(directory)
    assert again.returncode == 0, again.stderr
    assert sum(1 for _ in directory.glob("journal-*.log")) == 1
    assert not list(directory.glob("*.tmp"))
    cells.record_cell(TABLE, (name, n))


def test_interrupted_append_ends_the_use(directory, monkeypatch):
    with Journal.open(directory) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "_sync_data", lambda _descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                journal.append([b"perhaps"])
        with pytest.raises(StorageError, match="interrupted"):
            journal.append([b"x"])
