"""Where ipyparallel looks for a client file, and whose file may be replaced there."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from clusterd.errors import ConnectionFileError, NotPrivate
from clusterd.publish import owner_of, place, publish, withdraw
from clusterd.system.paths import host_id

PORTS = {"interface": "tcp://127.0.0.1", "registration": 1, "key": "secret"}


def client_file(address: str, *, cluster: str = "local", host: str | None = None, **fields) -> bytes:
    ours = {"cluster": cluster, "host": host_id() if host is None else host, "pid": 4321, "data": address}
    return json.dumps({**PORTS, **fields, "clusterd": ours}).encode()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def alive(isolated):
    """The address of a controller that lives: somebody listens there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(isolated.runtime / "client-data"))
        listener.listen()
        yield f"unix://{isolated.runtime}/client-data"


@pytest.fixture
def gone(isolated):
    return f"unix://{isolated.runtime}/nobody"


def test_the_variable_counts_and_else_the_home_directory(isolated, monkeypatch):
    file = "profile_lab/security/ipcontroller-client.json"
    monkeypatch.setenv("IPYTHONDIR", "~/other")
    assert place("lab") == isolated.home / "other" / file
    monkeypatch.delenv("IPYTHONDIR")
    assert place("lab") == isolated.home / ".ipython" / file


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ConnectionFileError, match="cannot be the name of an IPython profile"):
        place(name)


def test_ipyparallel_looks_there(isolated, gone):
    """The real one: its own rule for where a profile is."""
    paths = pytest.importorskip("IPython.core.profiledir")
    publish(client_file(gone), "f", place("lab"))
    found = paths.ProfileDir.find_profile_dir_by_name(os.environ["IPYTHONDIR"], "lab")
    assert Path(found.security_dir, "ipcontroller-client.json") == place("lab")


def test_what_is_made_is_the_users_alone_whatever_the_umask(isolated, gone):
    old = os.umask(0o000)
    try:
        assert publish(client_file(gone), "f", place("lab")) is True
    finally:
        os.umask(old)
    target = place("lab")
    assert target.read_bytes() == client_file(gone)
    assert [mode(path) for path in (target, *list(target.parents)[:3])] == [0o600, 0o700, 0o700, 0o700]
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_directories_that_are_there_keep_their_mode_but_for_the_one_with_the_key(isolated, gone):
    target = place("lab")
    target.parent.mkdir(parents=True)
    for directory in list(target.parents)[:3]:
        directory.chmod(0o755)
    publish(client_file(gone), "f", target)
    assert [mode(path) for path in list(target.parents)[:3]] == [0o700, 0o755, 0o755]


def test_the_same_content_is_not_written_again(isolated, gone):
    target = place("lab")
    publish(client_file(gone), "f", target)
    before = target.stat().st_ino
    assert publish(client_file(gone), "f", target) is False
    assert target.stat().st_ino == before
    target.chmod(0o644)
    assert publish(client_file(gone), "f", target) is True
    assert mode(target) == 0o600


def test_a_security_directory_that_is_a_link_is_refused(isolated, gone, tmp_path):
    target = place("lab")
    target.parents[1].mkdir(parents=True)
    target.parent.symlink_to(tmp_path)
    with pytest.raises(NotPrivate, match="is a symbolic link"):
        publish(client_file(gone), "f", target)
    assert list(tmp_path.iterdir()) == []


def test_a_controller_without_stock_sockets_has_nothing_to_publish(isolated, gone):
    content = json.dumps({"clusterd": json.loads(client_file(gone))["clusterd"]}).encode()
    with pytest.raises(ConnectionFileError, match=r"serves no stock clients\n`stock: on`"):
        publish(content, "f", place("lab"))
    assert not place("lab").exists()


def test_the_next_controller_of_the_same_cluster_replaces_its_own(isolated, alive):
    target = place("lab")
    publish(client_file(alive), "f", target)
    assert publish(client_file(alive, key="other"), "f", target) is True
    assert json.loads(target.read_bytes())["key"] == "other"


def test_the_file_of_a_living_controller_is_not_replaced_but_by_force(isolated, alive, gone):
    target = place("lab")
    publish(client_file(alive, cluster="other"), "f", target)
    with pytest.raises(ConnectionFileError) as caught:
        publish(client_file(gone), "f", target)
    said = f"is the file of the controller of other, process 4321 on {host_id()} ({alive}), which is alive"
    assert said in str(caught.value)
    assert "--force" in caught.value.hint
    assert owner_of(target.read_bytes()).cluster == "other"
    assert publish(client_file(gone), "f", target, is_forced=True) is True
    assert owner_of(target.read_bytes()).cluster == "local"


def test_nor_is_that_of_another_instance_of_the_same_name(isolated, alive, gone):
    publish(client_file(alive), "f", place("lab"))
    with pytest.raises(ConnectionFileError, match="is alive"):
        publish(client_file(gone), "f", place("lab"))


def test_what_a_controller_left_that_is_gone_is_replaced(isolated, alive, gone):
    publish(client_file(gone, cluster="other"), "f", place("lab"))
    assert publish(client_file(alive), "f", place("lab")) is True


def test_another_host_is_not_guessed_about(isolated, gone):
    publish(client_file(gone, host="login2-00000000"), "f", place("lab"))
    with pytest.raises(ConnectionFileError, match="cannot be seen from here"):
        publish(client_file(gone), "f", place("lab"))


def test_the_file_of_a_living_ipcontroller_is_not_replaced(isolated, gone):
    target = place("lab")
    target.parent.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stock = {**PORTS, "registration": listener.getsockname()[1], "location": socket.gethostname()}
        target.write_text(json.dumps(stock))
        with pytest.raises(ConnectionFileError, match=r"a controller that is not clusterd's on .*, which is alive"):
            publish(client_file(gone), "f", target)
        target.write_text(json.dumps({**stock, "location": "login2"}))
        with pytest.raises(ConnectionFileError, match=r"on login2 .*, which cannot be seen from here"):
            publish(client_file(gone), "f", target)
        target.write_text(json.dumps(stock))
    assert publish(client_file(gone), "f", target) is True


def test_a_controller_that_listens_everywhere_is_where_it_says():
    content = json.dumps({"interface": "tcp://*", "registration": 7, "location": "login2"}).encode()
    assert owner_of(content).address == "tcp://login2:7"


def test_a_file_that_names_nobody_is_replaced(isolated, gone):
    target = place("lab")
    target.parent.mkdir(parents=True)
    for content in ("", "[]", "{}", "garbage"):
        target.write_text(content)
        assert owner_of(target.read_bytes()) is None
        assert publish(client_file(gone), "f", target) is True


def test_it_is_taken_away_with_what_was_made_for_it(isolated, gone):
    target = place("lab")
    assert withdraw(target, "local") is False
    publish(client_file(gone), "f", target)
    assert withdraw(target, "local") is True
    assert not target.parents[1].exists()


def test_what_else_is_in_the_profile_stays(isolated, alive):
    target = place("lab")
    publish(client_file(alive), "f", target)
    (target.parents[1] / "startup").mkdir()
    assert withdraw(target, "local") is True
    assert [path.name for path in target.parents[1].iterdir()] == ["startup"]


def test_the_file_of_another_living_controller_is_not_taken_away_but_by_force(isolated, alive):
    target = place("lab")
    publish(client_file(alive, cluster="other"), "f", target)
    with pytest.raises(ConnectionFileError, match="the controller of other"):
        withdraw(target, "local")
    assert target.exists()
    assert withdraw(target, "local", is_forced=True) is True
