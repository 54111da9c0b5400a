from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys

import pytest

from clusterd.daemon import startup
from clusterd.daemon.places import Places
from clusterd.daemon.run_as import ALLOW_ROOT, become, user_to_become
from clusterd.errors import ProfileError

PROGRAM = """
import json, os, pwd, sys
from clusterd.daemon.places import Places
from clusterd.daemon.run_as import become
places = Places.of("lab")
become("nobody", places)
print(json.dumps({
    "ids": os.getresuid() + os.getresgid(), "home": os.environ["HOME"], "user": os.environ["USER"],
    "groups": os.getgroups(), "xdg": os.environ.get("XDG_RUNTIME_DIR"), "owner": os.stat(places.runtime).st_uid,
    "mode": os.stat(places.state).st_mode & 0o777, "parent": os.stat(places.state.parent).st_uid,
}))
try:
    os.setuid(0)
except PermissionError:
    print("for good")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_service_user_for_good(isolated):
    for place in (isolated.root, isolated.runtime, isolated.state):
        place.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    told, nobody = json.loads(first), pwd.getpwnam("nobody")
    assert told["ids"] == [nobody.pw_uid] * 3 + [nobody.pw_gid] * 3
    assert (told["home"], told["user"], told["xdg"]) == (nobody.pw_dir, "nobody", None)
    assert 0 not in told["groups"]
    assert (told["owner"], told["mode"], told["parent"]) == (nobody.pw_uid, 0o700, 0)
    assert second == "for good"


def test_a_user_who_does_not_exist_is_told_with_the_command_that_makes_one(isolated):
    with pytest.raises(ProfileError, match="useradd --system nosuchuser"):
        become("nosuchuser", Places.of("lab"))


@pytest.mark.parametrize(
    ("run_as", "allowed", "user"), [("lab", None, "lab"), ("lab", "1", "lab"), ("root", None, None), (None, "1", None)]
)
def test_engines_run_as_root_only_when_that_is_said(monkeypatch, tmp_path, run_as, allowed, user):
    monkeypatch.delenv(ALLOW_ROOT)
    if allowed is not None:
        monkeypatch.setenv(ALLOW_ROOT, allowed)
    assert user_to_become(run_as, tmp_path / "lab.yaml") == user


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_a_daemon_that_root_starts_without_run_as_begins_nothing(monkeypatch, isolated):
    monkeypatch.delenv(ALLOW_ROOT)
    with pytest.raises(ProfileError, match=r"local.yaml: run_as is missing, and engines do not run as root") as caught:
        startup.begin("local")
    assert "run_as: root" in caught.value.hint
    assert list(isolated.runtime.iterdir()) == []
    assert list(isolated.state.iterdir()) == []
