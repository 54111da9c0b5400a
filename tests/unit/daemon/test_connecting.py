"""The copy of the client file in the IPython directory: there while a controller answers, and nobody else's business."""

from __future__ import annotations

import json
import socket

import pytest

from clusterd.daemon.connecting import Publisher, connection_of
from clusterd.daemon.places import Places
from clusterd.daemon.story import Story
from clusterd.publish import place
from clusterd.system import files
from clusterd.system.paths import host_id

UP = {"is_up": True, "is_wanted": True}
STARTING = {"is_up": False, "is_wanted": True}
OVER = {"is_up": False, "is_wanted": False}


class World:
    def __init__(self):
        self.places = Places.of("lab")
        files.private_directory(self.places.security)
        self.story = Story()
        self.target = place("lab")
        self.publisher = Publisher(self.places, self.story)

    def controller_writes(self, key="secret", *, stock=True):
        ours = {"format": 1, "cluster": "lab", "host": host_id(), "data": "unix:///nobody", "control": "", "key": "00"}
        ports = dict.fromkeys(["registration", "control", "mux", "task", "iopub", "broadcast"], 7)
        fields = {"interface": "tcp://127.0.0.1", "key": key, **ports} if stock else {}
        content = json.dumps({**fields, "clusterd": {**ours, "controller": "00"}})
        files.atomic_write(self.places.security / "ipcontroller-client.json", content)

    def told(self):
        return [event["event"] for event in self.story.since(0)]


@pytest.fixture
def world(isolated):
    return World()


def test_it_is_there_while_a_controller_answers(world):
    world.controller_writes()
    world.publisher.follow("ipython", **STARTING)
    assert not world.target.exists()
    world.publisher.follow("ipython", **UP)
    assert json.loads(world.target.read_bytes())["key"] == "secret"
    assert world.publisher.file == world.target
    world.publisher.follow("ipython", **STARTING)  # restarted: the next one has the same ports
    assert world.target.exists()
    world.controller_writes("next")
    world.publisher.follow("ipython", **UP)
    assert json.loads(world.target.read_bytes())["key"] == "next"
    world.publisher.follow("ipython", **OVER)
    assert not world.target.exists()
    assert world.publisher.file is None
    assert world.told() == ["published", "published", "withdrawn"]


def test_what_is_the_same_is_not_even_looked_at(world, monkeypatch):
    world.controller_writes()
    world.publisher.follow("ipython", **UP)
    monkeypatch.setattr("clusterd.publish.ipython.publish_file", None)
    world.publisher.follow("ipython", **UP)


def test_it_goes_when_the_profile_no_longer_says_so(world):
    world.controller_writes()
    world.publisher.follow("ipython", **UP)
    world.publisher.follow(None, **UP)
    assert not world.target.exists()


def test_what_the_user_put_there_stays(world):
    world.controller_writes()
    world.publisher.follow("ipython", **UP)
    successor = Publisher(world.places, world.story)
    successor.follow(None, **UP)
    successor.follow(None, **OVER)
    assert world.target.exists()


def test_what_an_earlier_daemon_left_goes_when_nothing_runs(world):
    world.controller_writes()
    world.publisher.follow("ipython", **UP)
    Publisher(world.places, world.story).follow("ipython", **OVER)
    assert not world.target.exists()


def test_the_way_is_blocked_by_another_controller_until_it_is_looked_at_again(world, isolated):
    world.controller_writes()
    world.target.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(isolated.runtime / "s"))
        listener.listen()
        other = {"cluster": "other", "host": host_id(), "pid": 7, "data": f"unix://{isolated.runtime}/s"}
        world.target.write_text(json.dumps({"clusterd": other}))
        for _ in range(2):
            world.publisher.follow("ipython", **UP)
    assert "is the file of the controller of other, process 7" in world.publisher.problem
    assert world.told() == ["not_published"]
    world.publisher.follow("ipython", **OVER)
    assert "other" in world.target.read_text()
    world.publisher.look_again()
    world.publisher.follow("ipython", **UP)
    assert world.publisher.problem == ""
    assert "other" not in world.target.read_text()


def test_a_controller_that_serves_no_stock_clients_is_a_problem_that_is_told(world):
    world.controller_writes(stock=False)
    world.publisher.follow("ipython", **UP)
    assert "serves no stock clients" in world.publisher.problem


@pytest.mark.parametrize(("key", "stock", "said"), [("secret", True, "on"), ("", False, "off")])
def test_what_connect_is_told(world, key, stock, said):
    world.controller_writes(key, stock=stock)
    told = connection_of(world.places, "running", None)
    assert (told["stock"], told["is_ready"], told["is_local_only"], told["ipython_file"]) == (said, True, True, None)


def test_what_connect_is_told_before_there_is_a_file(world):
    told = connection_of(world.places, "starting", world.target)
    assert (told["stock"], told["is_ready"], told["ipython_file"]) == (None, False, str(world.target))
