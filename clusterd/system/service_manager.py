"""Asks systemd to run a program as a unit of its own, how that ended, and which job is queued for a unit.

By `systemd-run` and `systemctl`, which are wherever systemd is, take properties as unit files have them, and need no D-Bus library.
Whoever is asked may not answer: every call has a time limit. Invariant: a unit that is started here runs once, and stays known
after a failure until it is forgotten, so that a later process can still ask how it ended.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Manager", "NoAnswer", "Refused", "UnitState"]

ANSWER_SECONDS: Final = 10.0
"""A manager that is reloading thousands of units takes seconds, and answers."""
_SETTLED: Final = frozenset({"inactive", "failed"})
_SETTLE_SECONDS: Final = 2.0
_LOOK_EVERY: Final = 0.02
_SHOWN: Final = ("LoadState", "ActiveState", "MainPID", "ExecMainCode", "ExecMainStatus", "Result")
_UNITS: Final = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "month": 2629800.0,
    "y": 31557600.0,
}
_FOR_EVER: Final = 31557600.0
_EXITED: Final = 1  # CLD_EXITED of waitid(2), as in ExecMainCode


class Refused(Exception):
    """The manager said no, and why: nothing was started."""


class NoAnswer(Exception):
    """The manager did not say anything: whether the unit was started is not known."""


class UnitState(NamedTuple):
    """What is known of a unit.

    Attributes:
        is_known: False for one that never was, or that ended well and was dropped.
        is_over: it does not run any more.
        pid: of its main process, 0 when there is none.
        status: how that ended (negative: the signal); None while it runs, or when it is not known.
        result: systemd's word for it: success, exit-code, signal, oom-kill, watchdog, ...
    """

    is_known: bool
    is_over: bool
    pid: int
    status: int | None
    result: str


class Manager:
    """One of systemd's managers.

    Args:
        scope: the machine's, or that of the user who asks.
    """

    def __init__(self, scope: Literal["system", "user"]) -> None:
        self.scope = scope

    @functools.cached_property
    def version(self) -> int:
        """The release of systemd: RHEL 8 has 239, Debian 12 has 252. 0 when it is not known."""
        try:
            found = re.match(r"systemd ([0-9]+)", self._ask(["systemctl", "--version"]).stdout)
        except (Refused, NoAnswer):
            return 0
        return int(found[1]) if found else 0

    def run(self, unit: str, argv: Sequence[str], properties: Sequence[tuple[str, str]]) -> None:
        """Start a program as a transient service; returns when it runs.

        Args:
            unit: its name, with `.service`.
            argv: the program.
            properties: names and values as in a unit file. Everybody may read them: no secrets.

        Raises:
            Refused: it was not started.
            NoAnswer: nobody knows.
        """
        words = ["systemd-run", f"--{self.scope}", "--quiet", "--no-ask-password", f"--unit={unit}"]
        words += [f"--property={name}={value}" for name, value in properties]
        # systemd replaces variables in arguments, not in the name of the program.
        done = self._ask([*words, "--", *(word.replace("$", "$$") for word in argv)])
        if done.returncode != 0:
            raise Refused(done.stderr.strip() or f"systemd-run ended with exit status {done.returncode}")

    def state(self, unit: str) -> UnitState:
        """Return what is known of a unit.

        Raises:
            Refused, NoAnswer: it cannot be asked.
        """
        shown = [f"--property={name}" for name in _SHOWN]
        done = self._ask(["systemctl", f"--{self.scope}", "show", *shown, "--", unit])
        if done.returncode != 0:
            raise Refused(done.stderr.strip())
        return _state(dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line))

    def settled(self, unit: str) -> UnitState:
        """Return how a unit ended whose main process is gone: the manager notices that itself, a moment later."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            state = self.state(unit)
            if state.is_over or time.monotonic() >= deadline:
                return state
            time.sleep(_LOOK_EVERY)

    def forget(self, unit: str) -> None:
        """Drop a unit that has failed; without effect for any other."""
        self._ask(["systemctl", f"--{self.scope}", "--no-ask-password", "--quiet", "reset-failed", "--", unit])

    def queued_job(self, unit: str) -> str:
        """Return the type of the job that is queued for a unit: start, stop, restart, ...; nothing when there is none.

        Raises:
            NoAnswer: it cannot be asked.
        """
        done = self._ask(["systemctl", f"--{self.scope}", "list-jobs", "--plain", "--no-legend", "--full", "--", unit])
        # Columns: number, unit, type, state.
        jobs = [line.split() for line in done.stdout.splitlines()]
        return next((job[2] for job in jobs if len(job) >= 3 and job[1] == unit), "")

    def stop_timeout(self, unit: str) -> float:
        """Return TimeoutStopSec of a unit, in seconds.

        Raises:
            Refused, NoAnswer: it cannot be asked.
        """
        done = self._ask(["systemctl", f"--{self.scope}", "show", "--property=TimeoutStopUSec", "--value", "--", unit])
        if done.returncode != 0:
            raise Refused(done.stderr.strip())
        return _seconds(done.stdout)

    @staticmethod
    def _ask(argv: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_SECONDS,
                check=False,
                env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
            )
        except FileNotFoundError:
            raise Refused(f"{argv[0]} is not installed") from None
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"systemd did not answer within {ANSWER_SECONDS:g} s") from None


def _seconds(text: str) -> float:
    """Understand a time span as systemctl shows it: `1min 30s`, `infinity`."""
    parts = re.findall(r"([0-9.]+)([a-z]+)", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else _FOR_EVER


def _state(shown: Mapping[str, str]) -> UnitState:
    is_known = shown.get("LoadState") not in {None, "not-found"}
    code, status = int(shown.get("ExecMainCode") or 0), int(shown.get("ExecMainStatus") or 0)
    is_over = shown.get("ActiveState", "inactive") in _SETTLED
    ended: int | None = None
    if is_known and is_over and code:
        ended = status if code == _EXITED else -status
    return UnitState(is_known, is_over, int(shown.get("MainPID") or 0), ended, shown.get("Result", ""))
