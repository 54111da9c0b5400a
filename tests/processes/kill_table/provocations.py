"""How the processes of the table are brought to their death: each provocation makes a cluster, hits it, and sees that it was hit.

It ends when the tasks can go on; what holds then is checked by the test. A fault point is armed in processes that run already.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.processes.kill_table.scene import LIMIT, TASKS, kill
from tests.waiting import until

HOW = {}
OTHERS = range(1000, 1040)

VICTIM = """
import sys
import clusterd
from tests.processes.kill_table.scene import work
numbers = range(int(sys.argv[3]), int(sys.argv[4]))
with clusterd.Client("test", label="victim") as client:
    view = client.load_balanced_view()
    futures = [view.apply_async(work, sys.argv[1], number, sys.argv[2] or None) for number in numbers]
    client.wait(futures)
"""


def provocation(name):
    def add(function):
        assert name not in HOW
        HOW[name] = function
        return function

    return add


def prepared(scene, row):
    """The cluster runs, a client is connected, the fault (if the row has one) is not armed yet."""
    scene.begin(f"{row.moment}:{row.passes}" if row.is_point else "")
    scene.connect()
    scene.before = scene.pids()


def loaded(scene, row, last=TASKS):
    """Both engines run a task that is held, the others wait."""
    scene.submit([0, 1], is_held=True, retries=row.retries)
    scene.begun(0, 1)
    scene.submit(range(2, last), retries=row.retries)


def taught(scene, row):
    """The function is known to be short: from now on tasks are given in advance."""
    scene.submit(range(100, 120), retries=row.retries)
    scene.finish()


def ahead(scene, row):
    """An engine runs a task that is held, with others behind it that were given in advance; the other engine is free."""
    taught(scene, row)
    scene.submit([20], is_held=True, retries=row.retries)
    scene.submit(range(21, 20 + TASKS), retries=row.retries)
    scene.begun(20)


def runner(scene, number):
    """The process that runs a task."""
    return scene.executions()[number][-1]


# --- fault points ---


@provocation("load")
def _load(scene, row):
    # One engine runs a task all the while: whatever dies, there is work that has begun and work that comes and goes.
    prepared(scene, row)
    taught(scene, row)
    scene.submit([0], is_held=True, retries=row.retries)
    scene.begun(0)
    scene.arm()
    scene.submit(range(1, TASKS), retries=row.retries)
    scene.await_fault(row.moment)
    if row.process == "controller":
        another(scene, "controller")
    scene.open_gate()


@provocation("controller's successor")
def _controllers_successor(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    kill(scene.before.controller)
    scene.await_fault(row.moment)
    another(scene, "controller")
    scene.open_gate()


@provocation("controller's successor, with offers")
def _controllers_successor_with_offers(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    # While the agent has not spoken, what the client offers again waits: so there are offers, whoever is the first to dial.
    kill(scene.before.agent, signal.SIGSTOP)
    try:
        kill(scene.before.controller)
        until(scene.has_offered, "the client has offered its tasks again", about=scene.log)
    finally:
        kill(scene.before.agent, signal.SIGCONT)
    scene.await_fault(row.moment)
    another(scene, "controller")
    scene.open_gate()


@provocation("agent's successor")
def _agents_successor(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    kill(scene.before.agent)
    scene.await_fault(row.moment)
    scene.open_gate()


@provocation("zygote's successor")
def _zygotes_successor(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    kill(scene.before.zygote)
    scene.await_fault(row.moment)
    scene.open_gate()


@provocation("scale up")
def _scale_up(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    scene.scale(3)
    scene.await_fault(row.moment)
    scene.open_gate()
    succeed_daemon(scene, row)


@provocation("change the keys")
def _change_the_keys(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    old, _ = scene.keys()
    scene.arm()
    scene.change_keys()
    scene.await_fault(row.moment)
    if row.process == "controller":
        another(scene, "controller")
    scene.open_gate()
    succeed_daemon(scene, row)
    kept, in_files = scene.keys()
    assert kept == in_files
    assert set(kept).isdisjoint(old)


@provocation("die while the controller is busy")
def _die_while_the_controller_is_busy(scene, row):
    prepared(scene, row)
    scene.submit([0, 1], is_held=True)
    scene.begun(0, 1)
    scene.submit(range(2, TASKS))
    kill(scene.before.controller, signal.SIGSTOP)
    try:
        scene.arm()
        scene.open_gate()
        scene.await_fault(row.moment)
        # The agent has said it, too: now the controller finds both, the results and the death.
        until(lambda: "killed by SIGKILL" in scene.log(), "the agent knows of the death", about=scene.log)
    finally:
        kill(scene.before.controller, signal.SIGCONT)


@provocation("recall")
def _recall(scene, row):
    prepared(scene, row)
    taught(scene, row)
    scene.arm()
    scene.submit([20], is_held=True)
    scene.submit(range(21, 20 + TASKS))
    scene.await_fault(row.moment)
    done_but(scene, 20)
    scene.open_gate()


@provocation("replace the agent")
def _replace_the_agent(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    kill(scene.before.agent)
    scene.await_fault(row.moment)
    scene.open_gate()
    succeed_daemon(scene, row)


@provocation("replace the controller")
def _replace_the_controller(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    scene.arm()
    kill(scene.before.controller)
    scene.await_fault(row.moment)
    scene.open_gate()
    # Nobody can have a result before there is a controller again.
    scene.succeed()


@provocation("first start")
def _first_start(scene, row):
    scene.arm()
    daemon = scene.serve(is_ready=False, **scene.faulty(row.moment))
    assert daemon.wait(LIMIT) == -signal.SIGKILL
    scene.await_fault(row.moment)
    scene.serve()
    scene.converged()
    scene.connect()
    scene.before = scene.pids()
    scene.submit(range(TASKS))


@provocation("old segment")
def _old_segment(scene, row):
    _next_daemon_finds(scene, row, lambda journal: journal.with_name("journal-00000000.log").write_bytes(b"old"))


@provocation("torn journal")
def _torn_journal(scene, row):
    def tear(journal):
        with journal.open("ab") as file:
            file.write(b"torn")

    _next_daemon_finds(scene, row, tear)


def _next_daemon_finds(scene, row, change):
    scene.begin()
    scene.connect()
    scene.before = scene.pids()
    loaded(scene, row)
    kill(scene.before.daemon)
    change(max((scene.state / "journal").glob("journal-*.log")))
    scene.arm()
    daemon = scene.serve(is_ready=False, **scene.faulty(row.moment))
    assert daemon.wait(LIMIT) == -signal.SIGKILL
    scene.await_fault(row.moment)
    scene.open_gate()
    succeed_daemon(scene, row)


@provocation("another client")
def _another_client(scene, row):
    prepared(scene, row)
    scene.arm()
    victim = start_victim(scene, gate="", CLUSTERD_FAULT=f"{row.moment}=kill", CLUSTERD_FAULT_ONCE=str(scene.markers))
    scene.submit(range(TASKS))
    assert victim.wait(LIMIT) == -signal.SIGKILL
    scene.await_fault(row.moment)
    forgotten(scene)


# --- signals from outside ---


@provocation("kill the controller")
def _kill_the_controller(scene, row):
    prepared(scene, row)
    kill(scene.before.controller)
    scene.submit(range(TASKS))


@provocation("kill the controller under load")
def _kill_the_controller_under_load(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.controller)
    another(scene, "controller")
    scene.open_gate()


@provocation("kill the controller with tasks ahead")
def _kill_the_controller_with_tasks_ahead(scene, row):
    prepared(scene, row)
    # The agent can recall nothing before the controller dies: what is behind the long task stays there.
    kill(scene.before.agent, signal.SIGSTOP)
    ahead(scene, row)
    kill(scene.before.controller)
    kill(scene.before.agent, signal.SIGCONT)
    another(scene, "controller")
    done_but(scene, 20)
    scene.open_gate()


@provocation("kill controller and engine")
def _kill_controller_and_engine(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.controller)
    kill(runner(scene, 0))
    another(scene, "controller")
    scene.open_gate()


@provocation("kill the controller with dependencies")
def _kill_the_controller_with_dependencies(scene, row):
    prepared(scene, row)
    taught(scene, row)
    scene.submit([0, 1], is_held=True)
    scene.begun(0, 1)
    scene.submit(range(2, 10))
    # 100 has ended, 0 runs, 2 has not begun.
    scene.submit(range(10, 20), after=[scene.futures[100]])
    scene.submit(range(20, 30), after=[scene.futures[100], scene.futures[2], scene.futures[0]])
    scene.submit(range(30, TASKS), follow=scene.futures[101])
    kill(scene.before.controller)
    another(scene, "controller")
    scene.open_gate()


@provocation("stop the controller")
def _stop_the_controller(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.controller, signal.SIGSTOP)
    try:
        scene.until(lambda status: status["controller"]["state"] == "unreachable" and status["controller"]["reason"])
    finally:
        kill(scene.before.controller, signal.SIGCONT)
    scene.open_gate()


@provocation("kill an engine")
def _kill_an_engine(scene, row):
    prepared(scene, row)
    kill(scene.before.engines[0])
    scene.submit(range(TASKS))


@provocation("kill a running engine")
def _kill_a_running_engine(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    if row.is_point:
        scene.arm()
    kill(runner(scene, 0))
    if row.is_point:
        scene.await_fault(row.moment)
    scene.open_gate()


@provocation("kill an engine with tasks ahead")
def _kill_an_engine_with_tasks_ahead(scene, row):
    prepared(scene, row)
    ahead(scene, row)
    kill(runner(scene, 20))
    scene.open_gate()


@provocation("kill both engines")
def _kill_both_engines(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    for number in (0, 1):
        kill(runner(scene, number))
    scene.open_gate()


@provocation("stop an engine")
def _stop_an_engine(scene, row):
    prepared(scene, row)
    ahead(scene, row)
    engine = runner(scene, 20)
    kill(engine, signal.SIGSTOP)
    try:
        done_but(scene, 20)
    finally:
        kill(engine, signal.SIGCONT)
    scene.open_gate()


@provocation("kill the agent")
def _kill_the_agent(scene, row):
    prepared(scene, row)
    kill(scene.before.agent)
    scene.submit(range(TASKS))


@provocation("kill the agent under load")
def _kill_the_agent_under_load(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.agent)
    scene.open_gate()


@provocation("kill agent and engine")
def _kill_agent_and_engine(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    # Stopped first, so that it cannot tell of the engine's death.
    kill(scene.before.agent, signal.SIGSTOP)
    kill(runner(scene, 0))
    kill(scene.before.agent)
    scene.open_gate()


@provocation("stop the agent")
def _stop_the_agent(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.agent, signal.SIGSTOP)
    try:
        kill(runner(scene, 0))
        scene.open_gate()
        done_but(scene, 0)
        [entry] = [each for each in scene.engine_list() if each["pid"] == runner(scene, 0)]
        assert entry["state"] == "suspect"
    finally:
        kill(scene.before.agent, signal.SIGCONT)


@provocation("kill the zygote")
def _kill_the_zygote(scene, row):
    prepared(scene, row)
    kill(scene.before.zygote)
    scene.submit(range(TASKS))


@provocation("kill the zygote under load")
def _kill_the_zygote_under_load(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.zygote)
    scene.open_gate()


@provocation("stop the zygote")
def _stop_the_zygote(scene, row):
    prepared(scene, row)
    kill(scene.before.zygote, signal.SIGSTOP)
    try:
        scene.scale(3)
        scene.submit(range(TASKS))
        scene.finish()
        status = scene.client.get(scene.path)["engine_sets"]["engines"]
        assert (status["desired"], status["observed"], status["is_converged"]) == (3, 2, False)
        assert status["reason"]
    finally:
        kill(scene.before.zygote, signal.SIGCONT)


@provocation("kill the daemon")
def _kill_the_daemon(scene, row):
    prepared(scene, row)
    kill(scene.before.daemon)
    scene.submit(range(TASKS))
    succeed_daemon(scene, row)


@provocation("kill the daemon while it scales")
def _kill_the_daemon_while_it_scales(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    assert scene.scale(3)
    kill(scene.before.daemon)
    scene.open_gate()
    succeed_daemon(scene, row)


@provocation("kill all but the engines")
def _kill_all_but_the_engines(scene, row):
    prepared(scene, row)
    loaded(scene, row)
    kill(scene.before.daemon)
    kill(scene.before.controller)
    kill(scene.before.agent)
    scene.succeed()
    scene.open_gate()


@provocation("stop the daemon")
def _stop_the_daemon(scene, row):
    prepared(scene, row)
    kill(scene.before.daemon, signal.SIGSTOP)
    try:
        scene.submit(range(TASKS))
        scene.finish()
    finally:
        kill(scene.before.daemon, signal.SIGCONT)


@provocation("kill another client")
def _kill_another_client(scene, row):
    prepared(scene, row)
    victim = start_victim(scene, gate=str(scene.gate))
    until(lambda: len(scene.executions()) == 2, "two tasks of the other client run", about=scene.log)
    scene.submit(range(TASKS))
    victim.kill()
    victim.wait(LIMIT)
    forgotten(scene, running=2)
    scene.open_gate()


# --- what several have in common ---


def another(scene, kind):
    """Wait for the successor of a process."""
    scene.until(
        lambda status: status[kind]["state"] == "running" and status[kind]["pid"] != getattr(scene.before, kind)
    )


def done_but(scene, number):
    """Wait for the end of all tasks but one, which goes on."""
    others = [future for each, future in scene.futures.items() if each != number]
    assert scene.client_.wait(others, LIMIT), f"{scene.state_of_tasks()}\n{scene.log()}"
    assert not scene.futures[number].done()


def succeed_daemon(scene, row):
    """Where the daemon was hit: all tasks end without one; then start the next."""
    if row.process == "daemon":
        scene.finish()
        scene.succeed()


def start_victim(scene, *, gate, **environment):
    """Another client, in a process of its own."""
    argv = [sys.executable, "-c", VICTIM, str(scene.ledger), gate, str(OTHERS.start), str(OTHERS.stop)]
    return subprocess.Popen(argv, env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)})


def forgotten(scene, running=0):
    """Wait until nothing of the dead client is queued: it is gone, and nobody but us and the daemon is there."""

    def look():
        # Asked in this order: what of ours ends meanwhile is not taken for the dead client's.
        ours = sum(not future.done() for future in scene.futures.values())
        queue = scene.client_.queue_status()
        held = sum(each["running"] + each["prefetched"] + each["queued"] for each in queue["engines"].values())
        return queue["clients"] == 2 and queue["unassigned"] + held <= ours + running

    until(look, "the dead client is forgotten", limit=10.0, about=lambda: (scene.client_.queue_status(), scene.log()))
