"""Transports: what a peer asks of the system for its connection, and of an address where nobody is."""

from __future__ import annotations

import pytest
import zmq

from clusterd.controller import sockets
from clusterd.core.model.connection import NativeEndpoints
from clusterd.core.wire.messages import Limits
from clusterd.link import transport


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.term()


def test_both_ends_of_a_connection_to_another_host_are_probed(context):
    # Neither an idle engine nor the controller says anything for hours: a host that is gone must be noticed all the same.
    endpoints = NativeEndpoints(1, "tcp://127.0.0.1:1", "tcp://127.0.0.1:1", "00", "c", "00")
    peer = transport.ZmqTransport(context, endpoints.data, endpoints)
    router = sockets._router(context, "engine-data", Limits())
    try:
        for socket in (peer._socket, router):
            assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1
            silence = socket.getsockopt(zmq.TCP_KEEPALIVE_IDLE)
            silence += socket.getsockopt(zmq.TCP_KEEPALIVE_INTVL) * socket.getsockopt(zmq.TCP_KEEPALIVE_CNT)
            assert 0 < silence <= 60
    finally:
        peer.close(linger=False)
        router.close(linger=0)


def test_an_address_that_is_none_is_gone_at_once(context):
    endpoints = NativeEndpoints(1, "tcp://nowhere:port", "", "00", "c", "00")
    with pytest.raises(transport.Gone, match="nowhere"):
        transport.ZmqTransport(context, endpoints.data, endpoints)


@pytest.mark.parametrize("name", ["missing", "x" * 200])
def test_a_socket_that_cannot_be_is_gone_at_once(isolated, name):
    with pytest.raises(transport.Gone, match=name):
        transport.UnixTransport(f"unix://{isolated.root / name}")
