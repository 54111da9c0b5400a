"""A link through its life: dialling, refusals, resets, lost connections, windows, acknowledgements, and what is kept meanwhile."""

from __future__ import annotations

import logging
import select
import threading
import time

import pytest

from clusterd.core.model.connection import NativeEndpoints
from clusterd.core.wire import handshake
from clusterd.core.wire import messages as m
from clusterd.errors import ConnectionFileError, LimitExceeded
from clusterd.link import Down, Link, Received, Refusal, Up, dealer
from clusterd.system import stream, unix_sockets

LIMITS = stream.PartLimits(32, 2**24, 2**32, 2000)
KEY = bytes(32)
UUID = b"u" * 16


class Clock:
    """The link's time, which passes when a test says so."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Script:
    """A controller's end, one step at a time."""

    def __init__(self, path, limits=None):
        self.path = path
        self.limits = limits or m.Limits()
        self.incarnation = b"1" * 16
        self.listener = unix_sockets.listen(path)
        self.streams = []
        self.session = None
        self.attach = None

    def accept(self):
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.streams.append(stream.Stream(connection, LIMITS))
        return self.streams[-1]

    @property
    def stream(self):
        return self.streams[-1]

    def read(self):
        while (parts := self.stream.receive()) is None:
            assert select.select([self.stream.fileno()], [], [], 10)[0], "nothing came"
        return parts

    def is_called(self):
        return bool(select.select([self.listener], [], [], 0)[0])

    def welcome(self):
        """Answer a Hello."""
        hello = handshake.read_hello(KEY, "client-data", *self.read())
        answer, self.session = handshake.welcome(
            KEY,
            hello,
            challenge=b"c" * 16,
            controller=self.incarnation,
            cluster="c",
            limits=self.limits,
            has_digests=False,
        )
        self.stream.send(answer)

    def take_in(self, link):
        """A whole handshake; the link's events."""
        self.accept()
        self.welcome()
        assert link.receive() == []
        (self.attach,) = self.hear()
        self.say(m.Attached(b"token", 7))
        return link.receive()

    def say(self, *messages, payload=()):
        self.stream.send(self.session.seal(list(messages), list(payload)))

    def hear(self):
        """The next message's messages."""
        parts = self.read()
        return self.session.open(parts[0], parts[1], parts[2:]).messages

    def has_heard(self):
        """True when something was said that was not read."""
        return bool(select.select([self.stream.fileno()], [], [], 0)[0]) or self.stream.has_message

    def stop(self):
        for one in self.streams:
            one.close()
        self.listener.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(dealer, "time", clock)
    # Without luck: the longest wait.
    monkeypatch.setattr(dealer.random, "uniform", lambda _low, high: high)
    return clock


@pytest.fixture
def script(isolated):
    script = Script(isolated.root / "socket")
    yield script
    script.stop()


@pytest.fixture
def make_link(isolated):
    links = []

    def make(**options):
        address = f"unix://{isolated.root / 'socket'}"
        endpoints = NativeEndpoints(1, address, address, KEY.hex(), "c", "00")
        about = {"keeps_unacked": False, "endpoints": lambda: endpoints, **options}
        links.append(
            Link(
                lambda: None,
                about["endpoints"],
                "client",
                "data",
                lambda token: m.AttachClient(UUID, token, 1, "h"),
                keeps_unacked=about["keeps_unacked"],
            )
        )
        return links[-1]

    yield make
    for link in links:
        link.close()


@pytest.fixture
def link(make_link):
    return make_link()


def pass_until_due(link, clock):
    """Let time pass until the link has something to do; what it says."""
    clock.now = link.next_deadline()
    return link.tick()


def submit(number=0, body=b"body"):
    return m.Submit(b"%016d" % number, 0, b"", None, body)


# --- dialling ---


def test_it_attaches_and_tells(link, script, clock):
    link.open()
    (up,) = script.take_in(link)
    assert (up.attached.id, up.welcome.cluster, up.is_new_controller) == (7, "c", True)
    assert script.attach.token == b""
    assert link.is_attached
    assert link.problem == ""


def test_it_dials_again_and_again_ever_slower_and_never_slower_than_the_bound(link, clock):
    link.open()
    waits = []
    for _ in range(12):
        assert link.state == "waiting"
        assert "nobody listens" in link.problem
        waits.append(link.next_deadline() - clock.now)
        assert pass_until_due(link, clock) == []
    assert waits[0] == pytest.approx(dealer.FIRST_RETRY)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(dealer.LAST_RETRY_UNIX)


def test_a_tick_before_the_time_does_nothing(link, clock):
    link.open()
    deadline = link.next_deadline()
    clock.now = deadline - 0.001
    link.tick()
    assert link.next_deadline() == deadline


def test_without_a_connection_file_it_waits_for_one(make_link, script, clock):
    files = []

    def endpoints():
        if not files:
            raise ConnectionFileError("there is no file yet")
        return files[0]

    link = make_link(endpoints=endpoints)
    link.open()
    assert link.problem == "there is no file yet"
    files.append(NativeEndpoints(1, f"unix://{script.path}", f"unix://{script.path}", KEY.hex(), "c", "00"))
    pass_until_due(link, clock)
    script.take_in(link)
    assert link.is_attached


def test_a_controller_that_does_not_answer_is_given_up(link, script, clock):
    link.open()
    script.accept()
    assert link.next_deadline() == clock.now + dealer.HANDSHAKE_TIMEOUT
    assert pass_until_due(link, clock) == []
    assert link.state == "waiting"
    assert "no answer to the handshake" in link.problem


def test_it_comes_back_with_its_token_and_knows_the_controller(link, script, clock):
    link.open()
    script.take_in(link)
    script.stream.close()
    (down,) = link.receive()
    assert isinstance(down, Down)
    pass_until_due(link, clock)
    (up,) = script.take_in(link)
    assert script.attach.token == b"token"
    assert not up.is_new_controller
    script.stream.close()
    link.receive()
    script.incarnation = b"2" * 16
    pass_until_due(link, clock)
    (up,) = script.take_in(link)
    assert up.is_new_controller


def test_a_connection_that_is_ended_as_soon_as_it_is_made_is_not_made_fifty_times_a_second(link, script, clock):
    link.open()
    begin = clock.now
    for _ in range(20):
        script.take_in(link)
        script.stream.close()
        link.receive()
        pass_until_due(link, clock)
    assert clock.now - begin > 20 * dealer.LAST_RETRY_UNIX / 2


def test_after_a_steady_connection_it_dials_at_once(link, script, clock):
    link.open()
    for _ in range(8):
        script.take_in(link)
        script.stream.close()
        link.receive()
        pass_until_due(link, clock)
    script.take_in(link)
    clock.now += dealer.STEADY_SECONDS
    script.stream.close()
    link.receive()
    assert link.next_deadline() - clock.now == pytest.approx(dealer.FIRST_RETRY)


# --- refusals and resets ---


@pytest.mark.parametrize("code", sorted(dealer.FINAL_REFUSALS))
def test_a_final_refusal_ends_the_link(link, script, clock, code):
    link.open()
    script.accept()
    script.welcome()
    link.receive()
    script.hear()
    script.say(m.Refuse(b"", code, "no", "do this"))
    (refusal,) = link.receive()
    assert isinstance(refusal, Refusal)
    assert (refusal.error.code, refusal.error.hint) == (code, "do this")
    assert link.state == "closed"
    assert link.next_deadline() is None


def test_a_refusal_of_the_version_ends_the_link(link, script, clock):
    link.open()
    script.accept()
    hello = handshake.read_hello(KEY, "client-data", *script.read())
    script.stream.send(handshake.refuse(KEY, hello.nonce, handshake.Refused("version", "too old")))
    (refusal,) = link.receive()
    assert refusal.error.code == "version"


def test_a_refused_token_is_thrown_away(link, script, clock):
    link.open()
    script.take_in(link)
    script.stream.close()
    link.receive()
    pass_until_due(link, clock)
    script.accept()
    script.welcome()
    link.receive()
    script.hear()
    script.say(m.Refuse(b"", "token", "who are you?"))
    assert link.receive() == []
    pass_until_due(link, clock)
    script.take_in(link)
    assert script.attach.token == b""
    assert link.is_attached


def test_a_genuine_reset_makes_it_dial(link, script, clock):
    link.open()
    script.take_in(link)
    link.send([submit()])
    mac = script.read()[0]
    script.stream.send(handshake.reset(KEY, mac))
    (down,) = link.receive()
    assert "does not know this connection" in down.reason


@pytest.mark.parametrize(
    "answer",
    [
        [b"x" * 32, b"garbage"],
        [b"x" * 32],
        handshake.reset(KEY, b"y" * 32),
        handshake.refuse(KEY, b"z" * 16, handshake.Refused("version", "not for you")),
    ],
    ids=["garbage", "no-header", "reset", "another's"],
)
def test_what_is_no_answer_to_its_hello_makes_it_dial_again(link, script, clock, answer):
    link.open()
    script.accept()
    script.read()
    script.stream.send(answer)
    assert link.receive() == []
    assert link.state == "waiting"
    pass_until_due(link, clock)
    script.take_in(link)
    assert link.is_attached


@pytest.mark.parametrize("parts", [[b"x" * 32, b"forged"], [b"x"], [b"x" * 32, b"", b"payload"]])
def test_what_cannot_be_verified_ends_the_connection(link, script, clock, parts):
    link.open()
    script.take_in(link)
    script.stream.send(parts)
    (down,) = link.receive()
    assert isinstance(down, Down)


def test_words_before_attached_are_not_believed(link, script, clock):
    link.open()
    script.accept()
    script.welcome()
    link.receive()
    script.hear()
    script.say(m.NeedFunction(b"f" * 16))
    assert link.receive() == []
    assert link.state == "waiting"


# --- sending ---


def test_what_is_sent_before_there_is_a_connection_goes_out_in_order(link, script, clock):
    for number in range(3):
        link.send([submit(number)])
    link.open()
    link.send([submit(3)])
    script.take_in(link)
    assert [script.hear() for _ in range(4)] == [[submit(number)] for number in range(4)]
    link.send([submit(4)])
    assert script.hear() == [submit(4)]


def test_what_waits_keeps_its_order_over_reconnects(link, script, clock):
    link.open()
    script.take_in(link)
    script.stream.close()
    link.receive()
    for number in range(3):
        link.send([submit(number)], [b"payload"] if number == 1 else [])
        pass_until_due(link, clock)
        script.accept()
        script.stream.close()  # in the middle of the handshake
        link.receive()
    pass_until_due(link, clock)
    script.take_in(link)
    assert [script.hear()[0].task for _ in range(3)] == [b"%016d" % number for number in range(3)]


def test_beyond_the_window_it_waits_for_acknowledgements(make_link, isolated, clock):
    script = Script(isolated.root / "socket", m.Limits(window=1000))
    link = make_link()
    link.open()
    script.take_in(link)
    for number in range(5):
        link.send([submit(number, b"x" * 600)])
    assert not link.is_clear
    heard = [script.hear(), script.hear()]
    assert not script.has_heard()
    script.say()
    link.receive()
    heard += [script.hear(), script.hear()]
    assert not script.has_heard()
    script.say()
    link.receive()
    heard.append(script.hear())
    assert [messages[0].task for messages in heard] == [b"%016d" % number for number in range(5)]
    script.stop()


def test_what_was_not_acknowledged_comes_back(make_link, script, clock):
    link = make_link(keeps_unacked=True)
    link.open()
    script.take_in(link)
    for number in range(3):
        link.send([submit(number)])
    script.hear()
    script.say()  # acknowledges the Attach and the first
    link.receive()
    assert link.has_unacked
    script.stream.close()
    (down,) = link.receive()
    assert down.unacked == [([submit(1)], ()), ([submit(2)], ())]
    assert not link.has_unacked


def test_a_closed_link_keeps_no_numbers_of_an_old_connection(make_link, script, clock):
    link = make_link(keeps_unacked=True)
    link.open()
    script.take_in(link)
    link.send([submit()])
    link.close()
    assert not link.has_unacked


def test_over_a_limit_nothing_is_sent_or_kept(make_link, isolated, clock):
    script = Script(isolated.root / "socket", m.Limits(max_message=10))
    link = make_link()
    link.open()
    script.take_in(link)
    with pytest.raises(LimitExceeded):
        link.send([submit()], [b"x" * 11])
    link.send([submit(1)])
    assert script.hear() == [submit(1)]
    script.stop()


def test_what_the_next_controller_does_not_take_is_told_and_the_rest_goes_on(make_link, isolated, clock, caplog):
    script = Script(isolated.root / "socket", m.Limits(max_message=10))
    link = make_link()
    link.send([submit(0)], [b"x" * 11])
    link.send([submit(1)])
    link.open()
    with caplog.at_level(logging.ERROR):
        script.take_in(link)
    assert script.hear() == [submit(1)]
    assert "11 bytes" in caplog.text
    script.stop()


def test_what_the_kernel_does_not_take_goes_out_when_it_does(link, script, clock):
    link.open()
    script.take_in(link)
    blob = bytes(4 * 1024 * 1024)
    link.send([m.Submit(b"t", 0, b"", None, b"", 1)], [blob])
    assert link.is_sending
    assert link.pollables()[0][1] & select.POLLOUT
    while (parts := script.stream.receive()) is None:
        link.receive()
    assert len(parts[2]) == len(blob)
    link.receive()
    assert not link.is_sending
    assert not link.pollables()[0][1] & select.POLLOUT


# --- acknowledging ---


def test_it_acknowledges_after_a_moment_of_silence(link, script, clock):
    link.open()
    script.take_in(link)
    script.say(m.NeedFunction(b"f" * 16))
    link.receive()
    assert not script.has_heard()
    assert link.next_deadline() == clock.now + dealer.IDLE_ACK
    link.tick()
    assert not script.has_heard()
    pass_until_due(link, clock)
    assert script.hear() == []
    assert script.session.acked == script.session.sent
    assert link.next_deadline() is None


def test_what_it_says_carries_the_acknowledgement(link, script, clock):
    link.open()
    script.take_in(link)
    script.say(m.NeedFunction(b"f" * 16))
    link.receive()
    link.send([submit()])
    script.hear()
    assert script.session.acked == script.session.sent
    assert link.next_deadline() is None


def test_it_acknowledges_at_once_at_a_quarter_of_the_window(make_link, isolated, clock):
    script = Script(isolated.root / "socket", m.Limits(window=4000))
    link = make_link()
    link.open()
    script.take_in(link)
    script.say(m.Failed(b"t", 0, "aborted", "x" * 1000))
    (received,) = link.receive()
    assert isinstance(received, Received)
    assert script.hear() == []
    assert script.session.unacked_bytes == 0
    script.stop()


# --- the end ---


def test_goodbye_goes_out(link, script, clock):
    link.open()
    script.take_in(link)
    link.close("done")
    assert script.hear() == [m.Goodbye("done")]
    assert link.state == "closed"
    link.close("again")


def test_goodbye_goes_out_behind_what_the_kernel_had_not_taken(make_link, isolated):
    script = Script(isolated.root / "socket")
    link = make_link()
    link.open()
    script.take_in(link)
    blob = bytes(300_000)
    link.send([m.Submit(b"t", 0, b"", None, b"", 1)], [blob])
    assert link.is_sending

    heard = []
    reader = threading.Thread(target=lambda: heard.extend([script.read(), script.read()]))
    reader.start()
    link.close("done")
    reader.join()
    assert len(heard[0][2]) == len(blob)
    script.stop()


def test_without_a_reader_closing_takes_a_moment_and_no_longer(link, script):
    link.open()
    script.take_in(link)
    link.send([m.Submit(b"t", 0, b"", None, b"", 1)], [bytes(8 * 1024 * 1024)])
    begin = time.monotonic()
    link.close("done")
    assert time.monotonic() - begin < 5.0


def test_a_closed_link_can_be_opened_again(link, script, clock):
    link.open()
    script.take_in(link)
    link.close()
    assert link.pollables() == []
    link.open()
    (up,) = script.take_in(link)
    assert isinstance(up, Up)


def test_redial_throws_the_connection_away(link, script, clock):
    link.open()
    script.take_in(link)
    (down,) = link.redial("it was silent")
    assert down.reason == "it was silent"
    assert link.state == "waiting"
    link.close()
    assert link.redial("closed already") == []


def test_wait_returns_what_happens(link, script):
    link.open()
    script.take_in(link)
    script.say(m.NeedFunction(b"f" * 16))
    (received,) = link.wait(5)
    assert received.messages == [m.NeedFunction(b"f" * 16)]
    assert link.wait(0.001) == []
