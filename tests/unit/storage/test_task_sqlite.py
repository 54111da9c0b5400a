"""A SQLite store whose file is damaged, somebody else's, too old or too large; and one that cannot write for a while."""

from __future__ import annotations

import logging
import sqlite3
import stat
import time

import pytest

from clusterd.core.wire.messages import APPLY
from clusterd.errors import StorageError, UnknownTask
from clusterd.storage.taskstore import schema, written
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.row import Outcome, TaskRow
from clusterd.storage.taskstore.sqlite import SqliteFile, SqliteStore
from tests.waiting import until


@pytest.fixture
def path(tmp_path):
    return tmp_path / "db" / "tasks.db"


@pytest.fixture
def opened(path, monkeypatch):
    """Opens stores on the file, and closes them."""
    monkeypatch.setattr(written, "BACKOFF", (0.01, 0.02))
    stores = []

    def open_it(**options) -> SqliteStore:
        stores.append(SqliteStore(path, **{"ttl": None, "max_bytes": 2**30, **options}))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


def put(store: SqliteStore, msg_id: str, *, body: bytes = b"x", submitted: float | None = None) -> TaskRow:
    row = TaskRow(msg_id, "c", "task", submitted or time.time(), kind=APPLY, body=body)
    store.put(row)
    return row


def end(store: SqliteStore, row: TaskRow, *, completed: float | None = None) -> TaskRow:
    row.outcome = Outcome("ok", completed or time.time(), completed or time.time(), body=b"y")
    store.update(row)
    return row


# --- pages ---


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_page_looks_at_no_more_than_it_says(opened, newest_first):
    store = opened()
    for number in range(3000):
        end(store, put(store, str(number)))
    assert store.flush()
    assert store.page(parse({}), limit=1).rows
    instructions = []
    store.file._reader.set_progress_handler(lambda: instructions.append(50), 50)
    rows, rest = store.page(parse({"status": "error"}), Span(500, 2500), limit=5, look=10, newest_first=newest_first)
    assert (rows, rest) == ([], Span(500, 2490) if newest_first else Span(510, 2500))
    # Some dozen of SQLite's virtual machine for each row; a look at all of them would be 30,000.
    assert sum(instructions) < 1000


# --- the file ---


def test_the_file_is_for_its_owner_alone(opened, path):
    store = opened()
    put(store, "a")
    assert store.flush()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["tasks.db", "tasks.db-shm", "tasks.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_garbage_is_set_aside(opened, path, caplog):
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"this is no database" * 1000)
    with caplog.at_level(logging.ERROR):
        store = opened()
    (kept,) = store.file.set_aside
    assert kept.read_bytes() == b"this is no database" * 1000
    assert kept.name in caplog.text
    put(store, "a")
    assert store.flush()
    assert store.history() == ["a"]


def test_the_database_of_another_program_is_set_aside_as_it_is(opened, path):
    path.parent.mkdir(mode=0o700)
    other = sqlite3.connect(path)
    with other:
        other.execute("CREATE TABLE theirs (a)")
        other.execute("INSERT INTO theirs VALUES (42)")
    other.close()
    store = opened()
    (kept,) = store.file.set_aside
    theirs = sqlite3.connect(kept)
    assert theirs.execute("SELECT a FROM theirs").fetchall() == [(42,)]
    theirs.close()
    assert store.history() == []


def test_a_file_of_a_later_release_is_set_aside(opened, path):
    opened().close()
    later = sqlite3.connect(path)
    later.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    later.close()
    store = opened()
    assert len(store.file.set_aside) == 1
    put(store, "a")
    assert store.flush()


def test_two_files_set_aside_in_one_second_have_two_names(opened, path):
    path.parent.mkdir(mode=0o700)
    for _ in range(2):
        path.write_bytes(b"garbage" * 1000)
        store = opened()
        store.close()
    assert len(list(path.parent.glob("tasks.db.set-aside-*"))) == 2


def test_an_empty_file_is_begun(opened, path):
    path.parent.mkdir(mode=0o700)
    path.touch()
    store = opened()
    assert store.file.set_aside == []
    put(store, "a")
    assert store.flush()


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside_and_what_lives_is_written_anew(opened, path, monkeypatch):
    # This thread uses the writer's connection, so the writer must not.
    monkeypatch.setattr(SqliteFile, "tidy", lambda *_: 0)
    store = opened()
    ended = end(store, put(store, "ended", body=b"x" * 100_000))
    living = put(store, "living", body=b"args")
    assert store.flush()
    # What a broken disk would do to every page but the first; what SQLite has of them in memory is dropped.
    store.file._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    store.file._writer.execute("PRAGMA shrink_memory")
    put(store, "new")
    assert store.flush(20)
    assert store.trouble == ""
    assert len(store.file.set_aside) == 1
    assert store.history() == ["living", "new"]
    assert store.get("living").body == b"args"
    with pytest.raises(UnknownTask):
        store.get(ended.msg_id)
    end(store, living)
    assert store.flush()
    assert store.get("living").outcome.status == "ok"


def test_a_directory_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "db").write_text("a file")
    with pytest.raises(StorageError, match="cannot be opened"):
        SqliteStore(tmp_path / "db" / "tasks.db", ttl=None, max_bytes=2**30)


# --- age and size ---


@pytest.fixture
def tidy(monkeypatch):
    """The writer looks after age and size all the time."""
    monkeypatch.setattr(written, "TIDY_SECONDS", 0.01)


def test_old_records_go(opened, tidy):
    store = opened(ttl=100.0)
    now = time.time()
    end(store, put(store, "old", submitted=now - 300), completed=now - 200)
    end(store, put(store, "young"), completed=now - 50)
    put(store, "waits", submitted=now - 300)
    until(lambda: sorted(store.history()) == ["waits", "young"], "the old one goes", about=store.history)
    assert store.flush()
    store.close()
    # What an earlier controller left unended goes by its age, too.
    again = opened(ttl=100.0)
    until(lambda: again.history() == ["young"], "the one that nobody can end goes", about=again.history)


def test_the_oldest_go_when_there_is_too_much_and_the_file_shrinks(opened, path, tidy):
    store = opened(max_bytes=5_000_000)
    for number in range(20):
        end(store, put(store, f"{number:02}", body=b"x" * 1_000_000), completed=1000.0 + number)
    put(store, "waits", body=b"x" * 1_000_000)
    expected = ["17", "18", "19", "waits"]
    assert store.flush()  # what has not ended counts, too, once it is written
    until(lambda: sorted(store.history()) == expected and store.flush(), "the oldest go", about=store.history)
    until(lambda: path.stat().st_size < 10_000_000, "the file shrinks", about=path.stat)
    until(lambda: store.size().records == 4, "they are counted", about=store.size)
    assert [row.body for row in store.query(parse({"msg_id": "19"}), buffers=True)] == [b"x" * 1_000_000]


def test_what_is_owed_stays_though_it_is_too_much_and_then_no_more_may_be_promised(opened, tidy, caplog):
    store = opened(max_bytes=3_000_000, is_durable=True)
    for number in range(5):
        row = put(store, f"{number}", body=b"x" * 1_000_000)
        row.is_owed = number > 0
        end(store, row)
    assert store.flush()
    owed = ["1", "2", "3", "4"]
    until(lambda: store.history() == owed, "what is owed to nobody goes", about=store.history)
    until(lambda: store.refusal, "it says so")
    assert "owed to clients takes 4" in store.refusal
    assert "max_size is 3000000" in store.refusal
    assert not store.trouble
    assert store.history() == owed
    store.settle(owed[:2])
    assert store.flush()
    until(lambda: not store.refusal, "there is room again", about=store.history)
    assert store.history() == owed[2:]
    assert "no durable tasks are taken" in caplog.text


# --- trouble ---


class Trouble:
    """Makes writing fail until told otherwise."""

    def __init__(self, store: SqliteStore, monkeypatch) -> None:
        self.is_on = True
        write = store.file.write

        def failing(rows, purged, settled) -> None:
            if self.is_on:
                raise StorageError("the disk is full")
            write(rows, purged, settled)

        monkeypatch.setattr(store.file, "write", failing)


def test_while_nothing_can_be_written_work_goes_on_and_is_written_later(opened, monkeypatch, caplog):
    store = opened()
    trouble = Trouble(store, monkeypatch)
    end(store, put(store, "a"))
    put(store, "b")
    assert not store.flush(0.2)
    assert store.trouble == "the disk is full"
    assert store.history() == ["a", "b"]
    assert store.purge(["a"]) == 1
    trouble.is_on = False
    assert store.flush()
    assert (store.trouble, store.lost, store.backlog) == ("", 0, 0)
    assert store.history() == ["b"]
    assert caplog.text.count("cannot be written") == 1


def test_what_waits_to_be_written_is_bounded_and_what_has_not_ended_is_kept(opened, monkeypatch):
    store = opened()
    store._max_backlog = 100_000
    Trouble(store, monkeypatch)
    waits = put(store, "waits", body=b"x" * 10_000)
    store.flush(0.05)
    assert store.trouble
    for number in range(50):
        end(store, put(store, str(number), body=b"x" * 10_000))
    assert store.backlog <= 120_000
    assert store.lost > 30
    kept = store.history()
    assert waits.msg_id in kept
    assert "49" in kept
    assert "0" not in kept


def test_a_slow_writer_slows_down_who_puts_instead_of_growing(opened, monkeypatch):
    store = opened()
    store._max_backlog = 50_000
    for number in range(200):
        end(store, put(store, str(number), body=b"x" * 10_000))
        assert store.backlog <= 70_000
    assert store.flush()
    assert (store.lost, store.size().records, store.backlog) == (0, 200, 0)


def test_one_row_that_cannot_be_written_keeps_no_other_from_it(opened, caplog):
    store = opened()
    put(store, "a")
    bad = put(store, "bad")
    bad.label = object()
    put(store, "b")
    assert store.flush()
    end(store, bad)
    assert store.flush()
    assert store.lost
    store.close()
    again = opened()
    assert again.history() == ["a", "b"]


def test_what_is_left_is_written_at_the_end(opened):
    store = opened()
    for number in range(1000):
        end(store, put(store, str(number)))
    store.close()
    again = opened()
    until(lambda: again.size().records == 1000, "they are counted")


def test_a_store_that_cannot_write_at_the_end_says_what_is_lost(opened, monkeypatch, caplog):
    store = opened()
    Trouble(store, monkeypatch)
    put(store, "a")
    store.close()
    assert "1 task records were not written: the disk is full" in caplog.text
