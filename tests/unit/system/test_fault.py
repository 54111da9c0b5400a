import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import clusterd
from clusterd.system import fault

NAME = "files.atomic_write.before_rename"
WRITE_TWICE = """
import sys
from pathlib import Path
from clusterd.system.files import atomic_write
for text in ("first", "second"):
    atomic_write(Path(sys.argv[1]), text)
    print(text, flush=True)
"""


def run(tmp_path, *, program=WRITE_TWICE, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        env=environment,
        cwd=Path(clusterd.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def test_code_and_table_name_the_same_points():
    package = Path(clusterd.__file__).parent
    used = set()
    for source in package.rglob("*.py"):
        if source != package / "system" / "fault.py":
            used |= set(re.findall(r"fault\.point\(\s*\"([^\"]+)\"", source.read_text()))
            assert not re.search(r"fault\.point\((?!\s*\")", source.read_text()), f"{source}: names must be literal"
    assert used == set(fault.POINTS)


def test_every_point_says_where_and_what():
    processes = {"daemon", "controller", "agent", "zygote", "engine", "client", "any"}
    for name, point in fault.POINTS.items():
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)
        assert point.process in processes
        assert point.description


def test_off_by_default_and_nearly_free():
    assert fault.point is fault._off
    assert fault.point(NAME) is None


@pytest.mark.parametrize(("action", "status"), [("kill", -signal.SIGKILL), ("exit", fault.EXIT_STATUS), ("raise", 1)])
def test_action_happens_at_the_nth_pass(tmp_path, action, status):
    done = run(tmp_path, CLUSTERD_FAULT=f"{NAME}:2={action}")
    assert done.returncode == status
    assert done.stdout == "first\n"
    assert (tmp_path / "file").read_text() == "first"


def test_stop_freezes_the_process(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_TWICE, str(tmp_path / "file")],
        env={"CLUSTERD_FAULT": f"{NAME}=stop"},
        cwd=Path(clusterd.__file__).parents[1],
        stdout=subprocess.DEVNULL,
    )

    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert not (tmp_path / "file").exists()
    finally:
        child.kill()
        child.wait()


def test_once_lets_the_restarted_process_live(tmp_path):
    markers = tmp_path / "markers"
    markers.mkdir()
    environment = {"CLUSTERD_FAULT": f"{NAME}=kill", "CLUSTERD_FAULT_ONCE": str(markers)}
    assert run(tmp_path, **environment).returncode == -signal.SIGKILL
    assert (markers / NAME).exists()
    assert run(tmp_path, **environment).stdout == "first\nsecond\n"


def test_nothing_counts_before_it_is_armed(tmp_path):
    markers = tmp_path / "markers"
    environment = {"CLUSTERD_FAULT": f"{NAME}:2=kill", "CLUSTERD_FAULT_ONCE": str(markers)}
    armed_between = WRITE_TWICE.replace("print(text", f"Path({str(markers)!r}).mkdir(exist_ok=True); print(text")
    assert run(tmp_path, **environment).stdout == "first\nsecond\n"
    assert run(tmp_path, program=armed_between, **environment).stdout == "first\nsecond\n"
    assert run(tmp_path, **environment).returncode == -signal.SIGKILL


@pytest.mark.parametrize("wrong", ["nonsense=kill", NAME, f"{NAME}=explode", f"{NAME}:x=kill", "=kill"])
def test_wrong_specification_is_refused(wrong):
    with pytest.raises(ValueError, match="CLUSTERD_FAULT"):
        fault.install(wrong)
    assert fault.point is fault._off
