"""`clusterd@local` as root with `run_as`, in a real systemd: where things run, and what restarts and crashes leave alone."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

CLIENT = """
import json, sys, clusterd
with clusterd.Client(sys.argv[1]) as client:
    print(json.dumps(client[:].apply_sync(eval(sys.argv[2]))))
"""


def compute(service, function):
    """Call a function, given as the text of an expression, on all engines."""
    return json.loads(service.compute(CLIENT, function))


def until(look):
    deadline = time.monotonic() + 20
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return seen


def test_users_and_directories(host):
    assert host.run("id", "-un", "clusterd").strip() == "clusterd"
    assert host.run("stat", "-c", "%a %U", "/run/clusterd", "/var/lib/clusterd", "/var/lib/clusterd/.home").split() == [
        *("755", "root"),
        *("755", "root"),
        *("700", "clusterd"),
    ]


def test_controller_and_agents_are_units_of_their_own(service):
    controller, [agent], engines = service.running()
    own = service.systemctl("show", "--property=ControlGroup", "--value").strip()
    daemon = int(service.show("MainPID"))
    pids = service.host.run("sh", "-c", f"cat /sys/fs/cgroup{own}/cgroup.procs").split()
    titles = [service.host.title(pid) for pid in pids]
    assert titles == ["clusterd serve local", "clusterd warden local"]
    assert service.group(daemon) == own
    assert service.group(controller).startswith("/clusterd.slice/clusterd-local-controller-")
    assert service.group(agent).startswith("/clusterd.slice/clusterd-local-engines-")
    assert {service.group(pid) for pid in engines.values()} == {service.group(agent)}
    uid = service.host.run("id", "-u", "clusterd").strip()
    for pid in (daemon, controller, agent, *engines.values()):
        assert service.host.status(pid)["Uid"].split() == [uid] * 4
    assert service.host.status(pids[1])["Uid"].split()[0] == "0"


def test_the_limits_are_the_units(service):
    _, [agent], _ = service.running()
    unit = service.group(agent).rpartition("/")[2]
    shown = service.host.run("systemctl", "show", "-p", "MemoryMax", "-p", "CPUQuotaPerSecUSec", "-p", "TasksMax", unit)
    assert sorted(shown.split()) == ["CPUQuotaPerSecUSec=2s", "MemoryMax=4294967296", "TasksMax=512"]
    # What the kernel does not hold, because all its controllers are bound to version 1, the status says.
    held = (service.host.root / f"sys/fs/cgroup{service.group(agent)}/memory.max").exists()
    warnings = service.get()["warnings"]
    assert warnings == [] if held else warnings[0].startswith("engines: limits: memory, cpus, tasks not held")


def test_the_sandbox_of_the_daemon_ends_at_the_daemon(service):
    daemon = service.host.status(service.show("MainPID"))
    assert (daemon["NoNewPrivs"], daemon["Seccomp"]) == ("1", "2")
    for pid in service.engines().values():
        engine = service.host.status(pid)
        assert (engine["NoNewPrivs"], engine["Seccomp"]) == ("0", "0")


def test_users_code_may_make_code_and_run_setuid_programs(service):
    # What numba and other compilers do: memory that is written and then run. The daemon may not (MemoryDenyWriteExecute=).
    page = "__import__('mmap').mmap(-1, 4096, prot=7).write(b'\\xc3')"
    assert compute(service, f"lambda: {page}") == [1, 1]
    service.host.run("sh", "-c", "cp /usr/bin/id /usr/bin/id-setuid && chmod u+s /usr/bin/id-setuid")
    run = "__import__('subprocess').run(['id-setuid', '-u'], capture_output=True, text=True).stdout"
    assert compute(service, f"lambda: {run}") == ["0\n", "0\n"]


def test_the_status_line(service):
    service.running()
    assert service.show("StatusText") == "2/2 engines, 0 tasks queued"


def test_reload(service):
    before = service.running()
    service.systemctl("reload")
    assert "reloaded /etc/clusterd/profiles/local.yaml: nothing has changed" in service.log()
    assert service.running() == before


def test_a_restart_touches_nothing(service):
    before, daemon = service.running(), service.show("MainPID")
    service.systemctl("restart")
    assert service.show("MainPID") != daemon
    assert service.running() == before


def test_a_killed_daemon_is_started_again_and_adopts(service):
    before, daemon = service.running(), service.show("MainPID")
    service.host.run("kill", "-KILL", daemon)
    until(lambda: service.show("MainPID") not in {"0", daemon} and service.show("ActiveState") == "active")
    assert service.running() == before
    assert service.show("NRestarts") == "1"


def test_a_frozen_daemon_is_ended_by_the_watchdog(service):
    service.host.write(f"/run/systemd/system/{service.unit}.d/watchdog.conf", "[Service]\nWatchdogSec=1\n")
    service.host.run("systemctl", "daemon-reload")
    service.systemctl("restart")
    before, daemon = service.running(), service.show("MainPID")
    service.host.run("kill", "-STOP", daemon)
    until(lambda: service.show("MainPID") not in {"0", daemon} and service.show("ActiveState") == "active")
    assert service.running() == before
    assert "Watchdog timeout" in service.log()
    service.host.run("rm", "-r", f"/run/systemd/system/{service.unit}.d")
    service.host.run("systemctl", "daemon-reload")
    service.systemctl("restart")


def test_a_killed_agent_leaves_its_engines_and_the_next_one_adopts_them(service):
    controller, [agent], engines = service.running()
    unit = service.group(agent).rpartition("/")[2]
    service.host.run("kill", "-KILL", str(agent))
    until(lambda: service.get()["engine_sets"]["engines"]["launches"][-1:] != [] and service.running()[1] != [agent])
    assert service.running()[::2] == (controller, engines)
    assert f"(process {agent}) was killed by SIGKILL" in service.log()
    # Its unit was asked, and dropped; its control group, with the limits, stays as long as the engines.
    assert service.host.run("systemctl", "show", "--property=ActiveState", "--value", unit).strip() == "inactive"
    assert {service.group(pid) for pid in engines.values()} == {f"/clusterd.slice/{unit}"}


def test_a_service_that_is_stopped_ends_the_cluster_and_runs_it_again(service):
    service.ctl("scale", "engines", "3", "--wait")
    controller, [agent], engines = service.running()
    service.systemctl("stop")
    for pid in (controller, agent, *engines.values()):
        assert not (service.host.root / f"proc/{pid}").exists()
    assert service.show("Result") == "success"
    assert service.host.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "clusterd-local-*") == ""
    service.systemctl("start")
    assert service.converged()["engine_sets"]["engines"]["observed"] == 3


def test_a_task_that_runs_may_finish_before_the_service_stops(service):
    # It ends a moment after the stop began: whoever waits for the file knows that it runs.
    path = service.host.root / "tmp" / "task"
    text = "lambda: open('/tmp/task', 'w').close() or __import__('time').sleep(1.5) or open('/tmp/task', 'w').write('done')"
    with ThreadPoolExecutor(1) as pool:
        computed = pool.submit(compute, service, text)
        until(path.exists)
        # As at a shutdown: all units in one transaction. The daemon's comes first, because the others are Before= it.
        service.host.run("systemctl", "stop", service.unit, "clusterd-local-*")
        assert computed.result() == [4, 4, 4]
    assert path.read_text() == "done"
    service.systemctl("start")
    service.converged()


def test_a_start_whose_answer_was_lost_is_found_again(service):
    # The daemon is killed when the unit runs and it has not noted that: its successor finds it by its identity file.
    drop_in = f"/run/systemd/system/{service.unit}.d/fault.conf"
    service.host.write(
        drop_in,
        '[Service]\nEnvironment="CLUSTERD_FAULT=daemon.start.after_spawn=kill" CLUSTERD_FAULT_ONCE=/run/clusterd/once\n',
    )
    service.host.run("mkdir", "--mode=777", "/run/clusterd/once")
    service.host.run("systemctl", "daemon-reload")
    service.systemctl("restart")
    controller, [agent], engines = service.running()
    service.host.run("kill", "-KILL", str(agent))
    until(lambda: service.show("NRestarts") == "1" and service.show("ActiveState") == "active")
    assert service.running()[::2] == (controller, engines)
    listed = service.host.run(
        "systemctl", "list-units", "--plain", "--no-legend", "--state=active", "clusterd-local-engines-*"
    )
    assert len(listed.splitlines()) == 1
    service.host.run("rm", "-r", f"/run/systemd/system/{service.unit}.d", "/run/clusterd/once")
    service.host.run("systemctl", "daemon-reload")


def test_on_stop_keep_ends_the_daemon_alone(service):
    path = service.host.root / "etc/clusterd/profiles/local.yaml"
    text = path.read_text()
    path.write_text(text.replace("run_as", "on_stop: keep\nrun_as"))
    service.systemctl("reload")
    before = service.running()
    service.systemctl("stop")
    for pid in (before[0], *before[1], *before[2].values()):
        assert (service.host.root / f"proc/{pid}").exists()
    path.write_text(text)
    service.systemctl("start")
    assert service.running() == before


def test_what_the_daemon_writes_to_the_journal_has_its_profile(service):
    found = service.host.run("journalctl", "CLUSTERD_PROFILE=local", "--no-pager", "--output", "cat")
    assert "serves local from /etc/clusterd/profiles/local.yaml" in found


def test_what_engines_print_is_in_the_journal_too(service):
    compute(service, "lambda: __import__('os').system('echo one two; echo three')")
    fields = ("CLUSTERD_PROFILE=local", "CLUSTERD_SET=engines", "CLUSTERD_ENGINE=engines/0")

    def written():
        found = service.host.run("journalctl", *fields, "--no-pager", "--output", "cat")
        return found if "three" in found else ""

    assert until(written) == "one two\nthree\n"


def test_a_profile_that_is_wrong_is_not_tried_again(host):
    host.write("/etc/clusterd/profiles/wrong.yaml", "version: 1\nnothing: true\n")
    host.run("systemctl", "start", "clusterd@wrong", status=1)
    shown = host.run("systemctl", "show", "-p", "ExecMainStatus", "-p", "NRestarts", "clusterd@wrong").split()
    assert shown == ["NRestarts=0", "ExecMainStatus=78"]
    host.run("systemctl", "reset-failed", "clusterd@wrong")
