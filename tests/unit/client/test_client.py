"""The client and its direct views; bad input is answered at once, with what to do."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest

import clusterd
from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError, NoEngines, TaskNotSendable
from tests.waiting import until


def test_it_knows_the_engines(client, controller):
    assert client.ids == [0, 1]
    assert len(client) == 2
    assert [info.slot for info in client.engines] == [0, 1]
    assert client.cluster == "fake"
    assert repr(client) == "<Client of 'fake': 2 engines>"
    assert [view.targets for view in client] == [[0], [1]]
    controller.announce(added=controller.add_engines(1))
    assert client.wait_for_engines(3, timeout=10) == [0, 1, 2]
    gone = m.EngineGone(1, b"x" * 16, "engines", 1, "killed by signal 9")
    controller.announce(removed=[gone])
    until(lambda: client.ids == [0, 2], "the news")
    with pytest.raises(IndexError, match=r"there is no engine 1 any more \(killed by signal 9\); the engines are 0, 2"):
        client[1]


def test_wait_for_engines_says_how_many_there_are(client):
    assert client.wait_for_engines() == [0, 1]
    assert client.wait_for_engines(0) == [0, 1]
    with pytest.raises(TimeoutError, match=r"2 of 5 engines were registered within 0.05 s"):
        client.wait_for_engines(5, timeout=0.05)
    for n, error in ((-1, ValueError), ("4", TypeError), (True, TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="number of engines"):
            client.wait_for_engines(n)
    with pytest.raises(ValueError, match="timeout"):
        client.wait_for_engines(1, timeout=-1)


def test_engines_are_chosen_by(client, controller):
    controller.announce(added=controller.add_engines(4))
    client.wait_for_engines(6)
    for chosen, targets in (
        (slice(None), [0, 1, 2, 3, 4, 5]),
        (slice(None, None, 2), [0, 2, 4]),
        (slice(1, 3), [1, 2]),
        (slice(-2, None), [4, 5]),
        (3, [3]),
        (-1, [5]),
        ([1, 3], [1, 3]),
        ((5, 0), [5, 0]),
        (range(2), [0, 1]),
        (np.array([1, 2]), [1, 2]),
        (np.int64(4), [4]),
        ("all", [0, 1, 2, 3, 4, 5]),
        ([-1, 0], [5, 0]),
    ):
        assert client[chosen].targets == targets, chosen
    assert len(client[1:3]) == 2
    assert repr(client[1:3]) == "<DirectView of engines [1, 2]>"


def test_engines_that_are_not_there(client):
    for chosen in (2, 17, -3, [0, 9]):
        with pytest.raises(IndexError, match=r"there is no engine .*; the engines are 0-1"):
            client[chosen]
    for chosen in ([], slice(5, 9), ()):
        with pytest.raises(NoEngines, match="the engines are 0-1"):
            client[chosen]
    for chosen in ("first", 1.5, None, {"a": 1}, True, [True], ["0"]):
        with pytest.raises(TypeError):
            client[chosen]
    with pytest.raises(ValueError, match="named twice"):
        client[[0, 0]]


def test_a_view_over_no_engines(isolated, connect, controller):
    controller.engines.clear()
    client = connect()
    for make in (
        lambda: client[:],
        client.direct_view,
        client.load_balanced_view,
        client.executor,
        lambda: client[0],
        lambda: client[-1],
    ):
        with pytest.raises(NoEngines, match="no engine is registered") as caught:
            make()
        assert "wait_for_engines" in caught.value.hint


def test_a_view_of_all_follows_the_engines(client, controller):
    everybody, those = client.direct_view(), client[:]
    controller.announce(added=controller.add_engines(1))
    client.wait_for_engines(3)
    assert everybody.targets == [0, 1, 2]
    assert those.targets == [0, 1]
    assert everybody.apply_sync(len, "abc") == [3, 3, 3]
    assert repr(everybody) == "<DirectView of all engines>"


def test_names(client):
    view = client[:]
    view["x"] = 5
    assert view["x"] == [5, 5]
    assert client[0]["x"] == 5
    client[1]["x"] = np.arange(3)
    assert client[1]["x"].sum() == 3
    view.push({"a": 1, "b": 2}, block=True)
    assert view.pull(["a", "b"], block=True) == [[1, 2], [1, 2]]
    assert view.pull("a").result(10) == [1, 1]
    assert client[0].get("b") == 2
    view.update({"c": 3}).result(10)
    assert client[0].pull(("c", "a"), block=True) == [3, 1]
    view.clear(block=True)
    with pytest.raises(NameError, match="name 'a' is not defined"):
        client[0]["a"]


@pytest.mark.parametrize("name", ["", "1x", "a b", "a.b", 5, None])
def test_bad_names(client, name):
    with pytest.raises(ValueError, match="is not the name of a variable"):
        client[0].push({name: 1})
    with pytest.raises((ValueError, TypeError)):
        client[0].pull([name])
    with pytest.raises((ValueError, TypeError)):
        client[0][name]


def test_what_cannot_be_pushed_is_named(client):
    with pytest.raises(TaskNotSendable, match="the value of 'bad'"):
        client[0].push({"good": 1, "bad": (number for number in ())})


@pytest.mark.parametrize(
    ("sequence", "parts"),
    [
        ([1, 2, 3, 4, 5], [[1, 2, 3], [4, 5]]),
        (range(4), [[0, 1], [2, 3]]),
        ((1,), [(1,), ()]),
        ("abc", ["ab", "c"]),
        ([], [[], []]),
    ],
)
def test_scatter_and_gather(client, sequence, parts):
    view = client[:]
    view.scatter("part", sequence, block=True)
    assert view["part"] == parts
    assert list(view.gather("part").result(10)) == list(sequence)
    assert client[0].gather("part", block=True) == parts[0]


def test_scatter_arrays_and_single_items(client):
    view = client[:]
    array = np.arange(12).reshape(6, 2)
    view.scatter("rows", array, block=True)
    assert [part.shape for part in view["rows"]] == [(3, 2), (3, 2)]
    assert np.array_equal(view.gather("rows", block=True), array)
    view.scatter("rank", [0, 1], flatten=True, block=True)
    assert view["rank"] == [0, 1]
    assert view.gather("rank", block=True) == [0, 1]
    with pytest.raises(TypeError, match="needs a length and slices, a set"):
        view.scatter("x", {1, 2})
    with pytest.raises(TypeError, match="a generator"):
        view.scatter("x", (number for number in range(3)))


def test_cells(client, isolated):
    cell = client[0].execute("6 * 7", block=True)
    assert cell.get() == cell.text == "42"
    assert repr(cell) == "Out[0]: 42"
    printed = client[1].execute("print('hello')", block=True)
    assert (printed.stdout, printed.text, printed.engine_id) == ("hello\n", None, 1)
    assert repr(printed) == "[stdout:1] hello"
    assert [cell.text for cell in client[:].execute("1 + 1").result(10)] == ["2", "2"]
    assert "no output" in repr(client[0].execute("pass", block=True))
    assert client[0].execute("2", block=True)._repr_mimebundle_() == {"text/plain": "Out[0]: 2"}
    path = isolated.home / "script.py"
    path.write_text("answer = 41 + 1\n")
    client[:].run(path, block=True)
    assert client[:]["answer"] == [42, 42]
    with pytest.raises(FileNotFoundError):
        client[0].run(isolated.home / "nothing.py")
    with pytest.raises(TypeError, match="apply"):
        client[0].execute(len)
    with pytest.raises(ZeroDivisionError):
        client[0].execute("1 / 0", block=True)


def test_block_and_flags(client):
    view = client[0]
    assert view.apply(len, "ab").result(10) == 2
    view.block = True
    assert view.apply(len, "ab") == 2
    with view.temp_flags(block=False, timeout=5):
        assert view.apply(len, "ab").result(10) == 2
        assert view.timeout == 5
    assert view.timeout is None
    with (
        pytest.raises(AttributeError, match="no flag 'blok'; there are block, label, timeout"),
        view.temp_flags(blok=1),
    ):
        pass


def test_decorators(client, view):
    @view.remote
    def double(x):
        """Twice."""
        return 2 * x

    @view.parallel
    def triple(x):
        return 3 * x

    assert double(4).result(10) == 8
    assert double.__doc__ == "Twice."
    assert list(triple([1, 2])) == [3, 6]


def test_options_travel(client, controller):
    view = client.load_balanced_view(retries=3, timeout=1.5)
    first = view.apply_async(abs, 1)
    first.result(10)
    with view.temp_flags(after=first, follow=[first, client[:].apply_async(abs, 1)], label="step 2", retries=0):
        view.apply_async(abs, 1).result(10)
    options = [submit.options for submit in controller.submits if submit.options]
    assert (options[0].retries, options[0].timeout, options[0].after) == (3, 1.5, None)
    assert (options[1].retries, options[1].label) == (0, "step 2")
    assert options[1].after.tasks == [controller.submits[0].task]
    assert len(options[1].follow.tasks) == 3


def test_bad_options(client, view):
    for timeout in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout"):
            client.load_balanced_view(timeout=timeout)
        with pytest.raises(ValueError, match="timeout"):
            client.direct_view(timeout=timeout)
    for timeout in ("5", True, []):
        with pytest.raises(TypeError, match="timeout"):
            client.load_balanced_view(timeout=timeout)
    with pytest.raises(ValueError, match="retries"):
        client.load_balanced_view(retries=-1)
    with pytest.raises(TypeError, match="retries"):
        client.load_balanced_view(retries=1.5)
    view.after = "me"
    with pytest.raises(TypeError, match="a dependency is a future"):
        view.apply_async(abs, 1)
    view.after = view.client.load_balanced_view().map_async(abs, [1])
    with pytest.raises(TypeError, match="wait for it here"):
        view.apply_async(abs, 1)


def test_balanced_over_some_engines(client, controller):
    view = client.load_balanced_view([1])
    assert view.targets == [1]
    assert view.apply_async(abs, -1).result(10) == 1
    assert controller.submits[-1].target == [1]
    assert client.load_balanced_view().targets is None
    assert "all engines" in repr(client.load_balanced_view())
    with pytest.raises(IndexError):
        client.load_balanced_view([7])


def test_abort(client, controller):
    controller.is_holding = True
    futures = [client[number % 2].apply_async(abs, number) for number in range(6)]
    balanced = client.load_balanced_view().apply_async(abs, 1)
    until(lambda: len(controller.held) == 7, "tasks at the controller")
    assert client.abort(futures[0]) == 1
    assert client[1].abort() == 3
    assert client.abort([futures[2], futures[0]]) == 1
    assert client.abort(targets=1) == 0
    until(lambda: sum(future.done() for future in futures) == 5, "ends")
    assert not balanced.done()
    assert client.abort() == 2
    assert client.abort() == 0


def test_questions_and_commands(client, controller):
    assert client.queue_status() == {"engines": {0: {"queued": 0}, 1: {"queued": 0}}, "unassigned": 0}
    assert client[0].queue_status()["unassigned"] == 0
    assert controller.requests[-1].targets == [0]
    assert client.interrupt() == [0, 1]
    assert client[1].interrupt() == [1]
    assert client.stop(0) == [0]
    assert client.restart([0, 1]) == [0, 1]
    assert [request.command for request in controller.requests[-2:]] == ["stop", "restart"]
    with pytest.raises(ClusterdError, match="kill failed for 1 of 1 engines: engine 1: it would not die"):
        client.kill(1)
    with pytest.raises(IndexError):
        client.stop(9)
    with pytest.raises(ClusterdError, match="operators only") as caught:
        client._ask(m.ControllerStatus)
    assert (caught.value.code, caught.value.hint) == ("denied", "be one")


def test_wait_for_all(client, view, controller):
    controller.is_holding = True
    futures = [view.apply_async(abs, number) for number in range(5)]
    assert not client.wait(timeout=0.01)
    until(lambda: len(controller.held) == 5, "tasks at the controller")
    controller.release()
    assert client.wait(timeout=10)
    assert client.wait(futures)
    assert all(future.done() for future in futures)


def test_closing(connect, controller):
    client = connect()
    with client as same:
        assert same is client
        assert not client.closed
    assert client.closed
    client.close()
    assert repr(client) == "<Client of 'fake': closed>"
    for use in (lambda: client.ids, lambda: client[:], client.queue_status, client.wait_for_engines, client.abort):
        with pytest.raises(ClusterdError, match="closed"):
            use()
    until(lambda: controller.goodbyes == 2, "a goodbye on each connection")


def test_a_dropped_client_ends_by_itself(controller):
    client = clusterd.Client(controller.file)
    connection = client._connection
    del client
    gc.collect()
    until(lambda: not connection._thread.is_alive(), "the end of its thread")


def test_two_clients_in_one_process(connect):
    first, second = connect(label="one"), connect(label="two")
    views = [first.load_balanced_view(), second.load_balanced_view()] * 20
    futures = [view.apply_async(abs, -number) for number, view in enumerate(views)]
    assert [future.result(10) for future in futures] == list(range(40))


def test_it_is_not_pickled(client):
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(client)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"controller_timeout": 0}])
def test_bad_time_limits(controller, options):
    with pytest.raises(ValueError, match="number of seconds above 0"):
        clusterd.Client(controller.file, **options)
    with pytest.raises(TypeError, match="number of seconds"):
        clusterd.Client(controller.file, timeout="5")
