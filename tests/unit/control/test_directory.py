"""The user directory that is slow, away or wrong: it holds up nobody, and what it does not say grants nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from clusterd.control import directory as module
from clusterd.control.directory import Directory
from clusterd.errors import ControlError
from clusterd.system import clock
from clusterd.system.users import Person

BOB = Person(1, "bob", frozenset({10}))


class Nss:
    """Answers from tables, counts the questions, and hangs while `open` is not set."""

    def __init__(self):
        self.people, self.users, self.groups = {1: BOB}, {"bob": 1}, {"lab": 10}
        self.asked = []
        self.open = threading.Event()
        self.open.set()
        self.error = None

    def ask(self, table, key, default):
        self.asked.append(key)
        self.open.wait(10)
        if self.error:
            raise self.error
        return table.get(key, default)

    def person(self, uid):
        return self.ask(self.people, uid, Person(uid))

    def uid_of(self, name):
        return self.ask(self.users, name, None)

    def gid_of(self, name):
        return self.ask(self.groups, name, None)


@pytest.fixture
def nss():
    made = Nss()
    before = set(threading.enumerate())
    yield made
    made.open.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


def make(nss, patience=5.0):
    return Directory(nss.person, nss.uid_of, nss.gid_of, patience)


def test_an_answer_is_asked_for_once_in_a_while(nss, monkeypatch):
    async def run():
        directory = make(nss)
        assert await directory.person(1) == BOB
        assert await directory.person(1) == BOB
        assert nss.asked == [1]
        directory.forget()
        await directory.person(1)
        assert nss.asked == [1, 1]
        later = clock.monotonic() + module.KEPT
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        await directory.person(1)
        assert nss.asked == [1, 1, 1]

    asyncio.run(run())


def test_a_name_that_is_not_there_is_looked_for_again_sooner(nss, monkeypatch):
    async def run():
        directory = make(nss)
        assert await directory.uids(["nobody", "bob"]) == {"bob": 1}
        assert await directory.person(7) == Person(7)
        assert nss.asked == ["bob", "nobody", 7]
        later = clock.monotonic() + module.KEPT_UNKNOWN
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        nss.users["nobody"] = 5
        assert await directory.uids(["nobody", "bob"]) == {"bob": 1, "nobody": 5}
        assert await directory.person(7) == Person(7)
        assert nss.asked == ["bob", "nobody", 7, "bob", "nobody", 7]

    asyncio.run(run())


def test_a_directory_that_hangs_is_an_error_and_the_loop_goes_on(nss):
    async def run():
        directory = make(nss, patience=0.05)
        nss.open.clear()
        asked = [asyncio.create_task(directory.person(1)) for _ in range(3)]
        # The loop turns meanwhile: all three wait for one and the same thread.
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(outcome, ControlError) and outcome.code == "denied" for outcome in outcomes)
        assert "does not answer: no answer within 0.05 s" in outcomes[0].message
        assert nss.asked == [1]
        nss.open.set()
        # What it said after all is an answer for who asks next.
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await directory.person(1) == BOB
                    break
                except ControlError:
                    continue
        assert nss.asked == [1]

    asyncio.run(run())


def test_there_are_few_threads_however_many_ask(nss):
    async def run():
        directory = make(nss, patience=0.05)
        nss.open.clear()
        outcomes = await asyncio.gather(*(directory.person(uid) for uid in range(50)), return_exceptions=True)
        assert len(nss.asked) == module.THREADS_MAX
        assert "earlier questions are not answered yet" in outcomes[-1].message

    asyncio.run(run())


def test_an_error_of_the_directory_is_told_and_not_remembered(nss):
    async def run():
        directory = make(nss)
        nss.error = OSError(5, "Input/output error")
        with pytest.raises(ControlError, match="Input/output error"):
            await directory.gids(["lab"])
        nss.error = None
        assert await directory.gids(["lab"]) == {"lab": 10}

    asyncio.run(run())


def test_what_is_remembered_has_a_limit(nss, monkeypatch):
    monkeypatch.setattr(module, "ANSWERS_MAX", 3)

    async def run():
        directory = make(nss)
        for uid in range(5):
            await directory.person(uid)
        await directory.person(4)
        await directory.person(0)
        assert nss.asked == [0, 1, 2, 3, 4, 0]

    asyncio.run(run())
