"""Where the files of one instance are: fixed once, at the start, so that nothing depends on a variable or uid that changes later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from clusterd.system import paths

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Places"]


class Places(NamedTuple):
    """Directories and files of an instance.

    Attributes:
        name: of the profile and its cluster.
        runtime: sockets, identity files, specs; gone with the boot.
        state: journal, connection files, logs.
        is_service: root started it, for whomever it serves.
    """

    name: str
    runtime: Path
    state: Path
    is_service: bool = False

    @classmethod
    def of(cls, name: str) -> Places:
        """Return those of profile `name` in this environment."""
        return cls(name, paths.runtime_dir(name), paths.state_dir(name), os.geteuid() == 0)

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.runtime / "control.sock"

    @property
    def lock(self) -> Path:
        """Held by the daemon."""
        return self.runtime / "daemon.lock"

    @property
    def units(self) -> Path:
        """Identity files and status pages."""
        return self.runtime / "units"

    @property
    def specs(self) -> Path:
        """What launches are told."""
        return self.runtime / "specs"

    @property
    def journal(self) -> Path:
        """The journal's directory."""
        return self.state / "journal"

    @property
    def security(self) -> Path:
        """Connection files."""
        return self.state / "security"

    @property
    def records(self) -> Path:
        """The controller's file of task records, with `database: sqlite`."""
        return self.state / "db" / "tasks.db"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.state / "log"

    @property
    def story(self) -> Path:
        """What happened, a line each."""
        return self.logs / "events.jsonl"

    @property
    def audit(self) -> Path:
        """What was commanded, by whom."""
        return self.logs / "audit.log"

    def identity_file(self, unit_kind: str, launch: str) -> Path:
        """Return the file that the process of a launch claims; `unit_kind` is `controller` or `agent`."""
        return self.units / f"{unit_kind}-{launch}.json"

    def spec_file(self, launch: str) -> Path:
        """Return the file with what a launch is told."""
        return self.specs / f"{launch}.json"

    def script_file(self, launch: str) -> Path:
        """Return the file that the shell of a launch's unit runs."""
        return self.specs / f"{launch}.sh"

    def log_file(self, unit: str) -> Path:
        """Return where controller or agent of a unit write."""
        return self.logs / ("controller.log" if unit == "controller" else f"agent-{unit}.log")
