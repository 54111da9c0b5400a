import os
from pathlib import Path

import pytest

from clusterd.errors import NotPrivate
from clusterd.system import paths

VARIABLES = ("CLUSTERD_RUNTIME_DIR", "CLUSTERD_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def user(monkeypatch):
    """A plain user, whoever runs the tests."""
    monkeypatch.setattr(paths, "_is_root", lambda: False)


@pytest.fixture
def root(monkeypatch):
    monkeypatch.setattr(paths, "_is_root", lambda: True)


def test_root_uses_the_system_directories(root):
    assert paths.runtime_dir("local") == Path("/run/clusterd/local")
    assert paths.state_dir("local") == Path("/var/lib/clusterd/local") / paths.host_id()


def test_user_follows_xdg(user, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert paths.runtime_dir("local") == tmp_path / "clusterd/local"
    assert paths.state_dir("local") == Path("/s/clusterd/local") / paths.host_id()


def test_relative_state_home_is_ignored(user, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.state_dir("local") == tmp_path / ".local/state/clusterd/local" / paths.host_id()


@pytest.mark.parametrize("value", ["", "/nonexistent/run", "relative"])
def test_useless_runtime_dir_falls_back_to_tmp(user, monkeypatch, value):
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.setattr(paths, "check_private_directory", lambda path: None)
    assert paths.runtime_dir("local") == Path(f"/tmp/clusterd-{os.geteuid()}/local")


def test_runtime_dir_of_another_user_falls_back_to_tmp(user, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    assert paths.runtime_dir("local") == Path(f"/tmp/clusterd-{real + 1}/local")


def test_fallback_of_somebody_else_is_refused(user, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "_temporary_root", lambda: tmp_path)
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    with pytest.raises(NotPrivate):
        paths.runtime_dir("local")


@pytest.mark.parametrize("who", ["root", "user"])
def test_overrides_replace_the_part_before_the_name(who, monkeypatch, request):
    request.getfixturevalue(who)
    monkeypatch.setenv("CLUSTERD_RUNTIME_DIR", "/r")
    monkeypatch.setenv("CLUSTERD_STATE_DIR", "/s")
    assert paths.runtime_dir("x") == Path("/r/x")
    assert paths.state_dir("x") == Path("/s/x") / paths.host_id()


def test_every_socket_path_fits_and_the_replacement_is_a_function_of_the_path(user, monkeypatch):
    monkeypatch.setenv("CLUSTERD_RUNTIME_DIR", "/" + "d" * 60)
    seen = set()
    for length in range(1, 60):
        directory = paths.runtime_dir("n" * length)
        assert paths.socket_path_excess(directory / ("s" * (paths.SOCKET_NAME_RESERVE - 1))) == 0
        assert directory == paths.runtime_dir("n" * length)
        seen.add(directory)
    assert len(seen) == 59
    assert any(str(path).startswith("/tmp/clusterd-") for path in seen)
    assert any(str(path).startswith("/dddd") for path in seen)


def test_socket_path_excess_counts_bytes():
    assert paths.socket_path_excess(Path("/" + "a" * 106)) == 0
    assert paths.socket_path_excess(Path("/" + "ä" * 53 + "b")) == 1


def test_candidates_are_existing_directories_of_ours(user, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert tmp_path / "clusterd/local" not in paths.runtime_candidates("local")
    (tmp_path / "clusterd/local").mkdir(parents=True)
    assert paths.runtime_candidates("local")[0] == tmp_path / "clusterd/local"


def test_host_id_is_a_path_component_with_a_hash(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "a/b c")
    name = paths.host_id.__wrapped__()
    assert name.startswith("a-b-c-")
    assert len(name) == len("a-b-c-") + 8


def test_host_id_without_machine_id_is_stable(monkeypatch):
    monkeypatch.setattr(paths, "_MACHINE_ID_FILES", ("/nonexistent",))
    assert paths.host_id.__wrapped__() == paths.host_id.__wrapped__()


def test_file_system_type_is_what_the_kernel_says(tmp_path, monkeypatch):
    assert paths._statfs_type(Path("/proc")) == 0x9FA0  # PROC_SUPER_MAGIC
    assert not paths.is_network_file_system(Path("/proc"))
    monkeypatch.setattr(paths, "_statfs_type", lambda path: 0x0BD00BD0)
    assert paths.network_file_system(tmp_path / "not" / "yet") == "lustre"


def test_statfs_failure_is_an_error_not_a_guess():
    with pytest.raises(FileNotFoundError):
        paths._statfs_type(Path("/nonexistent"))
