"""What is printed is kept up to the bound and in the log at once."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterd.engine.output import Output, Stream


@pytest.fixture
def log(tmp_path):
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def content(log):
    return os.pread(log, 10**7, 0).decode()


def test_whole_lines_are_in_the_log_at_once(log):
    stream = Stream(log)
    print("a", "b", file=stream)
    assert content(log) == "a b\n"
    print("c", end="", file=stream)
    assert content(log) == "a b\n"
    stream.flush()
    assert content(log) == "a b\nc"


def test_the_end_of_a_task_brings_an_unfinished_line_into_the_log(log):
    stream = Stream(log)
    stream.write("50 %\r")
    assert stream.take() == "50 %\r"
    assert content(log) == "50 %\r"


def test_a_line_without_end_does_not_wait_for_ever(log):
    stream = Stream(log)
    for _ in range(100):
        stream.write("x" * 100)
    assert len(content(log)) > 8000


def test_take_gives_each_text_once(log):
    stream = Stream(log)
    stream.write("one\n")
    assert stream.take() == "one\n"
    assert stream.take() == ""


def test_beyond_the_bound_the_last_is_kept_and_the_rest_counted(log):
    stream = Stream(log, limit=10)
    for n in range(1000):
        stream.write(f"{n:03}\n")
    assert stream.take() == "... 3990 bytes dropped\n7\n998\n999\n"
    assert len(content(log)) == 4000
    stream.write("after\n")
    assert stream.take() == "after\n"


def test_memory_is_bounded_while_a_task_prints_for_ever(log):
    stream = Stream(log, limit=1000)
    for _ in range(1000):
        stream.write("y" * 99 + "\n")
        assert sum(map(len, stream._kept)) <= 2100


def test_a_cut_within_a_character_is_no_error(log):
    stream = Stream(log, limit=3)
    stream.write("ää\n" * 3)
    assert stream.take().startswith("... ")


def test_what_has_no_encoding_is_escaped(log):
    stream = Stream(log)
    stream.write("\ud800\n")
    assert stream.take() == "\\ud800\n"


def test_bytes_through_buffer_come_in_order(log):
    stream = Stream(log)
    stream.write("a")
    stream.buffer.write(b"b\xff")
    stream.write("c\n")
    assert stream.take() == "ab\ufffdc\n"


def test_child_processes_write_into_the_log(log):
    stream = Stream(log)
    subprocess.run(["echo", "child"], stdout=stream, check=True)
    assert content(log) == "child\n"


def test_only_text_can_be_written(log):
    with pytest.raises(TypeError, match="must be str, not bytes"):
        Stream(log).write(b"x")


def test_it_is_a_text_stream_like_any_other(log):
    stream = Stream(log)
    assert stream.writable()
    assert not stream.readable()
    assert not stream.isatty()
    stream.writelines(["a", "b\n"])
    with contextlib.redirect_stdout(stream):
        print("c")  # noqa: T201
    assert stream.take() == "ab\nc\n"
    with pytest.raises(io.UnsupportedOperation):
        stream.read()


def test_a_full_disk_fails_no_task():
    with Path("/dev/full").open("wb", buffering=0) as full:
        stream = Stream(full.fileno())
        stream.write("lost in the log\n")
        assert stream.take() == "lost in the log\n"


def test_install_replaces_the_originals_too(monkeypatch):
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    output = Output()
    output.install()
    assert sys.stdout is sys.__stdout__ is output.stdout
    assert sys.stderr is sys.__stderr__ is output.stderr
    assert output.take() == ("", "")
