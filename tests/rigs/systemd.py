"""A real systemd for the tests: booted in namespaces over a throw-away overlay of this machine's root, by with-systemd.sh.

What is done inside (users, units, directories) is seen nowhere else and is gone with it. Needs root, namespaces, systemd and dbus;
where they are missing `why_not` says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("with-systemd.sh")
REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"
PROGRAMS = ("systemctl", "systemd-run", "dbus-daemon", "nsenter", "unshare", "setpriv", "ip")
PATIENCE = 60


def why_not() -> str:
    """What this machine lacks; nothing when all is there."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not Path("/lib/systemd/systemd").exists():
        missing.append("systemd")
    if missing:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--cgroup", "--fork", "true"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


class Host:
    """A booted instance.

    Attributes:
        root: its root directory, as a path of this side.
        python: our interpreter, which all users inside can run.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.python = sys.executable

    def run(self, *argv: str, user: str | None = None, status: int | None = 0, text: str | None = None) -> str:
        """Run a command inside; return what it wrote, and insist on its exit status (None: any)."""
        if user is not None:
            runtime = f"XDG_RUNTIME_DIR=/run/user/{self.run('id', '-u', user).strip()}"
            argv = ("runuser", "-u", user, "--", "env", runtime, *argv)
        done = subprocess.run(
            ["bash", str(SCRIPT), "exec", "-n", self.name, *argv],
            capture_output=True,
            text=True,
            input=text,
            timeout=PATIENCE + 30,
            check=False,
        )
        told = f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
        assert status is None or done.returncode == status, f"exit status {done.returncode}: {told}"
        return done.stdout

    def status(self, pid: int | str) -> dict[str, str]:
        """/proc/PID/status of a process inside."""
        lines = (self.root / f"proc/{pid}/status").read_text().splitlines()
        return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}

    def title(self, pid: int | str) -> str:
        """The command line of a process inside."""
        return (self.root / f"proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)


@contextlib.contextmanager
def booted(*options: str) -> Iterator[Host]:
    """Boot an instance with this repository, its units, `clusterd` and `clusterctl` installed."""
    name = f"clusterd{os.getpid()}{''.join(options)}"
    arguments = ["-n", name, "-p", str(REPOSITORY), *options]
    subprocess.run(["bash", str(SCRIPT), "up", *arguments], check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE + 30)
    try:
        root = subprocess.run(
            ["bash", str(SCRIPT), "root", "-n", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        host = Host(name, Path(root))
        _install(host)
        yield host
    finally:
        subprocess.run(["bash", str(SCRIPT), "down", "-n", name], check=True, timeout=PATIENCE + 30)


def _install(host: Host) -> None:
    for program, module in (("clusterd", "clusterd.__main__"), ("clusterctl", "clusterctl.main")):
        text = f"#!{sys.executable} -P\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        host.write(f"/usr/bin/{program}", text, 0o755)
    for source, target in (
        (UNITS, "/usr/lib/systemd/system"),
        (UNITS / "user", "/usr/lib/systemd/user"),
        (UNITS / "sysusers.d", "/usr/lib/sysusers.d"),
        (UNITS / "tmpfiles.d", "/usr/lib/tmpfiles.d"),
    ):
        for file in source.iterdir():
            if file.is_file():
                host.write(f"{target}/{file.name}", file.read_text())
    # The interpreter is to be reached by everybody; in the overlay only.
    for place in {Path(sys.base_prefix), REPOSITORY}:
        for directory in place.parents:
            inside = host.root / str(directory).lstrip("/")
            inside.chmod(inside.stat().st_mode | 0o011)
    host.run("systemctl", "daemon-reload")
