"""What `profile check` warns of, on a host that has none of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from clusterd.core.model.access import Subjects
from clusterd.core.model.profile import Access, EngineSet, Profile
from clusterd.profile import doubts, expanded, parse, unknown_names

if TYPE_CHECKING:
    from pathlib import Path


def warnings(setting: str, *, name: str = "lab", environ=None, home: Path) -> list[str]:
    text = f"version: 1\nengine_sets: {{engines: {{n: 1, {setting}}}}}"
    profile = expanded(parse(text.encode(), "p"), directory=home, home=home)
    return list(doubts(profile, name, environ=environ if environ is not None else {"CLUSTERD_RUNTIME_DIR": "/r"}))


def test_nothing_to_say(tmp_path):
    assert warnings(f"python: {sys.executable}", home=tmp_path) == []


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("python: /no/python", ["engine_sets.engines.python: /no/python is not a program on this host"]),
        ("python: /no/python, setup: [module load python]", []),
        ("python: python3", []),
        ("work_dir: /no/dir", ["engine_sets.engines.work_dir: /no/dir is not a directory on this host"]),
        ("startup: {script: /no.py}", ["engine_sets.engines.startup.script: /no.py is not a file on this host"]),
    ],
)
def test_what_this_host_does_not_have(tmp_path, setting, expected):
    assert warnings(setting, home=tmp_path) == expected


@pytest.mark.parametrize(("length", "is_long"), [(107, False), (108, True)])
def test_a_socket_path_that_is_too_long(tmp_path, length, is_long):
    # The longest socket is ROOT/NAME/engine-control.
    root = "/" + "r" * (length - len("//lab/engine-control"))
    found = warnings("max: 2", environ={"CLUSTERD_RUNTIME_DIR": root}, home=tmp_path)
    assert len(found) == is_long
    for warning in found:
        assert warning.startswith(f"sockets such as {root}/lab/engine-control are 1 bytes too long")
        assert f"/tmp/clusterd-{os.geteuid()}/HASH" in warning


@pytest.mark.parametrize(
    ("uid", "environ", "root"),
    [
        (0, {}, "/run/clusterd"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/clusterd"),
        (1000, {}, "/tmp/clusterd-1000"),
    ],
)
def test_sockets_are_looked_for_where_the_daemon_has_them(tmp_path, monkeypatch, uid, environ, root):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    (warning,) = warnings("max: 2", name="x" * 108, environ=environ, home=tmp_path)
    assert warning.startswith(f"sockets such as {root}/xxx")


@pytest.mark.parametrize(
    ("uid", "run_as", "is_told"), [(0, "nobody", False), (65534, "nobody", False), (65534, "lab", True)]
)
def test_whom_engines_run_as_when_it_is_not_root_who_starts_them(tmp_path, monkeypatch, uid, run_as, is_told):
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setenv("LOGNAME", "somebody")
    profile = Profile(version=1, run_as=run_as, engine_sets={"engines": EngineSet(n=1, work_dir=str(tmp_path))})
    told = [text for text in doubts(profile, "lab") if text.startswith("run_as")]
    assert told == (
        ["run_as: only a daemon that root starts becomes lab; yours runs engines as nobody"] if is_told else []
    )


def test_names_that_this_host_does_not_know():
    access = Access(admin=Subjects(users=["root", "nosuchuser"]), view=Subjects(groups=["root", "nosuchgroup"]))
    profile = Profile(version=1, access=access, engine_sets={"engines": EngineSet(n=1)})
    assert list(unknown_names(profile)) == [
        "access: there is no user nosuchuser on this host",
        "access: there is no group nosuchgroup on this host",
    ]
