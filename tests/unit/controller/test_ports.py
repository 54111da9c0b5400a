"""Which ports a controller takes."""

from __future__ import annotations

import zmq

from clusterd.controller import sockets


def test_ports_that_nobody_named_lie_outside_the_kernels_own(tmp_path, monkeypatch):
    path = tmp_path / "range"
    path.write_text("32768\t60999\n")
    monkeypatch.setattr(sockets, "LOCAL_PORTS", path)
    *tried, last = sockets.candidates(None, [])
    assert last == 0
    assert len(set(tried)) == sockets.TRIES
    assert all(sockets.LOWEST_PORT <= port < 32768 for port in tried)


def test_where_the_kernel_takes_all_any_will_do(tmp_path, monkeypatch):
    path = tmp_path / "range"
    monkeypatch.setattr(sockets, "LOCAL_PORTS", path)
    assert sockets.candidates(None, []) == [0]
    path.write_text("1024\t65535\n")
    assert sockets.candidates(None, []) == [0]


def test_a_kept_port_comes_first_and_named_ones_after_it():
    assert sockets.candidates(None, [5, 6]) == [5, 6]
    assert sockets.candidates(7, [5, 6]) == [7, 5, 6]
    assert sockets.candidates(7, []) == [7], "copied files name it: another would serve nobody"


def test_a_port_that_is_taken_is_passed_over():
    context = zmq.Context()
    try:
        first, second = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
        taken = sockets.bind_one(first, "127.0.0.1", sockets.candidates(None, []))
        assert sockets.bind_one(second, "127.0.0.1", [taken, 0]) != taken
    finally:
        context.destroy(linger=0)
