"""What each setting of ipyparallel 6 to 9 is called with us: the table of the import, and the few that need more than a name.

ipyparallel's documentation, "Configuration options" of ipcluster, ipcontroller and ipengine; older releases call the classes
HubFactory, RegistrationFactory, EngineFactory, IPClusterEngines, and their launchers by full module names.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusterd.profile.python_config import Note

if TYPE_CHECKING:
    from clusterd.profile.ipython_taken import Taken

__all__ = ["controller", "engine_set"]

_LAUNCHERS: Final = {
    "local": "local",
    "mpi": "mpi",
    "mpiexec": "mpi",
    "ssh": "ssh",
    "pbs": "pbs",
    "sge": "sge",
    "lsf": "lsf",
    "slurm": "slurm",
    "htcondor": "htcondor",
    "winhpc": "winhpc",
    "windowshpc": "winhpc",
}
_BATCH: Final = {"pbs": "PBS", "sge": "SGE", "lsf": "LSF", "slurm": "Slurm", "htcondor": "HTCondor"}
_DATABASES: Final = {"dictdb": "memory", "nodb": "none", "sqlitedb": "sqlite", "mongodb": "mongodb"}
_SCHEMES: Final = frozenset({"leastload", "lru", "twobin", "weighted", "plainrandom", "pure"})
_APPS: Final = ("Cluster", "IPClusterStart", "IPClusterEngines", "IPCluster")

# Half of what a profile may have in all.
_TEMPLATE_MAX: Final = 65_536


def _launcher(taken: Taken, name: str) -> str:
    """Return our name of a launcher class: `PBS`, `PBSEngineSetLauncher`, `ipyparallel.apps.launcher.PBSEngineSetLauncher`."""
    classes = _APPS
    value = taken.get(classes, name, str)
    if value is None:
        return "local"
    word = re.sub(r"(EngineSet|Controller|Engine)?Launcher$", "", value.rpartition(".")[2]).lower()
    if word not in _LAUNCHERS:
        taken.note_any(classes, name, f"there is no launcher for {value!r}; local is set instead")
        return "local"
    return _LAUNCHERS[word]


def _lineage(launcher: str, kind: str) -> tuple[str, ...]:
    """Return the classes of a launcher in the order in which traitlets looks at them; kind is EngineSet or Controller."""
    general = ("EngineLauncher",) if kind == "EngineSet" else ("ControllerLauncher",)
    system = _BATCH.get(launcher)
    if system:
        parent = (f"{system}Launcher",) if system != "SGE" else ("SGELauncher", "PBSLauncher")
        return (
            f"{system}{kind}Launcher",
            *parent,
            f"Batch{kind}Launcher",
            "BatchSystemLauncher",
            *general,
            "BaseLauncher",
        )
    system = {"mpi": "MPI", "ssh": "SSH", "winhpc": "WindowsHPC", "local": "Local"}[launcher]
    old = (f"MPIExec{kind}Launcher", "MPIExecLauncher") if launcher == "mpi" else ()
    return (f"{system}{kind}Launcher", f"{system}Launcher", *old, *general, "BaseLauncher")


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        values[name] = value


def controller(taken: Taken) -> dict[str, Any]:
    """Return the section `controller`."""
    launcher = _launcher(taken, "controller_launcher_class")
    values: dict[str, Any] = {"launcher": launcher}
    apps = ("IPController", "IPControllerApp", "HubFactory", "RegistrationFactory")
    ip = taken.get(apps, "ip", str) or taken.get(("Cluster",), "controller_ip", str)
    for name in ("client_ip", "engine_ip"):
        other = taken.get(apps, name, str)
        if other is not None and other != (ip or other):
            taken.note_any(apps, name, f"one address is listened on, {ip}")
        ip = ip or other
    _put(values, "ip", ip)
    _put(values, "location", taken.get(apps, "location", str) or taken.get(("Cluster",), "controller_location", str))
    _put(values, "reuse", taken.get(apps, "reuse_files", bool))
    _put(values, "ports", _ports(taken, apps))
    if taken.get(apps, "enable_curve", bool):
        values["stock"] = "curve"
    scheme = taken.get(("TaskScheduler",), "scheme_name", str)
    if scheme is not None and scheme not in _SCHEMES:
        taken.note_any(("TaskScheduler",), "scheme_name", f"there is no scheme {scheme!r}")
        scheme = None
    _put(values, "task_scheme", scheme)
    period = taken.get(("HeartMonitor",), "period", int)
    _put(values, "ping", None if period is None else period / 1000)  # milliseconds
    _put(values, "database", _database(taken, apps))
    lineage = _lineage(launcher, "Controller")
    _put(values, "env", _environment(taken, lineage))
    if launcher in _BATCH:
        values.update(_batch(taken, lineage))
    return values


def engine_set(taken: Taken) -> dict[str, Any]:
    """Return the section of the engines."""
    launcher = _launcher(taken, "engine_launcher_class")
    lineage = _lineage(launcher, "EngineSet")
    n = taken.get(_APPS, "n", int)
    values: dict[str, Any] = {"launcher": launcher}
    hosts = taken.get(lineage, "engines", dict) if launcher == "ssh" else None
    if hosts is not None:
        # {host: n} or {host: (n, arguments)}.
        counts = {str(host): value[0] if isinstance(value, list) and value else value for host, value in hosts.items()}
        if all(isinstance(count, int) for count in counts.values()):
            values["hosts"] = counts
            n = sum(counts.values())
            if any(isinstance(value, list) for value in hosts.values()):
                taken.note_any(lineage, "engines", "arguments of single hosts are not taken over")
        else:
            taken.note_any(lineage, "engines", "is no mapping of hosts to numbers")
    if n is None:
        n = 4
        reason = "is not set: it was the number of CPUs, or given on the command line; 4 is set"
        taken.notes.append(Note("ipcluster_config.py", 0, "n", reason))
    values["n"] = n
    engine = ("IPEngine", "IPEngineApp", "EngineFactory")
    _put(values, "work_dir", taken.get(engine, "work_dir", str) or taken.get(_APPS, "work_dir", str))
    script = taken.get(engine, "startup_script", str)
    command = taken.get(engine, "startup_command", str)
    if script is not None or command is not None:
        values["startup"] = {}
        _put(values["startup"], "script", None if script is None else _path(taken, script))
        _put(values["startup"], "command", command)
    _put(values, "env", _environment(taken, lineage))
    timeout = taken.get(lineage, "stop_timeout", int, float)
    _put(values, "stop_timeout", None if timeout is None else float(timeout))
    if launcher in _BATCH:
        values.update(_batch(taken, lineage))
    return values


def _batch(taken: Taken, lineage: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that all batch systems have."""
    values: dict[str, Any] = {}
    _put(values, "queue", taken.get(lineage, "queue", str))
    _put(values, "account", taken.get(lineage, "account", str))
    limit = taken.get(lineage, "timelimit", str, int)
    _put(values, "walltime", None if limit is None else str(limit))
    _put(values, "submit_args", _submit_args(taken, lineage) or None)
    template = taken.get(lineage, "batch_template", str)
    file = taken.get(lineage, "batch_template_file", str)
    if template is not None:
        values["template"] = template
        if file is not None:
            taken.note_any(lineage, "batch_template_file", "batch_template is set, too, and wins")
    elif file is not None:
        _put_template(taken, lineage, _path(taken, file), values)
    taken.note_any(lineage, "namespace", "write these values into the template")
    return values


def _submit_args(taken: Taken, lineage: tuple[str, ...]) -> list[str]:
    arguments: list[str] = []
    command = taken.get(lineage, "submit_command", list) or []
    if all(isinstance(word, str) for word in command):
        arguments += command[1:]
        if command and command[0] not in {"qsub", "sbatch", "bsub", "condor_submit"}:
            taken.note_any(lineage, "submit_command", f"{command[0]} is not called; the system's own command is")
    else:
        taken.note_any(lineage, "submit_command", "is no list of words")
    if (qos := taken.get(lineage, "qos", str)) is not None:
        arguments.append(f"--qos={qos}")
    options = taken.get(lineage, "options", str) or ""
    try:
        arguments += shlex.split(options)
    except ValueError as error:
        taken.note_any(lineage, "options", f"cannot be split into words: {error}")
    return arguments


def _put_template(taken: Taken, lineage: tuple[str, ...], path: str, values: dict[str, Any]) -> None:
    """Take the text of a template, so that the profile stands alone; its path where that cannot be."""
    try:
        found = Path(path).expanduser()
        taken.templates.add(found.absolute())
        text = found.read_text(encoding="utf-8")
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody; a NUL; not UTF-8
        values["template_file"] = path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        taken.note_any(lineage, "batch_template_file", f"{path}: {reason}")
        return
    if len(text) <= _TEMPLATE_MAX:
        values["template"] = text
    else:
        values["template_file"] = path


def _path(taken: Taken, path: str) -> str:
    """Return a path that does not depend on where a command was called: what is relative lies in the profile."""
    if path.startswith("~") or Path(path).is_absolute():
        return path
    return str(taken.directory.absolute() / path)


def _environment(taken: Taken, lineage: tuple[str, ...]) -> dict[str, str] | None:
    found = taken.get(lineage, "environment", dict)
    if found is None:
        return None
    # A single brace is a placeholder with us.
    return {str(name): str(value).replace("{", "{{").replace("}", "}}") for name, value in found.items()}


def _ports(taken: Taken, apps: tuple[str, ...]) -> str | None:
    found = taken.get(apps, "ports", list, str)
    if found is None:
        return None
    numbers: set[int] = set()
    for item in [found] if isinstance(found, str) else found:
        for part in str(item).split(","):
            first, _, last = part.strip().partition("-")
            if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) > 65535:
                taken.note_any(apps, "ports", f"{item!r} is no range of ports")
                return None
            numbers.update(range(int(first), int(last or first) + 1))
    if not numbers or max(numbers) - min(numbers) + 1 != len(numbers):
        taken.note_any(apps, "ports", "is not one range of ports")
        return None
    return f"{min(numbers)}-{max(numbers)}"


def _database(taken: Taken, apps: tuple[str, ...]) -> str | None:
    found = taken.get(apps, "db_class", str)
    if found is None:
        return None
    word = found.rpartition(".")[2].lower()
    if word not in _DATABASES:
        taken.note_any(apps, "db_class", f"there is no database for {found!r}")
    return _DATABASES.get(word)
