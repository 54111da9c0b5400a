"""Starting and keeping: what a controller does when its files or its sockets cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from clusterd.controller import credentials, main, sockets
from clusterd.controller.credentials import ConnectionFileError
from clusterd.controller.main import Controller
from clusterd.core.model.launch import ControllerSpec
from clusterd.core.wire.messages import Limits
from clusterd.errors import LaunchError
from clusterd.system import files


@pytest.fixture
def spec(isolated):
    for name in ("security", "run"):
        files.private_directory(isolated.root / name)
    return ControllerSpec(
        launch="00000000-0",
        cluster="test",
        profile_dir=str(isolated.root),
        runtime_dir=str(isolated.root / "run"),
        log_dir=str(isolated.root),
    )


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def _nothing_of_the_process_changes(monkeypatch):
    for name in ("_set_title", "_raise_descriptor_limit", "_install_signals"):
        monkeypatch.setattr(main, name, lambda *_: None)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("is_first", [True, False], ids=["secrets", "connection files"])
def test_on_a_full_disk_it_does_not_start_and_says_where(spec, monkeypatch, is_first):
    before = descriptors()
    monkeypatch.setattr(
        credentials if is_first else credentials.ConnectionFiles, "save_secrets" if is_first else "write", full
    )
    with pytest.raises(LaunchError, match="security: No space left"):
        Controller(spec).run()
    assert descriptors() == before
    assert sockets_of(spec) == []


def sockets_of(spec) -> list[str]:
    return [path.name for path in Path(spec.runtime_dir).iterdir()]


def test_where_another_listens_it_leaves_nothing_behind(spec):
    before = descriptors()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{spec.runtime_dir}/engine-data")
        other.listen(0)
        with pytest.raises(LaunchError, match="another controller listens"):
            Controller(spec).run()
        assert sockets_of(spec) == ["engine-data"]
    assert descriptors() == before


def test_a_listener_that_is_stopped_listens(isolated):
    # Its backlog is full: a connect(2) that waits would wait for ever.
    path = isolated.root / "client-data"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(0)
        waiting.connect(str(path))
        with pytest.raises(LaunchError, match="another controller listens"):
            sockets.bind_unix(isolated.root, Limits())


def test_a_disk_that_is_full_later_ends_nothing(spec, monkeypatch, caplog):
    controller = Controller(spec)
    monkeypatch.setattr(credentials, "save_secrets", full)
    assert controller._ids.take(0, ()) == 0
    assert "No space left" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"client_key": "no hex", "engine_key": "00", "token_secret": "00", "curve_public": "", "curve_secret": ""}',
    ],
)
def test_damaged_secrets_are_named(isolated, content):
    path = isolated.root / credentials.secrets_name()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match=r"controller-secrets\.json is damaged"):
        credentials.load_secrets(path)
