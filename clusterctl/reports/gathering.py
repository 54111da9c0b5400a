"""Gathers what a ticket needs: each part by itself, so that one that fails leaves a note and not a gap. Reads, changes nothing.

Works without a daemon, too: then what it would have told is missing, and files are what there is.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusterd import __version__
from clusterd.control.client.spawn import log_path
from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterctl.target import Target

__all__ = ["Gathering"]

LOG_BYTES: Final = 256 * 1024
"""Of the end of each log."""
LOGS: Final = 60
"""Files: those that were written last. A thousand engines that are well tell nothing."""
EXPLAINED: Final = 20
_WELL: Final = frozenset({"idle", "busy", "running", "starting", "draining"})
_PACKAGES: Final = (
    "clusterd", "msgspec", "pyzmq", "PyYAML", "aiohttp", "click", "rich", "psutil", "sdnotify", "setproctitle",
    "cloudpickle", "ipython", "ipyparallel", "pymongo",
)  # fmt: skip
_VARIABLES: Final = ("CLUSTERD_", "PYTHON", "LC_", "XDG_", "CONDA_", "SLURM_", "PBS_", "OMP_", "MKL_")
_VARIABLE_NAMES: Final = frozenset(
    {"PATH", "LANG", "TZ", "HOME", "USER", "SHELL", "VIRTUAL_ENV", "TMPDIR", "IPYTHONDIR"}
)
_SYSTEMCTL_SECONDS: Final = 5.0


class Gathering:
    """The parts of one report.

    Args:
        target: the daemon that is meant.

    Attributes:
        problems: what is missing, and why.
        profile: text of the profile, empty where it could not be read.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = target.client()
        self.problems: list[str] = []
        self._status: dict[str, Any] = self._ask("")
        self.state = Path(self._status.get("daemon", {}).get("state_dir") or log_path(target.name).parent.parent)
        self.profile = self._profile()

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield (name in the archive, text)."""
        yield "status.json", _json(self._status)
        yield "profile.yaml", self.profile
        engines = self._ask("/engines")
        yield "engines.json", _json(engines)
        yield "orphans.json", _json(self._ask("/orphans"))
        yield from self._stories(engines)
        yield "events.jsonl", self._try("events", self._events)
        yield "versions.json", _json(self._versions())
        yield "environment.txt", _environment()
        yield "host.txt", self._try("host", self._host)
        yield "systemd.txt", self._try("systemd", self._systemd)
        yield from self._logs()

    # --- from the daemon ---

    def _ask(self, path: str, *, subject: str | None = None) -> dict[str, Any]:
        try:
            return self._client.get(f"{self._target.path}{path}", subject=subject)
        except ClusterdError as error:
            self.problems.append(f"the daemon did not tell {path or 'its status'}: {error.message}")
            return {}

    def _events(self) -> str:
        try:
            return "".join(f"{json.dumps(event)}\n" for event in self._client.stream(f"{self._target.path}/events"))
        except ClusterdError:
            return _end_of(self.state / "log" / "events.jsonl", 8 * LOG_BYTES)

    def _stories(self, engines: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if not self._status:
            return
        troubled = [one["engine"] for one in engines.get("engines", []) if one["state"] not in _WELL or one["reason"]]
        subjects = ["controller", *self._status["engine_sets"], *troubled[:EXPLAINED]]
        for subject in subjects:
            story = self._ask("/explain", subject=subject)
            if story:
                yield f"explain/{subject.replace('/', '-')}.json", _json(story)

    # --- from files and the system ---

    def _profile(self) -> str:
        file = self._status.get("daemon", {}).get("profile_file")
        if not file:
            return ""
        return self._try(f"the profile {file}", lambda: Path(file).read_text(encoding="utf-8", errors="replace"))

    def _logs(self) -> Iterator[tuple[str, str]]:
        try:
            found = sorted((self.state / "log").glob("*.log*"), key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError as error:
            self.problems.append(f"logs: {error}")
            return
        ours = [path for path in found if not path.name.startswith("engine-")]
        engines = [path for path in found if path.name.startswith("engine-")]
        for path in [*ours, *engines[:LOGS]]:
            yield f"log/{path.name}", self._try(path.name, partial(_end_of, path, LOG_BYTES))
        if len(engines) > LOGS:
            self.problems.append(f"{len(engines) - LOGS} logs of engines that were written earlier are left out")

    def _versions(self) -> dict[str, Any]:
        packages: dict[str, str | None] = {}
        for name in _PACKAGES:
            try:
                packages[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                packages[name] = None
        daemon = self._status.get("daemon", {}).get("release")
        return {"clusterctl": __version__, "daemon": daemon, "python": sys.version, "packages": packages}

    def _host(self) -> str:
        disk = shutil.disk_usage(self.state if self.state.exists() else Path("/"))
        lines = [
            f"{platform.platform()}, {os.cpu_count()} processors",
            f"load: {' '.join(f'{load:.2f}' for load in os.getloadavg())}",
            f"disk of {self.state}: {disk.free / 2**30:.1f} GiB free of {disk.total / 2**30:.1f}",
        ]
        for path in (
            "/etc/os-release",
            "/proc/meminfo",
            "/proc/self/cgroup",
            "/proc/self/limits",
            "/proc/pressure/memory",
        ):
            lines += ["", f"--- {path}", _end_of(Path(path), LOG_BYTES)]
        return "\n".join(lines)

    def _systemd(self) -> str:
        program = shutil.which("systemctl")
        if program is None or not Path("/run/systemd/system").is_dir():
            return "this host does not run systemd\n"
        unit = f"clusterd@{self._target.name}.service"
        texts = []
        for words in (["show", unit], ["status", "--no-pager", "--lines=50", unit]):
            for scope in ([], ["--user"]):
                argv = [program, *scope, *words]
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_SYSTEMCTL_SECONDS,
                    check=False,
                )
                texts.append(f"--- {' '.join(argv[1:])}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return "\n".join(texts)

    def _try(self, what: str, read: Callable[[], str]) -> str:
        try:
            return read()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.problems.append(f"{what}: {error}")
            return ""


def _environment() -> str:
    shown, others = [], []
    for name, value in sorted(os.environ.items()):
        if name in _VARIABLE_NAMES or name.startswith(_VARIABLES):
            shown.append(f"{name}={value}")
        else:
            others.append(name)
    return "\n".join([*shown, "", f"also set: {', '.join(others)}", ""])


def _end_of(path: Path, count: int) -> str:
    with path.open("rb") as file:
        with contextlib.suppress(OSError):  # of what the kernel makes as it is read the end is not known
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
        return file.read(count).decode(errors="replace")


def _json(content: dict[str, Any]) -> str:
    return f"{json.dumps(content, indent=1)}\n"
