"""The zygote's server where the system says no."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from clusterd.agent.zygote import messages as z
from clusterd.agent.zygote.server import Zygote, main
from clusterd.core.model.launch import AgentSpec


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, Zygote(theirs)


def test_a_fork_that_the_system_refuses_is_told(pair, monkeypatch):
    ours, zygote = pair
    zygote._spec = AgentSpec(
        launch="l", cluster="c", engine_set="s", profile_dir="", runtime_dir="", log_dir="", connection_file=""
    )
    zygote._run = lambda _slot, _uuid: 0
    zygote._inheritance = ()

    def refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    ours.send(z.encode(z.Fork(0, b"u" * 16, {}, [])))
    assert zygote._obey()
    answer = z.decode_from_zygote(ours.recv(z.MAX_PACKET))
    assert answer == z.ForkFailed(b"u" * 16, "fork: Resource temporarily unavailable (limits of processes or memory?)")


def test_an_order_before_the_configuration_is_refused(pair):
    ours, zygote = pair
    ours.send(z.encode(z.Fork(0, b"u" * 16, {}, [])))
    assert zygote._obey()
    assert z.decode_from_zygote(ours.recv(z.MAX_PACKET)).reason == "the zygote was not configured"


def test_the_end_of_the_agent_is_the_end(pair):
    ours, zygote = pair
    ours.close()
    assert zygote.serve() == 0


@pytest.mark.parametrize("argv", [[], ["x"], ["1", "2"]])
def test_usage(argv, capsys):
    assert main(argv) == 2
    assert "usage" in capsys.readouterr().err
