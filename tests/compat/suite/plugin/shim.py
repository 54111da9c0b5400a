"""Stands where ipyparallel's tests expect `python -m ipyparallel.controller` or `python -m ipyparallel.engine`.

The tests build an argv `CMD --profile=.. --ping=..` and start it. The plugin makes CMD `python shim.py controller|engine`; this program
works out where the connection files must lie, fills in the command of the environment and becomes it (exec): pid, signals and
exit status of what the tests started are those of the foreign program.

    COMPAT_CONTROLLER  the command that runs the controller    COMPAT_ENGINE  the command that runs one engine

Commands are split like a shell's words, but no shell runs them. Places: {python} {profile_dir} {cluster_id} {connection_file}
{ping_ms} {database} {ip} {location}; a word that is {args} becomes the original argv, one that ends in `=` is left out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

VARIABLE = {"controller": "COMPAT_CONTROLLER", "engine": "COMPAT_ENGINE"}
DATABASES = {"dictdb": "memory", "sqlitedb": "sqlite", "mongodb": "mongodb", "nodb": "none"}


def parsed(argv: list[str]) -> tuple[dict[str, str], set[str]]:
    """Return the options with a value, and the flags, of an argv as traitlets reads it."""
    options: dict[str, str] = {}
    flags: set[str] = set()
    for word in argv:
        name, equals, value = word.lstrip("-").partition("=")
        if equals:
            options[name] = value
        else:
            flags.add(name)
    return options, flags


def resolved(argv: list[str]) -> dict[str, str]:
    """Return what stands for each place, by the rules of ipyparallel's programs; makes the profile's directories."""
    options, flags = parsed(argv)
    ipython = Path(os.environ.get("IPYTHONDIR") or Path.home() / ".ipython")
    profile = Path(
        os.environ.get("IPP_PROFILE_DIR")
        or options.get("profile-dir")
        or options.get("ProfileDir.location")
        or ipython / f"profile_{options.get('profile', 'default')}"
    )
    cluster = (
        options.get("cluster-id")
        or options.get("BaseParallelApplication.cluster_id")
        or os.environ.get("IPP_CLUSTER_ID", "")
    )
    for directory in (profile, *(profile / name for name in ("security", "log", "pid"))):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "python": sys.executable,
        "profile_dir": str(profile),
        "cluster_id": cluster,
        "connection_file": str(profile / "security" / f"ipcontroller{cluster and '-'}{cluster}-engine.json"),
        "ping_ms": options.get("ping") or options.get("HeartMonitor.period") or configured_ping(profile),
        "database": next((ours for flag, ours in DATABASES.items() if flag in flags), "memory"),
        "ip": options.get("ip", "127.0.0.1"),
        "location": options.get("location", ""),
    }


def configured_ping(profile: Path) -> str:
    """Return the heartbeat's period in ms: the tests write it into the profile's configuration."""
    try:
        text = (profile / "ipcontroller_config.py").read_text()
    except OSError:
        text = ""
    match = re.search(r"HeartMonitor\.period\s*=\s*(\d+)", text)
    return match[1] if match else "3000"


def filled(command: str, places: dict[str, str], argv: list[str]) -> list[str]:
    """Return the argv of a command of the environment."""
    words: list[str] = []
    for word in shlex.split(command):
        if word == "{args}":
            words += argv
            continue
        value = re.sub(r"\{(\w+)\}", lambda match: places[match[1]], word)
        if not value.endswith("="):
            words.append(value)
    return words


def main() -> None:
    """Note what is started, and become it."""
    kind, argv = sys.argv[1], sys.argv[2:]
    command = filled(os.environ[VARIABLE[kind]], resolved(argv), argv)
    if log := os.environ.get("COMPAT_STARTED"):
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        with Path(log).open("a") as file:
            file.write(json.dumps({"kind": kind, "pid": os.getpid(), "test": test, "command": command}) + "\n")
    os.execvp(command[0], command)  # noqa: S606 - to be that process is the point


if __name__ == "__main__":
    main()
