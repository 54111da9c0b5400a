"""Which settings of an imported ipyparallel profile were used, which were noted, and which nobody needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.profile.python_config import Note

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.profile.python_config import Assignment

__all__ = ["Taken", "needless"]

_NEEDLESS: Final = {
    "auto_create": "profiles of clusterd are files",
    "batch_file_name": "scripts are kept by clusterd",
    "clean_logs": "logs are rotated",
    "cluster_id": "the profile's name is the cluster's",
    "controller_args": "see `clusterctl profile create` for what can be set",
    "daemonize": "clusterd is a service",
    "delay": "engines wait for their controller",
    "delete_command": "the system's own is used",
    "early_shutdown": "`restart` says what follows an end",
    "engine_timeout": "see start_timeout",
    "job_id_regexp": "ids are read from what the system prints",
    "job_id_regexp_group": "ids are read from what the system prints",
    "load_profile": "profiles of clusterd are files",
    "log_level": "see log_level",
    "log_to_file": "logs are files always",
    "max_heartbeat_misses": "an agent watches its engines",
    "output_file": "output lies in the log directory",
    "output_limit": "logs are rotated",
    "poll_seconds": "queries have their own pace",
    "registration_timeout": "see start_timeout",
    "send_engines_connection_env": "engines read a connection file",
    "signal_command": "an agent signals its engines",
    "stop_seconds_until_kill": "see stop_timeout",
    "timeout": "see start_timeout",
    "use_threads": "there is one process",
    "wait_for_url_file": "engines wait for their controller",
}


def needless(key: tuple[str, str]) -> str:
    """Return why a setting needs no counterpart, empty when it may need one."""
    reason = _NEEDLESS.get(key[1], "")
    return f"not needed: {reason}" if reason else ""


class Taken:
    """The settings of one profile, and which of them were used.

    Attributes:
        directory: of the profile: relative paths are looked for there.
        used: all settings that have been looked at.
        templates: the files of templates that some setting names.
        notes: what was found and could not be used.
    """

    def __init__(self, settings: dict[tuple[str, str], Assignment], directory: Path) -> None:
        self._settings = settings
        self.directory = directory
        self.used: set[tuple[str, str]] = set()
        self.templates: set[Path] = set()
        self.notes: list[Note] = []

    def get(self, classes: tuple[str, ...], name: str, *kinds: type) -> Any:
        """Return the value of the first class that sets it, None when none does, or it is empty.

        Args:
            classes: the most special first.
            name: of the trait.
            kinds: what the value may be; anything else is noted.
        """
        result = None
        for section in classes:
            key = (section, name)
            if key not in self._settings:
                continue
            self.used.add(key)
            value = self._settings[key].value
            if result is not None or value in ("", None, [], {}):
                continue
            if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
                result = value
            else:
                self.note(key, f"{value!r:.60} is not of a kind that can be taken over")
        return result

    def note(self, key: tuple[str, str], reason: str) -> None:
        """Note that a setting cannot be used; once, although controller and engines may both have looked at it."""
        assignment = self._settings[key]
        note = Note(assignment.source, assignment.line, ".".join(key), reason)
        if note not in self.notes:
            self.notes.append(note)

    def note_any(self, classes: tuple[str, ...], name: str, reason: str) -> None:
        """Note that a setting cannot be used, wherever it is set."""
        for section in classes:
            if (section, name) in self._settings:
                self.used.add((section, name))
                self.note((section, name), reason)
