from __future__ import annotations

import asyncio
import os

import pytest

from clusterd.daemon import logs
from clusterd.daemon.log_times import later_lines, time_of
from clusterd.daemon.logs import LogFiles, sources_of
from clusterd.errors import ControlError
from clusterd.system.inotify import Watcher

SETS = ["engines", "gpu-big"]
NAMES = [
    "controller.log",
    "daemon.log",
    "agent-engines.log",
    "agent-gpu-big.log",
    "engine-engines-3.log",
    "engine-engines-30.log",
    "engine-gpu-big-3.log",
    "engine-engines-3.log.1",
]


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        (None, NAMES[:-1]),
        ("controller", ["controller.log"]),
        ("engine/3", ["engine-engines-3.log"]),
        ("3", ["engine-engines-3.log"]),
        ("gpu-big/3", ["engine-gpu-big-3.log"]),
        ("engines", ["engine-engines-3.log", "engine-engines-30.log"]),
        ("agent", ["agent-engines.log", "agent-gpu-big.log"]),
        ("agent/gpu-big", ["agent-gpu-big.log"]),
        ("controller,engines", ["controller.log", "engine-engines-3.log", "engine-engines-30.log"]),
        ("daemon, engines/30", ["daemon.log", "engine-engines-30.log"]),
    ],
)
def test_sources(text, matched):
    assert [name for name in NAMES if sources_of(text, SETS).fullmatch(name)] == matched


@pytest.mark.parametrize("text", ["engine", "enginse/3", "gpu/1", "agent/cpu", "../x", "engines/-1", ".*"])
def test_what_is_no_source_is_refused_with_those_there_are(text):
    with pytest.raises(ControlError, match="controller, daemon, agent, engines, gpu-big") as caught:
        sources_of(text, SETS)
    assert caught.value.code == "not_found"


async def take(generator, count):
    return [await anext(generator) for _ in range(count)]


def read(directory, tail, text=None):
    async def run():
        return [item async for item in LogFiles(directory, sources_of(text, SETS)).lines(tail, follow=False)]

    return asyncio.run(run())


@pytest.fixture
def directory(isolated):
    return isolated.temporary


def test_the_last_lines_of_each(directory):
    (directory / "controller.log").write_text("a\nb\nc\n")
    (directory / "engine-engines-10.log").write_text("ten\n")
    (directory / "engine-engines-9.log").write_text("nine\r\nunfinished")
    (directory / "other.log").write_text("not ours\n")
    assert read(directory, 2) == [
        {"source": "controller", "line": "b"},
        {"source": "controller", "line": "c"},
        {"source": "engines/9", "line": "nine"},
        {"source": "engines/10", "line": "ten"},
    ]
    assert read(directory, 0) == []


def test_a_tail_longer_than_a_block_is_read_back_from_the_end(directory, monkeypatch):
    monkeypatch.setattr(logs, "BLOCK", 7)
    (directory / "controller.log").write_text("".join(f"line {number}\n" for number in range(100)))
    assert [item["line"] for item in read(directory, 5)] == [f"line {number}" for number in range(95, 100)]
    assert len(read(directory, 1000)) == 100


def test_bytes_that_are_no_text_are_shown_all_the_same(directory):
    (directory / "controller.log").write_bytes(b"\xff\xfe half\n")
    assert read(directory, 1) == [{"source": "controller", "line": "\ufffd\ufffd half"}]


def test_no_directory_is_no_lines(directory):
    assert read(directory / "absent", 5) == []


def test_a_link_is_not_followed(directory):
    (directory / "controller.log").symlink_to("/etc/passwd")
    assert read(directory, 5) == []


@pytest.mark.parametrize("has_inotify", [True, False])
def test_lines_are_followed_through_rotation_and_new_files(directory, monkeypatch, has_inotify):
    if not has_inotify:
        monkeypatch.setattr(Watcher, "open", classmethod(lambda _cls, _directory: None))
        monkeypatch.setattr(logs, "LOOK_EVERY", 0.01)
    first = directory / "engine-engines-0.log"
    first.write_text("old\n")

    async def run():
        lines = LogFiles(directory, sources_of("engines", SETS)).lines(5, follow=True)
        assert await take(lines, 1) == [{"source": "engines/0", "line": "old"}]
        with first.open("a") as file:
            file.write("half")
            file.flush()
            file.write(" and half\n")
        assert await take(lines, 1) == [{"source": "engines/0", "line": "half and half"}]
        with first.open("a") as file:
            file.write("last\n")
        first.rename(first.with_suffix(".log.1"))
        first.write_text("new\n")
        assert [item["line"] for item in await take(lines, 2)] == ["last", "new"]
        first.write_text("")
        first.write_text("c\n")
        (directory / "engine-engines-1.log").write_text("another\n")
        assert {(item["source"], item["line"]) for item in await take(lines, 2)} == {
            ("engines/0", "c"),
            ("engines/1", "another"),
        }
        await lines.aclose()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_flood_is_read_in_pieces_and_in_full(directory, monkeypatch):
    monkeypatch.setattr(logs, "READ_MAX", 100)
    file = directory / "controller.log"
    file.write_text("")

    async def run():
        lines = LogFiles(directory, sources_of(None, SETS)).lines(5, follow=True)
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        file.write_text("".join(f"{number}\n" for number in range(1000)))
        found = [(await waiting)["line"], *(item["line"] for item in await take(lines, 999))]
        await lines.aclose()
        return found

    assert asyncio.run(asyncio.wait_for(run(), 10)) == [str(number) for number in range(1000)]


def test_engines_are_those_of_all_sets_where_no_set_has_that_name():
    found = [name for name in NAMES if sources_of("engines", ["gpu-big", "cpu"]).fullmatch(name)]
    assert found == ["engine-engines-3.log", "engine-engines-30.log", "engine-gpu-big-3.log"]


STAMPED = [
    b"2026-03-10T12:00:00.000 INFO hub: one",
    b"Traceback",
    b"2026-03-10T12:00:10.500 INFO hub: two",
    b"  of two",
    b'{"time": 1.5, "level": "info"}',
]


def test_lines_say_when_they_were_written():
    assert time_of(STAMPED[2]) - time_of(STAMPED[0]) == 10.5
    assert time_of(STAMPED[4]) == 1.5
    assert [time_of(line) for line in (b"Traceback", b"", b"2026-99-10T12:00:00.000 x", b'{"time": "x"}')] == [None] * 4


def test_later_lines():
    noon = time_of(STAMPED[0])
    lines = STAMPED[:4]
    assert later_lines(lines, noon - 1) == lines
    assert later_lines(lines, noon + 1) == lines[2:]
    assert later_lines(lines, noon + 11) == []
    # What users print says nothing of time.
    assert later_lines([b"a", b"b"], noon) == [b"a", b"b"]
    assert later_lines([], noon) == []


def test_a_file_that_was_not_written_since_is_left_out(tmp_path):
    old, new = tmp_path / "engine-engines-1.log", tmp_path / "engine-engines-2.log"
    old.write_text("old\n")
    new.write_text("new\n")
    os.utime(old, (1000.0, 1000.0))
    os.utime(new, (3000.0, 3000.0))

    async def read():
        files = LogFiles(tmp_path, sources_of(None, SETS))
        return [line["line"] async for line in files.lines(10, follow=False, after=2000.0)]

    assert asyncio.run(read()) == ["new"]
