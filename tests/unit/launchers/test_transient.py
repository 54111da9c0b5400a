"""Units, with managers that are not there: what is asked of them, and what is made of their answers."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from clusterd.core.model.profile import Limits
from clusterd.errors import LaunchError
from clusterd.launchers.base import Program, Unknown
from clusterd.launchers.transient import DirectStarter, Order, TransientLauncher, unit_name
from clusterd.system.service_manager import Manager, NoAnswer, Refused, UnitState

ORDER = Order(
    "clusterd-lab-engines-0-1.service",
    "the agent",
    "/s/0-1.sh",
    Limits(memory=2**32, cpus=1.5, tasks=64),
    20.0,
    {"A": "b"},
)


class Fake:
    """A manager that says what it is told to, and notes what it was asked."""

    scope = "system"
    version = 252

    def __init__(self, state=None, problem=None):
        self.asked, self.now, self.problem, self.forgotten = [], state, problem, []

    def run(self, unit, argv, properties):
        self.asked.append((unit, list(argv), dict(properties)))
        if self.problem:
            raise self.problem

    def state(self, _unit):
        return self.now

    settled = state

    def forget(self, unit):
        self.forgotten.append(unit)


def test_the_properties_of_a_unit():
    manager = Fake()
    DirectStarter(manager, "clusterd@lab.service", "ada").start(ORDER)
    [(unit, argv, properties)] = manager.asked
    assert (unit, argv) == (ORDER.unit, ["/bin/sh", "/s/0-1.sh"])
    assert properties["User"] == "ada"
    assert properties["Slice"] == "clusterd.slice"
    assert properties["KillMode"] == "process"
    assert properties["OOMPolicy"] == "continue"
    assert properties["Before"] == "clusterd@lab.service"
    assert [properties[name] for name in ("MemoryMax", "CPUQuota", "TasksMax")] == ["4294967296", "150%", "64"]
    assert properties["LogExtraFields"] == "A=b"
    assert properties["TimeoutStopSec"] == "20s"
    # Opened with the manager's rights, whoever the unit's user is.
    assert not {"EnvironmentFile", "StandardOutput", "StandardError", "Environment"} & properties.keys()


def test_an_old_systemd_is_asked_for_what_it_knows():
    manager = Fake()
    manager.version = 239
    DirectStarter(manager).start(ORDER)
    [(_, _, properties)] = manager.asked
    assert not {"Type", "OOMPolicy"} & properties.keys()


def test_without_limits_nothing_is_bounded():
    manager = Fake()
    DirectStarter(manager).start(Order("u.service", "d", "/s"))
    [(_, _, properties)] = manager.asked
    assert not {"MemoryMax", "CPUQuota", "User", "Before"} & properties.keys()
    assert properties["TasksMax"] == "infinity"


def test_a_refusal_is_certain_and_silence_is_not():
    with pytest.raises(LaunchError, match="Interactive authentication required") as refused:
        DirectStarter(Fake(problem=Refused("Interactive authentication required."))).start(ORDER)
    assert "run_as" in refused.value.hint
    with pytest.raises(Unknown):
        DirectStarter(Fake(problem=NoAnswer("late"))).start(ORDER)


@pytest.fixture
def program(isolated, monkeypatch):
    monkeypatch.setenv("TERM", "it's")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/s")
    monkeypatch.setenv("BASH_FUNC_module%%", "() { :; }")
    spec = isolated.temporary / "0123abcd-1.json"
    return Program(
        launch="0123abcd-1",
        title="the agent of lab/engines",
        word="agent",
        spec=str(spec),
        log=str(isolated.temporary / "agent.log"),
        cluster="lab",
        unit="engines",
        setup=["echo ready; B='c d'; export B"],
        env={"A": '$x `y` "z"\n\''},
    )


def test_the_script_has_the_environment_the_setup_and_the_log(program, monkeypatch):
    manager = Fake(UnitState(is_known=True, is_over=False, pid=os.getpid(), status=None, result="success"))
    identity = TransientLauncher(manager, DirectStarter(manager)).start(program)
    assert identity.pid == os.getpid()
    [(unit, [_, script], _)] = manager.asked
    assert unit == unit_name("lab", "engines", "0123abcd-1") == "clusterd-lab-engines-0123abcd-1.service"
    assert stat.S_IMODE(Path(script).stat().st_mode) == 0o600
    text = Path(script).read_text().replace("exec ", "", 1)
    assert text.splitlines()[-1].endswith(f"-P -m clusterd agent --spec {program.spec}")
    # Run with another last line it shows what the program would see.
    shown = text.rpartition("exec ")[0].replace("</dev/null", "exec </dev/null") + "env -0"
    Path(script).write_text(shown)
    subprocess.run(["/bin/sh", script], env={}, check=True)
    said = Path(program.log).read_text()
    variables = dict(entry.split("=", 1) for entry in said.removeprefix("ready\n").split("\0") if entry)
    assert variables["A"] == program.env["A"]
    assert variables["B"] == "c d"
    assert variables["TERM"] == "it's"
    assert not {"NOTIFY_SOCKET", "BASH_FUNC_module%%"} & variables.keys()


@pytest.mark.parametrize(
    ("state", "is_unit", "expected", "is_forgotten"),
    [
        (UnitState(True, True, 0, -9, "signal"), True, ("was killed by SIGKILL", -9), True),
        (
            UnitState(True, True, 0, -9, "oom-kill"),
            True,
            ("was killed by SIGKILL (the memory limit was reached)", -9),
            True,
        ),
        (UnitState(True, True, 0, 3, "exit-code"), False, ("ended with exit status 3", 3), True),
        # A unit that ended well is dropped by the manager itself.
        (UnitState(False, True, 0, None, ""), True, ("ended with exit status 0", 0), False),
        # Or there never was one: then nothing is known.
        (UnitState(False, True, 0, None, ""), False, None, False),
    ],
)
def test_how_a_unit_ended(state, is_unit, expected, is_forgotten, isolated):
    manager = Fake(state)
    launcher = TransientLauncher(manager, DirectStarter(manager))
    assert launcher.how_it_ended("u.service", isolated.temporary / "log", is_unit=is_unit) == expected
    assert manager.forgotten == (["u.service"] if is_forgotten else [])


def test_what_ended_at_once_is_refused_with_the_reason(program):
    Path(program.log).write_text("module: not found\n")
    manager = Fake(UnitState(True, True, 0, 127, "exit-code"))
    with pytest.raises(LaunchError, match="exit status 127; its log ends: module: not found"):
        TransientLauncher(manager, DirectStarter(manager)).start(program)


@pytest.fixture
def answers(isolated, monkeypatch):
    """Programs called systemctl and systemd-run that say what they are told to."""

    def install(name, body):
        path = isolated.temporary / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{isolated.temporary}:{os.environ['PATH']}")
    return install


def test_what_systemctl_shows(answers):
    answers(
        "systemctl",
        "echo LoadState=loaded; echo ActiveState=failed; echo MainPID=0; echo ExecMainCode=2; echo ExecMainStatus=9; echo Result=signal",
    )
    assert Manager("system").state("u") == UnitState(True, True, 0, -9, "signal")
    answers("systemctl", "echo LoadState=loaded; echo ActiveState=active; echo MainPID=7; echo ExecMainCode=0")
    assert Manager("system").state("u") == UnitState(True, False, 7, None, "")
    answers("systemctl", "echo LoadState=not-found; echo ActiveState=inactive")
    assert Manager("system").state("u") == UnitState(False, True, 0, None, "")
    answers("systemctl", "echo no bus >&2; exit 1")
    with pytest.raises(Refused, match="no bus"):
        Manager("system").state("u")


@pytest.mark.parametrize(
    ("shown", "seconds"), [("1min 30s", 90), ("500ms", 0.5), ("2h", 7200), ("infinity", 31557600), ("0", 31557600)]
)
def test_stop_timeouts(answers, shown, seconds):
    answers("systemctl", f"echo {shown}")
    assert Manager("system").stop_timeout("u") == seconds


@pytest.mark.parametrize(("said", "version"), [("systemd 252 (252.38-1~deb12u1)", 252), ("systemd 239", 239), ("?", 0)])
def test_versions(answers, said, version):
    answers("systemctl", f"echo '{said}'")
    assert Manager("system").version == version


def test_jobs(answers):
    answers("systemctl", "echo '7 clusterd@lab.service restart running'; echo '8 other.service stop waiting'")
    assert Manager("user").queued_job("clusterd@lab.service") == "restart"
    assert Manager("user").queued_job("none.service") == ""


def test_arguments_are_not_expanded_and_a_missing_program_is_a_refusal(answers, isolated, monkeypatch):
    answers("systemd-run", f'printf "%s\\n" "$@" > {isolated.temporary}/argv')
    Manager("user").run("u.service", ["/bin/sh", "/a $b"], [("A", "b")])
    argv = (isolated.temporary / "argv").read_text().splitlines()
    assert argv[0] == "--user"
    assert argv[-4:] == ["--property=A=b", "--", "/bin/sh", "/a $$b"]
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Refused, match="systemd-run is not installed"):
        Manager("user").run("u.service", ["/bin/sh"], [])
