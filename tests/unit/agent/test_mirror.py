"""What engines print, on its way to a journald that is a socket of the test."""

from __future__ import annotations

import os
import socket

import pytest

from clusterd.agent import mirror
from clusterd.agent.mirror import Mirror
from clusterd.core.model.launch import AgentSpec


class Scene:
    """A directory of logs, a journal, and what lies between."""

    def __init__(self, root):
        self.logs = root / "log"
        self.logs.mkdir()
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(str(root / "journal"))
        self.journal.setblocking(False)
        self.address = str(root / "journal")

    def spec(self, **changes):
        places = {"profile_dir": "/p", "runtime_dir": "/r", "log_dir": str(self.logs), "connection_file": "/f"}
        return AgentSpec(launch="l", cluster="c", engine_set="s", **places, **{"journal": True, **changes})

    def open(self, **changes):
        return Mirror.open(self.spec(**changes), self.address)

    def write(self, slot, text):
        with (self.logs / f"engine-s-{slot}.log").open("a") as file:
            file.write(text)

    def sent(self):
        """(engine, line) of all messages that have come."""
        found = []
        while True:
            try:
                message = self.journal.recv(1 << 20).decode()
            except BlockingIOError:
                return found
            fields = dict(field.split("=", 1) for field in message.removesuffix("\n").split("\n"))
            assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("6", "clusterd-engine")
            found.append((fields["CLUSTERD_ENGINE"], fields["MESSAGE"]))


@pytest.fixture
def scene(isolated):
    scene = Scene(isolated.temporary)
    yield scene
    scene.journal.close()


@pytest.fixture
def following(scene):
    scene.write(0, "before\n")
    following = scene.open()
    yield following
    following.close()


def test_new_lines_of_all_engines_are_sent_and_old_ones_are_not(scene, following):
    scene.write(0, "one\n\ntwo\nthr")
    scene.write(1, "other\n")
    (scene.logs / "controller.log").write_text("not an engine\n")
    (scene.logs / "engine-t-1.log").write_text("of another set\n")
    following.forward()
    assert scene.sent() == [("s/0", "one"), ("s/0", "two"), ("s/1", "other")]
    scene.write(0, "ee\n")
    following.forward()
    assert scene.sent() == [("s/0", "three")]
    following.forward()
    assert scene.sent() == []


def test_rotation_loses_no_line(scene, following):
    scene.write(0, "one\n")
    following.forward()
    scene.write(0, "two\n")
    (scene.logs / "engine-s-0.log").rename(scene.logs / "engine-s-0.log.1")
    scene.write(0, "three\n")
    following.forward()
    assert [line for _, line in scene.sent()] == ["one", "two", "three"]


def test_a_file_that_is_cut_is_read_anew(scene, following):
    os.truncate(scene.logs / "engine-s-0.log", 0)
    scene.write(0, "new\n")
    following.forward()
    assert scene.sent() == [("s/0", "new")]


def test_what_is_too_much_at_once_is_left_out_and_said_so(scene, following, monkeypatch):
    monkeypatch.setattr(mirror, "TURN_MAX", 100)
    scene.write(0, "x" * 49 + "\n")
    scene.write(0, ("y" * 49 + "\n") * 2)
    following.forward()
    assert scene.sent() == [
        ("s/0", f"clusterd: 50 bytes are left out here, they are in {scene.logs}/engine-s-0.log"),
        *[("s/0", "y" * 49)] * 2,
    ]


def test_a_line_without_an_end_that_is_too_long_is_cut(scene, following, monkeypatch):
    monkeypatch.setattr(mirror, "LINE_MAX", 10)
    scene.write(0, "x" * 25)
    following.forward()
    assert scene.sent() == [("s/0", "x" * 10)]


def test_a_journal_that_takes_nothing_is_not_waited_for_and_gets_the_rest_later(scene, following):
    # A datagram socket holds but a few messages of somebody who does not read.
    lines = [str(number) for number in range(2000)]
    scene.write(0, "".join(f"{line}\n" for line in lines))
    following.forward()
    got = [line for _, line in scene.sent()]
    assert 0 < len(got) < 2000
    assert len(following.pollables()) == 2
    while len(following.pollables()) == 2:
        following.forward()
        got += [line for _, line in scene.sent()]
    assert got == lines


def test_without_a_journald_lines_are_let_go(scene, following):
    scene.journal.close()
    scene.write(0, "one\n")
    following.forward()
    assert len(following.pollables()) == 1


def test_without_a_journal_or_a_wish_there_is_no_mirror(scene):
    assert scene.open(journal=False) is None
    assert Mirror.open(scene.spec(), str(scene.logs / "none")) is None
