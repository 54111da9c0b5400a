"""The launcher `local` under systemd: each process is a service unit of its own in clusterd.slice, started by the manager.

So the daemon's sandbox and control group end at the daemon, and the profile's limits are the kernel's. What is handed to the manager
is public and harmless: the name of a script that the unit's own user reads. Invariants: a unit's name carries its launch id, so none
is started twice; nothing that the unit's user can write is opened with the manager's rights (no EnvironmentFile=, no append:).
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.model.profile import Limits
from clusterd.core.supervisor.settings import LOCAL
from clusterd.errors import LaunchError
from clusterd.launchers.base import Program, Unknown
from clusterd.launchers.local import SHELL, environment, open_log, program_argv, why_it_ended
from clusterd.system import files, process
from clusterd.system.service_manager import Manager, NoAnswer, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SLICE", "DirectStarter", "Order", "Starter", "TransientLauncher", "unit_name"]

SLICE: Final = "clusterd.slice"
_HAS_EXEC: Final = 240
_HAS_OOM_POLICY: Final = 243
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Order(Struct, frozen=True):
    """One unit to start.

    Attributes:
        unit: its name.
        description: for `systemctl status`.
        script: that /bin/sh runs in it.
        limits: what it may use.
        stop_timeout: seconds between SIGTERM and SIGKILL when somebody stops the unit itself.
        fields: of the journal, for what it writes there.
    """

    unit: str
    description: str
    script: str
    limits: Limits = Limits()
    stop_timeout: float = 15.0
    fields: dict[str, str] = {}


class Starter(Protocol):
    """Has units started: with our own rights, or through who has them."""

    def start(self, order: Order) -> None:
        """Start it.

        Raises:
            LaunchError: nothing was started.
            Unknown: nobody knows.
        """

    def forget(self, unit: str) -> None:
        """Drop what the manager remembers of a unit that has failed."""


class DirectStarter:
    """Asks the manager itself.

    Args:
        manager: whom.
        daemon: the daemon's own unit: what is started goes on while that one stops. Nothing when it is not known.
        user: whom units run as, None for ourselves.
    """

    def __init__(self, manager: Manager, daemon: str = "", user: str | None = None) -> None:
        self._manager, self._daemon, self._user = manager, daemon, user

    def start(self, order: Order) -> None:
        """Start it; raises as `Starter.start` does."""
        try:
            self._manager.run(order.unit, [SHELL, order.script], self._properties(order))
        except NoAnswer as error:
            raise Unknown(str(error)) from error
        except Refused as error:
            hint = ""
            if "authentication" in str(error) or "denied" in str(error).lower():
                hint = "let root start the daemon and name the user in the profile: run_as"
            raise LaunchError(f"systemd does not start {order.unit}: {error}", hint=hint) from error

    def forget(self, unit: str) -> None:
        """Drop it; a manager that does not answer keeps it."""
        try:
            self._manager.forget(unit)
        except (Refused, NoAnswer):
            return

    def _properties(self, order: Order) -> list[tuple[str, str]]:
        limits = order.limits
        properties = {
            "Description": order.description,
            "Slice": SLICE,
            # Engines outlive their agent.
            "KillMode": "process",
            "TimeoutStopSec": f"{order.stop_timeout:.0f}s",
            "WorkingDirectory": "/",
            "TasksMax": "infinity" if limits.tasks is None else str(limits.tasks),
        }
        # Releases that do not know these refuse the whole unit.
        if self._manager.version >= _HAS_EXEC:
            # `run` returns once the program itself runs, or says why it does not.
            properties["Type"] = "exec"
        if self._manager.version >= _HAS_OOM_POLICY:
            # An engine that the kernel kills for its memory is replaced, and takes nobody along; older releases do nothing else.
            properties["OOMPolicy"] = "continue"
        if self._user is not None:
            properties["User"] = self._user
        if self._daemon:
            # At shutdown the daemon is stopped first, and ends all in order.
            properties["Before"] = self._daemon
        if limits.memory is not None:
            properties["MemoryMax"] = str(limits.memory)
        if limits.cpus is not None:
            properties["CPUQuota"] = f"{limits.cpus * 100:.0f}%"
        fields = [("LogExtraFields", f"{name}={value}") for name, value in order.fields.items()]
        return [*properties.items(), *fields]


class TransientLauncher:
    """Starts units; knows nothing of those that it has started.

    Args:
        manager: whom to ask about units.
        starter: has them started.
    """

    traits = LOCAL

    def __init__(self, manager: Manager, starter: Starter) -> None:
        self._manager, self._starter = manager, starter

    def start(self, program: Program) -> ProcessIdentity:
        """Start it and return who it is.

        Raises:
            LaunchError: nothing was started, or it ended in the very moment.
            Unknown: the manager did not answer; whether it runs, its identity file will tell.
        """
        unit = unit_name(program.cluster, program.unit, program.launch)
        script = Path(program.spec).with_suffix(".sh")
        # The script appends to it, as the unit's user.
        os.close(open_log(Path(program.log)))
        files.atomic_write(script, _script(unit, program, os.environ).encode(), durable=False)
        fields = {"CLUSTERD_PROFILE": program.cluster, "CLUSTERD_SET": program.unit}
        self._starter.start(Order(unit, program.title, str(script), program.limits, program.stop_timeout, fields))
        try:
            pid = self._manager.state(unit).pid
        except (Refused, NoAnswer) as error:
            raise Unknown(str(error)) from error
        identity = process.of(pid) if pid else None
        if identity is None:
            how, _ = self.how_it_ended(unit, Path(program.log), is_unit=True) or ("ended", None)
            raise LaunchError(f"{program.title} {how}")
        return ProcessIdentity(*identity)

    def how_it_ended(self, unit: str, log: Path, *, is_unit: bool) -> tuple[str, int | None] | None:
        """Return how a unit ended, in words and as an exit status (negative: signal; None: not known), and drop it.

        Its main process is gone; the manager is given a moment to notice.

        Args:
            unit: its name.
            log: where it wrote to.
            is_unit: it certainly was one; else None is returned when the manager knows nothing of it.
        """
        try:
            state = self._manager.settled(unit)
        except (Refused, NoAnswer):
            return why_it_ended(None, log), None
        if not state.is_known and not is_unit:
            return None
        if not state.is_known:
            # Units that failed stay until they are dropped: this one ended well.
            return why_it_ended(0, log), 0
        if state.is_over:
            self._starter.forget(unit)
        words = why_it_ended(state.status, log)
        return (f"{words} (the memory limit was reached)" if state.result == "oom-kill" else words), state.status


def unit_name(cluster: str, unit: str, launch: str) -> str:
    """Return the name of a launch's unit: `clusterd-pbs-engines-5c1f.service`."""
    return f"clusterd-{cluster}-{unit}-{launch}.service"


def _script(unit: str, program: Program, own: Mapping[str, str]) -> str:
    """Return what the unit's shell runs: to be read by people when something does not start."""
    variables = {name: value for name, value in environment(own, program).items() if _VARIABLE.fullmatch(name)}
    return "\n".join(
        [
            f"# {unit}: {program.title}",
            f"exec </dev/null >>{shlex.quote(program.log)} 2>&1",
            *(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
            *program.setup,
            f"exec {shlex.join(program_argv(program))}",
            "",
        ]
    )
