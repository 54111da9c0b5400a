"""A CURVE pair that is changed under sockets which are bound: the address stays, who knows the old pair alone is out."""

from __future__ import annotations

import os
import threading

import pytest
import zmq

from clusterd.controller import main, rebinding, sockets
from clusterd.controller.main import Controller
from clusterd.controller.rebinding import rebind
from clusterd.core.model import connection
from clusterd.core.model.launch import ControllerSpec
from clusterd.core.wire import messages as m
from clusterd.errors import LaunchError
from clusterd.link import Down, Link, Received, Up
from clusterd.system import files
from tests.waiting import until

SOON = 5000


class Context(zmq.Context):
    """Remembers its sockets: one that is dropped unclosed is an error."""

    def __init__(self):
        super().__init__()
        self.__dict__["made"] = []

    def socket(self, *arguments, **options):
        self.made.append(super().socket(*arguments, **options))
        return self.made[-1]


@pytest.fixture
def context():
    context = Context()
    yield context
    for socket in context.made:
        socket.close(linger=0)
    context.term()


def server(context, kind, secret):
    socket = context.socket(kind)
    socket.linger = 0
    socket.curve_server = True
    socket.curve_secretkey = secret
    socket.bind("tcp://127.0.0.1:*")
    return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def peer(context, kind, address, public):
    socket = context.socket(kind)
    socket.linger = 0
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = public
    if kind == zmq.SUB:
        socket.subscribe(b"")
    socket.connect(address)
    return socket


def test_who_listens_with_the_old_pair_hears_no_more(context):
    (old, secret), (new, other) = zmq.curve_keypair(), zmq.curve_keypair()
    source, address = server(context, zmq.XPUB, secret)
    thief = peer(context, zmq.SUB, address, old)
    assert source.recv() == b"\1"
    source.send(b"before")
    assert thief.recv() == b"before"
    rebind([source], other.decode())
    assert source.poll(SOON)
    assert source.recv() == b"\0"
    listener = peer(context, zmq.SUB, address, new)
    assert source.recv() == b"\1"
    source.send(b"after")
    assert listener.recv() == b"after"
    assert thief.poll(100) == 0


def test_an_address_that_is_taken_meanwhile_is_told(context, monkeypatch):
    monkeypatch.setattr(rebinding, "TRIES", 3)
    _, secret = zmq.curve_keypair()
    source, address = server(context, zmq.ROUTER, secret)
    other = context.socket(zmq.ROUTER)
    unbind = zmq.Socket.unbind

    def taken(socket, address):
        unbind(socket, address)
        until(lambda: _binds(other, address), "it is taken")

    monkeypatch.setattr(zmq.Socket, "unbind", taken)
    with pytest.raises(LaunchError, match=f"cannot listen on {address} again"):
        rebind([source], secret.decode())


def _binds(socket, address):
    try:
        socket.bind(address)
    except zmq.ZMQError:
        return False
    return True


# --- a whole controller, over TCP with CURVE ---


class Operator:
    """A link over whose file a test can read on."""

    def __init__(self, context, path):
        self.path = path
        self.link = Link(lambda: context, self.endpoints, "operator", "control", self.attach)
        self.uuid = os.urandom(16)
        self.heard = []
        self.link.open()

    def endpoints(self):
        return connection.decode(self.path.read_bytes(), str(self.path)).clusterd

    def attach(self, token):
        return m.AttachClient(self.uuid, token, 1, "here")

    def wait_for(self, kind):
        def came():
            self.heard += self.link.wait(0.05)
            return next((event for event in self.heard if isinstance(event, kind)), None)

        event = until(came, f"{kind.__name__} comes", about=lambda: (self.link.problem, self.heard))
        self.heard.remove(event)
        return event


@pytest.fixture
def running(isolated, monkeypatch):
    """A controller in a thread; on loopback, and yet with CURVE."""
    for name in ("_set_title", "_raise_descriptor_limit", "_install_signals"):
        monkeypatch.setattr(main, name, lambda *_: None)
    # The thread is not the main one.
    monkeypatch.setattr(main.signal, "set_wakeup_fd", lambda *_: -1)
    monkeypatch.setattr(sockets, "is_loopback", lambda _ip: False)
    for name in ("security", "run"):
        files.private_directory(isolated.root / name)
    spec = ControllerSpec(
        launch="00000000-0",
        cluster="test",
        profile_dir=str(isolated.root),
        runtime_dir=str(isolated.root / "run"),
        log_dir=str(isolated.root),
        transport="tcp",
        ip="127.0.0.1",
    )
    controller = Controller(spec)
    thread = threading.Thread(target=controller.run)
    thread.start()
    path = isolated.root / "security" / "ipcontroller-client.json"
    until(path.exists, "it listens")
    yield path
    controller.rotation.shut_down("the test is over")
    thread.join(10)


def test_native_peers_find_the_new_pair_in_their_file(running, context):
    operator = Operator(context, running)
    operator.wait_for(Up)
    before = operator.endpoints()
    assert before.curve_serverkey
    operator.link.send([m.RotateKeys(1, 5.0)])
    (reply,) = operator.wait_for(Received).messages
    operator.wait_for(Down)
    operator.wait_for(Up)
    # With a grace the pair stays: who has the old key has the old file.
    assert operator.endpoints().curve_serverkey == before.curve_serverkey
    operator.link.send([m.RotateKeys(2, 0.0)])
    (reply,) = operator.wait_for(Received).messages
    assert isinstance(reply, m.Reply)
    operator.wait_for(Down)
    operator.wait_for(Up)
    after = operator.endpoints()
    assert after.curve_serverkey not in ("", before.curve_serverkey)
    assert (after.control, after.data) == (before.control, before.data)
    thief = peer(context, zmq.DEALER, after.control, before.curve_serverkey.encode())
    monitor = thief.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    assert monitor.poll(300) == 0 or monitor.recv_multipart()[0][:2] != zmq.EVENT_HANDSHAKE_SUCCEEDED.to_bytes(
        2, "little"
    )
    thief.disable_monitor()
    monitor.close(0)
    thief.close(0)
    operator.link.close()
