"""What a store in memory forgets, and in which order."""

from __future__ import annotations

import pytest

from clusterd.core.wire.messages import APPLY
from clusterd.errors import UnknownTask
from clusterd.storage.taskstore.memory import MemoryStore
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.row import ROW_BYTES, Outcome, Output, TaskRow


def put(store: MemoryStore, msg_id: str, size: int = 0) -> TaskRow:
    row = TaskRow(msg_id, "c", "task", 1.0, kind=APPLY, body=b"x" * size)
    store.put(row)
    return row


def end(store: MemoryStore, row: TaskRow, size: int = 0, buffers: tuple = ()) -> None:
    row.outcome = Outcome("ok", 2.0, 2.0, body=b"y" * size, buffers=buffers)
    store.update(row)


def test_the_task_that_ended_first_is_forgotten_first():
    store = MemoryStore(2, 2**30)
    rows = [put(store, name) for name in "abcd"]
    for row in reversed(rows):
        end(store, row)
    assert store.history() == ["a", "b"]
    assert store.size() == (2, 0, 2 * ROW_BYTES)


def test_what_has_not_ended_is_never_forgotten():
    store = MemoryStore(1, ROW_BYTES)
    pending = [put(store, f"p{number}", size=10_000) for number in range(10)]
    for number in range(5):
        end(store, put(store, f"e{number}"))
    assert store.history() == [*(row.msg_id for row in pending), "e4"]
    assert store.size().pending == 10


def test_bytes_are_bounded_whatever_they_are_of():
    store = MemoryStore(1000, 10 * ROW_BYTES)
    for number in range(20):
        end(store, put(store, str(number), size=100), size=400, buffers=(bytes(300), bytes(200)))
        assert store.size().bytes <= 10 * ROW_BYTES
    assert store.history() == ["15", "16", "17", "18", "19"][-len(store.history()) :]
    shown = put(store, "shown")
    shown.output = Output()
    shown.output.write("stdout", "x" * 9 * ROW_BYTES)
    end(store, shown)
    assert store.history() == ["shown"]


def test_what_is_purged_or_replaced_is_counted_no_more():
    store = MemoryStore(1000, 2**30)
    for number in range(10):
        end(store, put(store, str(number), size=100))
    assert store.purge([str(number) for number in range(9)]) == 9
    assert store.size() == (1, 0, ROW_BYTES + 100)
    put(store, "9", size=50)
    assert store.size() == (1, 1, 0)
    assert len(store._ended) <= 2
    end(store, store.get("9"))
    assert store.purge_matching(parse({})) == 1
    assert store.size() == (0, 0, 0)


def test_a_row_that_was_forgotten_may_change_and_stays_so():
    store = MemoryStore(1, 2**30)
    old = put(store, "old")
    end(store, old)
    end(store, put(store, "new"))
    store.update(old)
    with pytest.raises(UnknownTask):
        store.get("old")
    assert store.size().records == 1


def test_a_walk_that_was_given_up_does_not_hide_what_came_later():
    store = MemoryStore(100, 2**20)
    for name in "abcd":
        store.put(TaskRow(name, "c", "task", 0.0))

    def page(span, **options):
        rows, rest = store.page(parse({}), span, limit=2, look=2, **options)
        return "".join(row.msg_id for row in rows), rest

    found, rest = page(Span())
    assert (found, page(rest)[0]) == ("dc", "ba")
    store.put(TaskRow("b", "c", "task", 0.0))
    store.put(TaskRow("e", "c", "task", 0.0))
    assert page(Span(0, 5))[0] == "dc"
    assert page(Span(2, 7), newest_first=False) == ("cd", Span(4, 7))
    assert page(Span(4, 7), newest_first=False) == ("be", Span(6, 7))
    # Rows of the walk that are not there any more leave a gap, and no row is told twice.
    assert page(Span(0, 3)) == ("a", None)
