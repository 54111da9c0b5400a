import os
import stat

import pytest

from clusterd.errors import NotPrivate
from clusterd.system import files


def test_atomic_write_replaces_content_and_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    files.atomic_write(target, "neu")
    assert target.read_text() == "neu"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("durable", [True, False])
def test_atomic_write_gives_exactly_the_mode_whatever_the_umask(tmp_path, mode, durable):
    before = os.umask(0o027)
    try:
        files.atomic_write(tmp_path / "file", b"x", mode=mode, durable=durable)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize("call", ["fsync", "write", "replace"])
def test_failure_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, call):
    target = tmp_path / "file"
    target.write_text("old")

    def fail(*_args):
        raise OSError(28, "No space left on device")

    if call == "replace":
        monkeypatch.setattr("pathlib.Path.replace", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_write_all_survives_short_writes(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    files.atomic_write(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_private_directory_is_made_and_narrowed(tmp_path):
    path = tmp_path / "a" / "b"
    assert files.private_directory(path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o755)
    files.private_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_private_directory_refuses_a_symbolic_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(NotPrivate, match="symbolic link"):
        files.private_directory(tmp_path / "link")


def test_private_directory_refuses_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.private_directory(tmp_path / "file")


def test_private_directory_refuses_one_of_another_user(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(NotPrivate, match="belongs to uid"):
        files.private_directory(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o602])
def test_read_private_refuses_a_file_open_to_others(tmp_path, mode):
    path = tmp_path / "secret"
    path.write_bytes(b"key")
    path.chmod(mode)
    with pytest.raises(NotPrivate, match="chmod 600"):
        files.read_private(path)
    path.chmod(0o600)
    assert files.read_private(path) == b"key"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_read_private_refuses_a_file_of_another_user(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"key")
    path.chmod(0o600)
    os.chown(path, 54321, -1)
    with pytest.raises(NotPrivate, match="54321"):
        files.read_private(path)


def test_only_one_claim_succeeds_and_nothing_else_is_left(tmp_path):
    assert files.claim(tmp_path / "identity", "first") is True
    assert files.claim(tmp_path / "identity", "second") is False
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("identity", "first")]
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o600
