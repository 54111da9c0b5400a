"""The agent with a real controller and real engines: it starts, replaces, adopts, obeys and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusterd.core.model.profile import CrashLoop, RestartPolicy, Startup
from clusterd.core.wire import messages as m
from clusterd.errors import TaskError
from clusterd.system import process
from tests.processes.agent_bench import Bench


@pytest.fixture
def bench(isolated):
    made = Bench(isolated)
    yield made
    made.close()


@pytest.fixture
def two(bench):
    """A controller, an agent with two engines, and the links."""
    bench.controller()
    bench.two = bench.agent()
    bench.connect()
    bench.has(2)
    return bench


def kill(pid, number=signal.SIGKILL):
    assert process.send_signal(process.of(pid), number)


def test_engines_are_started_with_what_differs_between_them(bench):
    bench.controller()
    bench.agent(
        slots=(0, 3), env={"RANK": "{local_rank}", "SLOT": "{slot}"}, startup=Startup(command="started = 'yes'")
    )
    bench.connect()
    engines = bench.has(2)
    assert set(engines) == {0, 3}
    found = {
        bench.run("import os; (os.environ['RANK'], os.environ['SLOT'], started)", info.id) for info in engines.values()
    }
    assert found == {"('0', '0', 'yes')", "('1', '3', 'yes')"}


def test_processes_have_titles(two):
    agent = Path(f"/proc/{two.two.pid}/cmdline").read_bytes()
    assert agent.startswith(b"clusterd agent test/engines")
    children = Path(f"/proc/{two.two.pid}/task/{two.two.pid}/children").read_text().split()
    assert [Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in children] == [
        b"clusterd zygote test/engines"
    ]
    for slot, info in two.has(2).items():
        assert Path(f"/proc/{info.pid}/cmdline").read_bytes().startswith(b"clusterd engine test/engines/%d" % slot)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("import os; os._exit(7)", "ended with exit status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL, not by its agent"),
        ("import ctypes; ctypes.string_at(0)", "crashed with SIGSEGV"),
    ],
)
def test_a_dead_engine_is_replaced_and_its_task_fails_with_the_cause(two, end, cause):
    victim = two.has(2)[1]
    failed = two.run(f"print('last words')\n{end}", victim.id)
    assert isinstance(failed, m.Failed)
    assert failed.code == "engine_lost"
    assert cause in failed.message
    assert ("Fatal Python error" if "SIGSEGV" in cause else "last words") in failed.message
    two.until(lambda: victim.id not in two.engines)
    assert cause in two.gone[victim.id]
    assert two.has(2)[1].pid != victim.pid
    assert not (two.places.runtime / "units" / f"engine-{victim.uuid.hex()}.json").exists()


def test_sys_exit_is_no_end(two):
    engine = two.has(2)[0]
    assert isinstance(two.run("import sys; sys.exit(1)", engine.id), TaskError)
    assert two.run("1", engine.id) == "1"


def test_an_engine_that_keeps_dying_is_a_crash_loop_until_it_is_resumed(bench):
    bench.controller()
    policy = RestartPolicy(initial_backoff=0.01, max_backoff=0.01, crash_loop=CrashLoop(failures=3, within=60))
    flag = bench.places.home / "works"
    startup = Startup(command=f"assert __import__('os').path.exists({str(flag)!r}), 'no flag yet'")
    agent = bench.agent(slots=(0,), restart=policy, startup=startup)
    bench.connect()
    slots = bench.slots(agent, lambda slots: slots[0].state == "crash-loop")
    assert "3 failures" in slots[0].reason
    assert "AssertionError: no flag yet" in slots[0].reason
    flag.touch()
    bench.resume(agent)
    bench.has(1)
    bench.slots(agent, lambda slots: slots[0].state == "running")


def test_interrupt_ends_the_task_and_keeps_the_namespace(two):
    engine = two.has(2)[0]
    two.run("kept = 1", engine.id)
    task = two.submit(
        "import time\nprint('sleeps', flush=True)\nopen('asleep', 'w').close()\ntime.sleep(100)", engine.id
    )
    two.until((two.places.home / "asleep").exists)
    assert two.command(engine.id, "interrupt") == {"done": [engine.id], "failed": {}}
    assert isinstance(two.result(task), KeyboardInterrupt)
    assert two.run("kept", engine.id) == "1"


@pytest.mark.parametrize("word", ["stop", "kill", "restart"])
def test_an_engine_that_is_ended_by_command_is_replaced(two, word):
    victim = two.has(2)[0]
    assert two.command(victim.id, word)["done"] == [victim.id]
    two.until(lambda: victim.id not in two.engines)
    assert two.has(2)[0].pid != victim.pid


def test_an_engine_that_holds_the_interpreter_is_killed_after_its_time(bench):
    bench.controller()
    bench.agent(slots=(0,), stop_timeout=0.3)
    bench.connect()
    engine = bench.has(1)[0]
    task = bench.submit("import re\nopen('begun', 'w').close()\nre.match('(a+)+$', 'a' * 40 + 'b')", engine.id)
    bench.until((bench.places.home / "begun").exists)
    bench.command(engine.id, "restart")
    assert isinstance(bench.result(task), m.Failed)
    assert bench.has(1)[0].pid != engine.pid


def test_more_and_fewer_slots(two):
    before = two.has(2)
    assert isinstance(two.desire(two.two, 1, [0, 1, 2]), m.Reply)
    assert {slot: info.pid for slot, info in two.has(3).items() if slot < 2} == {
        slot: info.pid for slot, info in before.items()
    }
    two.desire(two.two, 2, [2])
    assert set(two.has(1)) == {2}
    # An order that was overtaken on its way changes nothing.
    two.desire(two.two, 1, [0, 1, 2])
    two.slots(two.two, lambda slots: set(slots) == {2} and slots[2].state == "running")


def test_the_engines_of_a_killed_agent_go_on_and_the_next_one_adopts_them(two):
    before = two.has(2)
    two.run("kept = 5", before[0].id)
    two.two.kill()
    two.two.wait()
    assert two.run("kept", before[0].id) == "5"
    successor = two.agent()
    two.slots(successor, lambda slots: all(slot.state == "running" for slot in slots.values()))
    assert {slot: info.pid for slot, info in two.has(2).items()} == {slot: info.pid for slot, info in before.items()}
    # It commands them, and replaces them.
    assert two.command(before[0].id, "kill")["done"] == [before[0].id]
    two.until(lambda: before[0].id not in two.engines)
    assert two.has(2)[0].pid != before[0].pid


def test_an_adopted_engine_obeys_its_new_agent_after_a_new_controller(two):
    before = two.has(2)
    two.two.kill()
    two.two.wait()
    successor = two.agent()
    two.slots(successor, lambda slots: all(slot.state == "running" for slot in slots.values()))
    two.processes[0].kill()
    two.processes[0].wait()
    two.until(lambda: not any(link.is_attached for link in two.links.values()))
    two.engines.clear()
    two.notices.clear()
    two.controller()
    two.until(lambda: all(link.is_attached for link in two.links.values()))
    two.list_engines()
    after = two.has(2)
    assert {info.pid for info in after.values()} == {info.pid for info in before.values()}
    two.until(lambda: successor.launch in two.notices)
    assert two.command(after[0].id, "interrupt")["done"] == [after[0].id]


def test_a_killed_zygote_costs_nothing_but_the_next_fork(two):
    before = two.has(2)
    (zygote,) = Path(f"/proc/{two.two.pid}/task/{two.two.pid}/children").read_text().split()
    kill(int(zygote))
    kill(before[0].pid)
    two.until(lambda: before[0].id not in two.engines)
    after = two.has(2)
    assert after[1].pid == before[1].pid
    assert after[0].pid != before[0].pid


def test_a_killed_controller_finds_everything_again(two):
    before = two.has(2)
    two.run("kept = 6", before[1].id)
    task = two.submit("import time, os\nwhile not os.path.exists('go'): time.sleep(0.01)\n'finished'", before[0].id)
    two.processes[0].kill()
    two.processes[0].wait()
    two.until(lambda: not any(link.is_attached for link in two.links.values()))
    two.engines.clear()
    two.controller()
    two.until(lambda: all(link.is_attached for link in two.links.values()))
    two.list_engines()
    # The one that runs a task is known from its agent, before it has time to attach.
    two.until(lambda: set(two.engines) == {info.id for info in before.values()})
    (two.places.home / "go").touch()
    after = two.has(2)
    assert {slot: info.pid for slot, info in after.items()} == {slot: info.pid for slot, info in before.items()}
    assert two.run("kept", after[1].id) == "6"
    del task


def test_sigterm_ends_agent_and_engines(two):
    pids = [info.pid for info in two.has(2).values()]
    identities = [process.of(pid) for pid in pids]
    two.two.terminate()
    assert two.two.wait(20) == 0
    assert not any(process.is_same_and_alive(identity) for identity in identities)
    left = sorted(file.name for file in (two.places.runtime / "units").iterdir())
    assert [name for name in left if not name.startswith("controller-")] == []


def test_a_launch_runs_once(two):
    spec = next(two.places.root.glob(f"{two.two.launch}.json"))
    again = subprocess.run(
        [sys.executable, "-m", "clusterd", "agent", "--spec", str(spec)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "was called off, or runs already" in again.stderr


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("{", "is no AgentSpec"), ("{}", "is no AgentSpec")]
)
def test_a_bad_spec_is_told(isolated, content, words):
    file = isolated.root / "spec.json"
    if content is not None:
        file.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "clusterd", "agent", "--spec", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert words in done.stderr


def test_without_a_controller_an_idle_agent_ends_after_its_time(bench):
    agent = bench.agent(slots=(0,), orphan_timeout=0.5)
    assert agent.wait(30) == 0
    assert "no controller for 0 s" in bench.log() or "no controller for 1 s" in bench.log()
    assert bench.identities() == {}


def test_preloads_that_are_missing_are_warnings_in_the_report(bench):
    bench.controller()
    agent = bench.agent(slots=(0,), preload=["no_such_module_at_all"])
    bench.connect()
    bench.has(1)
    notice = bench.until(lambda: (found := bench.notices.get(agent.launch)) and found.warnings and found)
    assert notice.warnings == [
        "preload no_such_module_at_all: ModuleNotFoundError: No module named 'no_such_module_at_all'"
    ]


# --- one engine by hand ---


def by_hand(bench, *words):
    started = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "clusterd",
            "engine",
            "--file",
            str(bench.places.state / "security" / "ipcontroller-engine.json"),
            *words,
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    bench.processes.append(started)
    return started


def test_an_engine_by_hand_works_is_controlled_and_ends(bench):
    bench.controller()
    bench.connect()
    engine = by_hand(bench, "--startup-command", "begun = 1")
    info = bench.has(1)[engine.pid]
    assert info.engine_set == "hand"
    assert bench.run("print('shown'); begun", info.id) == "1"
    task = bench.submit(
        "import re\nopen(f'{__import__(\"os\").environ[\"HOME\"]}/begun', 'w').close()\nre.match('(a+)+$', 'a' * 40 + 'b')",
        info.id,
    )
    bench.until((bench.places.home / "begun").exists)
    bench.until(lambda: any(launch.startswith("hand-") for launch in bench.notices))
    assert bench.command(info.id, "restart")["failed"] == {
        info.id: "this engine was started by hand: stop it, and start another where it was"
    }
    assert bench.command(info.id, "kill")["done"] == [info.id]
    assert isinstance(bench.result(task), m.Failed)
    assert engine.wait(20) == -signal.SIGKILL
    output, _ = engine.communicate()
    assert output == "shown\n"
    bench.until(lambda: info.id not in bench.engines)
    wait_until_gone(bench)


def wait_until_gone(bench):
    """The helper removes the directory that the two shared, as its last act."""
    bench.until(lambda: not list(bench.places.temporary.glob("clusterd-engine-*")))


def test_an_engine_by_hand_ends_at_ctrl_c_and_leaves_nothing(bench):
    bench.controller()
    bench.connect()
    engine = by_hand(bench, "--id", "77")
    info = bench.has(1)[engine.pid]
    assert info.id == 77
    engine.send_signal(signal.SIGINT)
    assert engine.wait(20) == 0
    engine.communicate()
    bench.until(lambda: not bench.engines)
    wait_until_gone(bench)


def test_an_engine_by_hand_that_cannot_join_says_why(bench):
    engine = by_hand(bench, "--timeout", "0.3")
    output, problem = engine.communicate(timeout=20)
    assert engine.returncode == 1
    assert "ipcontroller-engine.json cannot be read" in problem
    assert output == ""


def test_the_engines_environment_needs_little(isolated):
    """Agent and engine run in the users' environment: what else is installed beside the daemon is not imported."""
    code = (
        "import sys\n"
        "for name in ('aiohttp', 'click', 'rich', 'yaml', 'sdnotify', 'zmq'): sys.modules[name] = None\n"
        "import clusterd.agent.main, clusterd.agent.loop, clusterd.agent.zygote.server, clusterd.engine.main, clusterd.engine.by_hand\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
