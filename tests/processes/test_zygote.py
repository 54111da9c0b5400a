"""The zygote: what it warms up, what its children are when they begin, and what happens when somebody dies."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path

import pytest

from clusterd.agent.zygote import messages as z
from clusterd.agent.zygote import stock
from clusterd.agent.zygote_process import ZygoteProcess
from clusterd.core.model import connection
from clusterd.core.model.launch import AgentSpec
from clusterd.core.model.profile import Startup
from tests.waiting import until

PATIENCE = 20.0
# Modules to preload, by what they do.
MODULES = {
    "starts_a_thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
    "uses_the_threaded_one": "import starts_a_thread",
    "raises": "raise ValueError('not today')",
    "ends_the_process": "import os\nos._exit(9)",
    "kills_itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "harmless": "import os\nseen = os.environ.get('SEEN')",
    "holds_a_file": "file = open(__file__)",
    "changes_signals": "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)",
}


class Bench:
    """A zygote, and the engines that it forked."""

    def __init__(self, places, **changes):
        self.root = places.root
        self.units = places.runtime / "units"
        self.units.mkdir()
        self.modules = places.root / "modules"
        self.modules.mkdir()
        for name, text in MODULES.items():
            (self.modules / f"{name}.py").write_text(text)
        self.spec = AgentSpec(
            launch="0123abcd-1",
            cluster="test",
            engine_set="set",
            profile_dir=str(places.state),
            runtime_dir=str(places.runtime),
            log_dir=str(places.state),
            connection_file=str(places.state / "none.json"),
            **{"work_dir": str(places.home), "start_timeout": 10.0, **changes},
        )
        self.zygote = ZygoteProcess(self.spec)
        self.engines = {}
        self.ended = {}

    def read(self):
        poll = select.poll()
        poll.register(self.zygote.fileno(), select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "the zygote says nothing"
        messages, is_there = self.zygote.receive()
        for message in messages:
            if isinstance(message, z.Exited):
                self.ended[message.uuid] = message
        return messages, is_there

    def warmed(self):
        (message,), _ = self.read()
        assert isinstance(message, z.Warmed)
        return message

    def fork(self, slot=0, env=None, cpus=()):
        """Fork one and return (uuid, pid)."""
        uuid = os.urandom(16)
        self.zygote.fork(z.Fork(slot, uuid, env or {}, list(cpus)))
        while True:
            for message in self.read()[0]:
                if isinstance(message, z.Forked) and message.uuid == uuid:
                    self.engines[uuid] = message.pid
                    return uuid, message.pid
                assert not isinstance(message, z.ForkFailed), message

    def end(self, uuid, number=signal.SIGTERM):
        """Signal an engine and return its Exited."""
        if uuid not in self.ended:
            os.kill(self.engines[uuid], number)
        return self.exited(uuid)

    def exited(self, uuid):
        while uuid not in self.ended:
            _, is_there = self.read()
            assert is_there
        del self.engines[uuid]
        return self.ended[uuid]

    def log(self, slot=0):
        return (Path(self.spec.log_dir) / f"engine-set-{slot}.log").read_text()

    def close(self):
        for uuid in list(self.engines):
            self.end(uuid, signal.SIGKILL)
        self.zygote.close()


@pytest.fixture
def bench(isolated, monkeypatch):
    benches = []

    def make(**changes):
        monkeypatch.setenv("PYTHONPATH", str(isolated.root / "modules"))
        made = Bench(isolated, **changes)
        benches.append(made)
        return made

    yield make
    for made in benches:
        made.close()


def told(bench, slot=0):
    """What the engine printed in its first line."""
    first = bench.log(slot).splitlines()[0]
    assert first[:1] in tuple("[{0123456789t"), bench.log(slot)
    return json.loads(first)


def tell_and_fail(command):
    """A start-up command that prints what an engine finds when it begins, and then fails: the engine's end is the sign."""
    return Startup(command=f"import json, os, sys, signal\nprint(json.dumps({command}))\nraise SystemExit(0)")


def test_an_engine_finds_itself_as_promised(bench):
    here = bench(
        startup=tell_and_fail(
            "dict(pid=os.getpid(), sid=os.getsid(0), cwd=os.getcwd(), own=os.environ['OWN'], path=sys.path[0],"
            " fds=sorted(os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n) > 2),"
            " stdin=os.readlink('/proc/self/fd/0'), hup=int(signal.getsignal(signal.SIGHUP)),"
            " title=open('/proc/self/cmdline').read(), threads=len(os.listdir('/proc/self/task')),"
            " oom=int(open('/proc/self/oom_score_adj').read()), affinity=sorted(os.sched_getaffinity(0)))"
        )
    )
    here.warmed()
    core = min(os.sched_getaffinity(0))
    uuid, pid = here.fork(slot=3, env={"OWN": "x 3"}, cpus=[core])
    exited = here.exited(uuid)
    assert os.waitstatus_to_exitcode(exited.status) == 1
    assert exited.max_rss > 2**20
    found = told(here, 3)
    assert found["pid"] == found["sid"] == pid
    assert found["cwd"] == here.spec.work_dir
    assert found["own"] == "x 3"
    assert found["path"] == ""
    assert found["stdin"] == "/dev/null"
    # Neither the zygote's socket nor pidfds of brothers: the page's mapping has no descriptor, the listing itself has one.
    assert not [name for name in found["fds"] if "socket" in name or "pidfd" in name]
    assert found["hup"] == signal.SIG_DFL
    assert found["title"].startswith("clusterd engine test/set/3")
    assert found["threads"] == 1
    assert found["oom"] == 200
    assert found["affinity"] == [core]
    assert "the start-up script or command failed" in here.log(3)


def test_an_engine_says_who_it_is_in_its_identity_file(bench):
    here = bench()
    here.warmed()
    uuid, pid = here.fork(slot=2)
    file = here.units / f"engine-{uuid.hex()}.json"
    wait_for(file.exists)
    content = json.loads(file.read_bytes())
    assert (content["kind"], content["launch"], content["engine_set"], content["slot"]) == (
        "engine",
        "0123abcd-1",
        "set",
        2,
    )
    assert content["pid"] == pid
    assert content["start_time"] == int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert file.stat().st_mode & 0o777 == 0o600
    wait_for((here.units / f"engine-{uuid.hex()}.page").exists)


def test_engines_of_one_zygote_draw_different_numbers(bench):
    here = bench(
        preload=["numpy.random", "random"],
        startup=tell_and_fail("[__import__('random').random(), float(__import__('numpy').random.random())]"),
    )
    here.warmed()
    for slot in range(2):
        here.exited(here.fork(slot)[0])
    drawn = told(here, 0) + told(here, 1)
    assert len(set(drawn)) == 4


def test_numpy_is_preloaded_although_openblas_has_threads(bench):
    """OpenBLAS ends its threads before a fork and starts them when they are needed again, in parent and child."""
    here = bench(
        preload=["numpy"],
        env={"OPENBLAS_NUM_THREADS": "2"},
        startup=tell_and_fail(
            "float((__import__('numpy').ones((300, 300)) @ __import__('numpy').ones((300, 300))).sum())"
        ),
    )
    warmed = here.warmed()
    assert warmed.preloaded == ["numpy"]
    assert warmed.warnings == []
    assert threads(here.zygote.process.pid) == 1
    here.exited(here.fork()[0])
    assert told(here) == 300.0**3


def test_a_module_that_starts_threads_is_imported_by_each_engine_itself(bench):
    here = bench(preload=["starts_a_thread", "harmless"], startup=tell_and_fail("'starts_a_thread' in sys.modules"))
    warmed = here.warmed()
    assert warmed.preloaded == ["harmless"]
    assert warmed.late == ["starts_a_thread"]
    assert warmed.warnings == [
        "preload starts_a_thread: it starts 1 thread; each engine imports it itself, which takes memory and time"
    ]
    assert threads(here.zygote.process.pid) == 1
    here.exited(here.fork()[0])
    assert told(here) is True


def test_a_module_that_imports_a_bad_one_is_found_out_too(bench):
    here = bench(preload=["starts_a_thread", "uses_the_threaded_one"])
    assert here.warmed().late == ["starts_a_thread", "uses_the_threaded_one"]
    assert threads(here.zygote.process.pid) == 1


def test_missing_and_broken_modules_are_warnings_and_nothing_more(bench):
    here = bench(preload=["no_such_module", "raises", "ends_the_process", "kills_itself", "harmless"])
    warmed = here.warmed()
    assert warmed.preloaded == ["harmless"]
    assert warmed.late == []
    assert warmed.warnings == [
        "preload no_such_module: ModuleNotFoundError: No module named 'no_such_module'",
        "preload raises: ValueError: not today",
        "preload ends_the_process: its import ended the process (exit status 9)",
        "preload kills_itself: its import ended the process (signal SIGKILL)",
    ]
    here.fork()


def test_files_and_signals_of_preloaded_modules(bench):
    here = bench(
        preload=["holds_a_file", "changes_signals"],
        startup=tell_and_fail("[__import__('holds_a_file').file.read()[:4], int(signal.getsignal(signal.SIGUSR1))]"),
    )
    here.warmed()
    here.exited(here.fork()[0])
    assert told(here) == ["file", signal.SIG_DFL]


def test_the_sets_environment_is_there_before_any_import(bench):
    here = bench(
        preload=["harmless"],
        env={"SEEN": "early", "PER": "{slot}"},
        startup=tell_and_fail("[__import__('harmless').seen, os.environ.get('PER')]"),
    )
    here.warmed()
    here.exited(here.fork()[0])
    assert told(here) == ["early", None]


def test_the_end_of_an_engine_is_told_with_its_status(bench):
    here = bench()
    here.warmed()
    uuid, _ = here.fork()
    assert os.WTERMSIG(here.end(uuid, signal.SIGKILL).status) == signal.SIGKILL
    polite, _ = here.fork(1)
    # SIGTERM may come before the engine has its handler: both are an end.
    assert here.end(polite).status in (0, signal.SIGTERM)


def test_engines_go_on_when_the_zygote_is_killed(bench):
    here = bench()
    here.warmed()
    uuid, pid = here.fork()
    wait_for((here.units / f"engine-{uuid.hex()}.page").exists)
    here.zygote.process.kill()
    while here.read()[1]:
        pass
    with open_pidfd(pid) as descriptor:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        assert ends(descriptor)
    here.engines.clear()


def test_the_zygote_ends_when_the_agent_is_gone_and_its_engines_go_on(bench):
    here = bench()
    here.warmed()
    _, pid = here.fork()
    assert here.zygote.close() == 0
    with open_pidfd(pid) as descriptor:
        signal.pidfd_send_signal(descriptor, 0)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert ends(descriptor)
    here.engines.clear()


def test_many_orders_at_once_are_all_carried_out(bench):
    here = bench()
    orders = [z.Fork(slot, os.urandom(16), {}, []) for slot in range(24)]
    here.zygote.fork(*orders)  # while it still warms up
    here.warmed()
    while len(here.engines) < len(orders):
        for message in here.read()[0]:
            if isinstance(message, z.Forked):
                here.engines[message.uuid] = message.pid
    assert set(here.engines) == {order.uuid for order in orders}
    assert len(set(here.engines.values())) == len(orders)


# --- waiting ---


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def wait_for(condition):
    """For what an engine writes and nobody announces."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        select.select([], [], [], 0.005)


class open_pidfd:  # noqa: N801 - used as a function
    def __init__(self, pid):
        self.descriptor = os.pidfd_open(pid)

    def __enter__(self):
        return self.descriptor

    def __exit__(self, *_):
        os.close(self.descriptor)


def ends(descriptor):
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(PATIENCE * 1000))


# --- what tasks of stock clients need ---

WARM = tell_and_fail(
    "[name in sys.modules for name in ('ipyparallel.serialize', 'ipykernel.zmqshell', 'numpy', 'stack_data')]"
    " + [type(get_ipython()).__name__, len(os.listdir('/proc/self/task')), get_ipython().execution_count]"
)
"""An engine tells what it found, its class of shell, its threads, and that no cell of a rehearsal counts."""


@pytest.fixture
def stock_file(isolated):
    """The connection file of a controller to which stock clients may come."""
    ours = connection.NativeEndpoints(1, "unix:///none", "unix:///none", "00" * 32, "test", "00")
    theirs = connection.StockEndpoints("tcp://127.0.0.1", 1, 2, 3, 4, 5, [6], "key", hb_ping=7, hb_pong=8)
    file = isolated.state / "none.json"
    file.touch(0o600)
    file.write_bytes(connection.encode(connection.ConnectionFile(ours, stock=theirs)))


def test_many_engines_share_what_stock_clients_need_from_the_first(bench, stock_file):
    here = bench(startup=WARM, slots=tuple(range(stock.MANY)))
    assert here.warmed().preloaded == []  # of what the profile names
    uuid, _ = here.fork()
    here.exited(uuid)
    assert told(here) == [True, True, True, True, "StockShell", 1, 2]


def test_few_engines_do_not_wait_for_it_and_later_ones_have_it(bench, stock_file):
    here = bench(startup=WARM, slots=(0, 1))
    here.warmed()
    uuid, _ = here.fork(0)
    # It stays: what has no engines makes up for nothing.
    here.exited(uuid)
    assert told(here)[:5] == [False, False, False, False, "EngineShell"]


def test_what_was_left_out_is_made_up_for_when_nothing_is_to_do(bench, stock_file, monkeypatch):
    # The first engine lives on, the second tells.
    command = "import os\nif os.environ.get('TELL'):\n    exec(os.environ['TELL'])"
    here = bench(startup=Startup(command=command), slots=(0, 1))
    here.warmed()
    here.fork(0)
    maps = Path(f"/proc/{here.zygote.process.pid}/maps")
    until(lambda: "_multiarray_umath" in maps.read_text(), "the zygote imports numpy", limit=PATIENCE)
    uuid, _ = here.fork(1, {"TELL": WARM.command})
    here.exited(uuid)
    assert told(here, 1) == [True, True, True, True, "StockShell", 1, 2]


def test_the_controller_may_come_later_than_the_zygote(bench):
    here = bench(startup=WARM, slots=tuple(range(stock.MANY)), stock=True)
    here.warmed()
    uuid, _ = here.fork()
    here.exited(uuid)
    assert told(here)[:5] == [True, True, True, True, "StockShell"]


def test_without_stock_sockets_nothing_of_it_is_imported(bench):
    here = bench(startup=WARM, slots=tuple(range(stock.MANY)))
    here.warmed()
    uuid, _ = here.fork()
    here.exited(uuid)
    assert told(here)[:5] == [False, False, False, False, "EngineShell"]
