import mmap
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.model import page
from clusterd.core.model.page import ALL_ORDERS, PageHeader, PageWriter
from clusterd.system import barrier

UUID = bytes(range(16))
HEADER = PageHeader(3, 4711, UUID)


def no_fence():
    pass


@pytest.fixture
def memory():
    return memoryview(bytearray(page.SIZE))


@pytest.fixture
def writer(memory):
    return PageWriter(memory, HEADER, 1.0, fence=barrier.light)


def record(memory):
    return page.read(memory)[1]


def test_page_that_nobody_began_says_nothing(memory):
    assert page.read(memory) is None


def test_new_page_is_starting(memory, writer):
    header, first = page.read(memory)
    assert header == HEADER
    assert (first.state, first.task, first.wire_id, first.order, first.since) == ("starting", b"", -1, 0, 1.0)


def test_task_is_shown_while_it_runs_and_counted_afterwards(memory, writer):
    writer.attach(7, 12, 2.0)
    assert writer.begin(1, b"task", 2, 3.0, "fit")
    running = record(memory)
    assert running == ("running", b"task", 2, 1, 7, 12, 3.0, 0, 0, "fit", False)
    writer.end(4.0)
    assert writer.begin(2, b"t" * 64, 0, 5.0, has_results=True)
    assert record(memory).task == b"t" * 64
    assert record(memory).has_results
    writer.end(6.0, is_failed=True)
    assert record(memory) == ("idle", b"", 0, 2, 7, 12, 6.0, 2, 1, "", False)
    writer.stop(7.0)
    assert record(memory).state == "stopping"


@given(st.text(max_size=100))
def test_label_is_cut_between_characters(label):
    memory = memoryview(bytearray(page.SIZE))
    writer = PageWriter(memory, HEADER, 0.0, fence=no_fence)
    writer.begin(1, b"t", 0, 0.0, label)
    shown = record(memory).label
    assert label.encode(errors="replace").decode().startswith(shown)
    assert len(shown.encode()) == len(label.encode(errors="replace")) or len(shown.encode()) > 60


def test_writer_killed_between_the_stores_leaves_the_old_record(memory, writer):
    writer.begin(1, b"first", 0, 2.0)
    # What a writer does before its second store: the other record is half written.
    struct.pack_into("=QB", memory, page._RECORDS[(writer._number + 1) & 1], 99, 1)
    assert record(memory).task == b"first"


def test_reader_that_is_overtaken_for_ever_gives_up(memory, writer):
    # Both copies of the number must agree with the sequence word: here they never do.
    struct.pack_into("=Q", memory, page._RECORDS[writer._number & 1], 12345)
    assert page.read(memory) is None


def test_other_layout_is_not_misread(memory, writer):
    struct.pack_into("=I", memory, 8, page.VERSION + 1)
    assert page.read(memory) is None
    assert page.revoke(memory, 1, 1, 2, fence=no_fence) is None


def test_revoked_order_is_not_begun(memory, writer):
    writer.attach(7, 0, 1.0)
    assert writer.begin(1, b"a", 0, 1.0)
    assert page.revoke(memory, 7, 2, 3, fence=barrier.full).order == 1
    writer.end(2.0)
    assert not writer.begin(2, b"b", 0, 2.0)
    assert record(memory).state == "idle"
    assert not writer.begin(3, b"c", 0, 2.0)
    assert writer.begin(4, b"d", 0, 2.0)
    assert record(memory).done == 1


def test_later_revocation_keeps_the_earlier_one(memory, writer):
    writer.attach(7, 0, 1.0)
    page.revoke(memory, 7, 5, 6, fence=no_fence)
    page.revoke(memory, 7, 8, 8, fence=no_fence)
    assert [order for order in range(1, 10) if writer.begin(order, b"t", 0, 0.0)] == [1, 2, 3, 4, 7, 9]


def test_everything_revoked_for_one_controller_is_not_for_the_next(memory, writer):
    writer.attach(7, 0, 1.0)
    page.revoke(memory, 7, 0, ALL_ORDERS, fence=no_fence)
    assert not writer.begin(1, b"t", 0, 0.0)
    writer.attach(8, 0, 2.0)
    assert record(memory).order == 0
    assert writer.begin(1, b"t", 0, 0.0)


def test_attaching_again_to_the_same_controller_keeps_the_order(memory, writer):
    writer.attach(7, 0, 1.0)
    writer.begin(5, b"t", 0, 1.0)
    writer.end(1.0)
    writer.attach(7, 0, 2.0)
    assert record(memory).order == 5


def test_too_many_ranges_are_refused_and_passed_ones_are_reused(memory, writer):
    writer.attach(7, 0, 1.0)
    for index in range(page._RANGE_MAX):
        assert page.revoke(memory, 7, 10 + 2 * index, 10 + 2 * index, fence=no_fence) is not None
    assert page.revoke(memory, 7, 1000, 1000, fence=no_fence) is None
    assert writer.begin(1000, b"t", 0, 0.0)
    assert page.revoke(memory, 7, 2000, 2000, fence=no_fence).order == 1000
    assert not writer.begin(2000, b"t", 0, 0.0)


def test_agent_or_engine_sees_the_other():
    """The engine publishes and then looks, the agent stores and then looks: in each order one of them notices."""
    for agent_first in (True, False):
        memory = memoryview(bytearray(page.SIZE))
        seen = []

        def engine_fence(memory=memory, seen=seen):
            # The agent acts between the engine's publication and its look at the ranges.
            seen.append(page.revoke(memory, 7, 1, 1, fence=no_fence))

        writer = PageWriter(memory, HEADER, 0.0, fence=no_fence if agent_first else engine_fence)
        writer.attach(7, 0, 0.0)
        if agent_first:
            seen.append(page.revoke(memory, 7, 1, 1, fence=no_fence))
        is_begun = writer.begin(1, b"t", 0, 0.0)
        assert not is_begun or seen[0].order == 1


def test_fields_do_not_overlap():
    assert page._HEADER.size <= page._SEQUENCE
    assert page._RECORDS[0] >= page._SEQUENCE + 8
    assert page._RECORDS[0] + page._RECORD.size <= page._RECORDS[1]
    assert page._RECORDS[1] + page._RECORD.size <= page._RANGE_COUNT
    assert page._RANGES + 24 * page._RANGE_MAX <= page.SIZE


def test_two_processes_over_a_mapping():
    with mmap.mmap(-1, page.SIZE) as mapping:
        pid = os.fork()
        if pid == 0:
            writer = PageWriter(memoryview(mapping), HEADER, 0.0, fence=barrier.light)
            for order in range(1, 3000):
                writer.begin(order, b"%d" % order, order & 0xFFFF, float(order), str(order))
                writer.end(float(order))
            os._exit(0)
        with memoryview(mapping) as view:
            last = 0
            while last < 2999:
                seen = page.read(view)
                if seen is None:
                    continue
                now = seen[1]
                assert now.order >= last
                last = now.order
                if now.state == "running":
                    assert (now.task, now.since, now.label) == (b"%d" % last, float(last), str(last))
        assert os.waitpid(pid, 0)[1] == 0


def test_mapping_can_be_closed_after_release():
    mapping = mmap.mmap(-1, page.SIZE)
    writer = PageWriter(memoryview(mapping), HEADER, 0.0, fence=no_fence)
    with memoryview(mapping) as view:
        page.read(view)
        page.revoke(view, 1, 1, 1, fence=no_fence)
    writer.release()
    mapping.close()


def test_epochs_tell_controllers_apart_and_are_never_the_one_of_no_controller():
    assert page.epoch_of(bytes(16)) == 1
    assert page.epoch_of(bytes(range(16))) != page.epoch_of(bytes(range(1, 17)))
    assert page.epoch_of(b"\xff" * 16) < 2**64
