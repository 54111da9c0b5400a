"""Several clients at once, clients that read nothing, and what the controller's memory does meanwhile."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path

import pytest

from tests.compat.conftest import IS_STOCK
from tests.compat.peer import StockClient, StockEngine
from tests.waiting import until

CLIENTS = 6
TASKS = 200
BLOCK = os.urandom(100_000)


class Worker(threading.Thread):
    """Answers whatever an engine gets, with the negative of its argument or a block of bytes, until it is told to stop.

    Args:
        engine: the engine; nobody else may use its shell socket meanwhile.
        output: number of bytes to publish with each task.
    """

    def __init__(self, engine: StockEngine, output: int = 0) -> None:
        super().__init__()
        self.engine = engine
        self.output = "x" * output
        self.done = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            request = self.engine.maybe("shell", 0.05)
            if request is not None:
                if self.output:
                    self.engine.publish("stream", {"name": "stdout", "text": self.output}, request.header)
                argument = pickle.loads(request.buffers[2])
                self.engine.reply(request, BLOCK if argument is None else -argument)
                self.done += 1

    def stop(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def work(join):
    """Start engines that compute by themselves."""
    workers = []

    def begin(number, **options):
        for _ in range(number):
            workers.append(Worker(join(), **options))
            workers[-1].start()
        return workers[-number:]

    yield begin
    for worker in workers:
        worker.stop()


def resident(controller):
    """Megabytes."""
    pages = Path(f"/proc/{controller.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_several_clients_at_once_each_get_their_own_replies(client, peers, work):
    workers = work(3)
    engines = [worker.engine for worker in workers]
    others = [client, *(peers(StockClient) for _ in range(CLIENTS - 1))]
    failures = []

    def drive(number):
        mine = others[number]
        try:
            sent = {}
            for task in range(TASKS):
                value = number * TASKS + task
                if task % 2:
                    sent[mine.submit(abs, value)] = value
                else:
                    sent[mine.apply(engines[task // 2 % 3].name, abs, value)] = value
            for msg_id, value in sent.items():
                reply = mine.answer(msg_id, 60)
                assert reply.value == -value, (msg_id, value, reply)
            assert mine.kept == [] or {channel for channel, _ in mine.kept} == {"notification"}
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(worker.done for worker in workers) == CLIENTS * TASKS
    ids = client.ask("history_request")["history"]
    assert len(set(ids)) == len(ids)


def test_every_client_is_told_of_every_engine(client, peers, join):
    other = peers(StockClient)
    assert other.engines == {}
    engine = join()
    assert other.notice("registration_notification").content == {"id": engine.id, "uuid": engine.name}


def test_a_client_gets_only_the_output_of_its_own_tasks_or_of_all(client, peers, engine):
    """Every client may be sent all output (it chooses by the parent's session); its own must come, in order, before its idle."""
    other = peers(StockClient)
    assert other.engines
    sent = client.execute(engine.name, "print(1)", silent=False)
    request = engine.request()
    engine.publish("status", {"execution_state": "busy"}, request.header)
    for number in range(5):
        engine.publish("stream", {"name": "stdout", "text": str(number)}, request.header)
    engine.publish("status", {"execution_state": "idle"}, request.header)
    engine.reply(request, content={"status": "ok", "execution_count": 1, "user_expressions": {}, "payload": []})
    texts = [message.content["text"] for message in client.output(sent) if message.kind == "stream"]
    assert texts == list("01234")
    assert client.answer(sent).status == "ok"


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller keeps everything in memory")
def test_replies_that_nobody_reads_cost_bounded_memory_and_nobody_else_time(client, peers, work, controller):
    work(1)
    other = peers(StockClient)
    assert other.engines
    deaf = peers(StockClient)
    deaf.sockets["task"].rcvhwm = 10
    deaf.sockets["task"].rcvbuf = 4096
    before = resident(controller)
    # 4,000 results of 100 kB: 400 MB that `deaf` never takes.
    for _ in range(4000):
        deaf.submit(abs, None)
    highest, slowest, asked = before, 0.0, 0

    def finished():
        nonlocal highest, slowest, asked
        started = time.monotonic()
        assert other.answer(other.submit(abs, 5), 60).value == -5
        # A short task waits for its turn behind those of the other one: fair, not last.
        slowest = max(slowest, time.monotonic() - started)
        highest = max(highest, resident(controller))
        asked += 1
        queue = other.ask("queue_request", {"targets": None, "verbose": False})
        return queue["unassigned"] == 0 or asked >= 200

    until(finished, "all is done", limit=100)
    assert slowest < 2.0
    assert highest - before < 250, f"{before:.0f} MB before, {highest:.0f} MB at the most"


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller keeps everything in memory")
def test_output_that_nobody_reads_costs_bounded_memory_and_nobody_else_time(client, peers, work, controller):
    work(1, output=100_000)
    deaf = peers(StockClient)
    assert deaf.engines
    before = resident(controller)
    slowest = 0.0
    # `client` and `deaf` hear all output: 300 MB each, of which `deaf` reads nothing.
    for number in range(3000):
        started = time.monotonic()
        sent = client.submit(abs, number)
        assert client.answer(sent).value == -number
        slowest = max(slowest, time.monotonic() - started)
        while client.sockets["iopub"].poll(0):
            client.sockets["iopub"].recv_multipart()
    assert slowest < 1.0
    # The records of tasks hold what they printed: 134 MB of it, by default.
    assert resident(controller) - before < 134 + 70


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller keeps everything in memory")
def test_tasks_that_wait_cost_bounded_memory(client, join, controller):
    before = resident(controller)
    sent = [client.submit(abs, 1) for _ in range(20_000)]
    # It takes them, or lets them wait in the client's socket.
    assert client.ask("queue_request", {"targets": None, "verbose": False}, 60)["unassigned"] > 1000
    worker = Worker(join())
    worker.start()
    try:
        for msg_id in sent:
            assert client.answer(msg_id, 90).value == -1
        assert resident(controller) - before < 200
    finally:
        worker.stop()
    assert worker.done == len(sent)


def test_a_client_that_vanishes_disturbs_nobody(client, peers, engine, join):
    leaver = peers(StockClient)
    for _ in range(10):
        leaver.submit(os.getpid)
    request = engine.request()
    leaver.close()
    leaver.sockets.clear()
    engine.reply(request, 1)
    sent = client.apply(engine.name, os.getpid)
    while (request := engine.request()).header["msg_id"] != sent:
        engine.reply(request, 1)
    engine.reply(request, 2)
    assert client.answer(sent).value == 2
