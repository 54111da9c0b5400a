"""Which file a name means, and who may have written it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clusterd.errors import ProfileError
from clusterd.profile import check_name, find, listing, lookup, names, read, search_path, trust, writable_directory

GOOD = "version: 1\nengine_sets: {engines: {n: 1}}\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are taken: the refusals are tested below")


def write(directory: Path, name: str = "lab.yaml", text: str = GOOD) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(0o644)
    return path


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The four directories of a user, in order; none exists yet."""
    monkeypatch.setattr(lookup, "SYSTEM_DIRECTORY", tmp_path / "etc")
    monkeypatch.setattr(lookup, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("CLUSTERD_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return [tmp_path / "config/profiles", tmp_path / "xdg/clusterd/profiles", tmp_path / "etc", tmp_path / "shipped"]


def test_the_first_directory_that_has_the_name_wins(places):
    assert search_path() == places
    for directory in reversed(places):
        path = write(directory)
        assert find("lab") == path


def test_a_root_daemon_leaves_out_the_home_directory(places):
    write(places[1])
    in_etc = write(places[2])
    assert search_path(is_privileged=True) == [places[0], *places[2:]]
    assert find("lab", is_privileged=True) == in_etc


def test_the_default_places():
    environ = {"HOME": "/home/lab"}
    system = Path("/etc/clusterd/profiles")
    assert search_path(is_privileged=True, environ=environ) == [system, trust.SHIPPED]
    home = Path.home() / ".config/clusterd/profiles"
    assert search_path(environ=environ) == [home, system, trust.SHIPPED]
    # The base directory specification: relative paths are to be ignored.
    assert search_path(environ={"XDG_CONFIG_HOME": "relative"})[0] == home
    assert search_path(environ={"XDG_CONFIG_HOME": "/x"})[0] == Path("/x/clusterd/profiles")
    assert writable_directory(environ=environ) == home
    assert writable_directory(is_privileged=True, environ=environ) == system


@pytest.mark.parametrize("name", ["a", "lab", "A-1_b.c", "7", "x" * 64])
def test_names_that_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "-x", ".x", "a b", "a\n", "é", "x" * 65])
def test_names_that_are_not(name):
    with pytest.raises(ProfileError, match="cannot be the name of a profile"):
        find(name)


def test_a_missing_profile_says_where_it_was_looked_for_and_what_there_is(places):
    write(places[2], "local.yaml")
    with pytest.raises(ProfileError) as caught:
        find("locale")
    assert caught.value.message == "there is no profile locale"
    assert caught.value.hint == f"did you mean 'local'? looked in {', '.join(map(str, places))}"
    with pytest.raises(ProfileError, match="there are: local; looked in"):
        find("zebra")


def test_the_wrong_suffix_is_named(places):
    path = write(places[1], "lab.yml")
    with pytest.raises(ProfileError, match=f"rename {path} to lab.yaml"):
        find("lab")


def test_names_lists_each_once_with_its_error(places):
    first = write(places[0])
    write(places[2])
    bad = write(places[2], "bad.yaml", "version: 1\n")
    write(places[2], "notes.txt")
    write(places[2], ".hidden.yaml")
    found = names()
    assert [(name, path) for name, path, _ in found] == [("bad", bad), ("lab", first)]
    assert [str(error) if error else None for _, _, error in found] == [
        f"{bad}:1:1: engine_sets is missing (add `engine_sets: {{engines: {{n: 4}}}}`)",
        None,
    ]
    assert [item.profile is not None for item in listing()] == [False, True]


def test_a_link_to_nowhere_is_not_skipped_for_another_file(places):
    places[0].mkdir(parents=True)
    (places[0] / "lab.yaml").symlink_to("/nowhere/lab.yaml")
    write(places[2])
    with pytest.raises(ProfileError, match=r"lab\.yaml: cannot be read: No such file or directory"):
        read(find("lab"))


def test_the_shipped_profiles_are_found_in_a_checkout_and_in_a_wheel(tmp_path):
    assert trust._shipped(tmp_path / "clusterd" / "profile") == tmp_path / "etc/clusterd/profiles"
    (tmp_path / "clusterd/profile/shipped").mkdir(parents=True)
    assert trust._shipped(tmp_path / "clusterd" / "profile") == tmp_path / "clusterd/profile/shipped"


def test_every_shipped_profile_can_be_used_also_by_a_root_daemon():
    found = sorted(trust.SHIPPED.glob("*.yaml"))
    assert {path.name for path in found} >= {"default.yaml", "local.yaml"}
    for path in found:
        assert read(path, is_privileged=True).description


def test_default_means_local():
    assert read(trust.SHIPPED / "default.yaml") == read(trust.SHIPPED / "local.yaml")


def test_what_everybody_may_write_is_refused(tmp_path):
    path = write(tmp_path)
    path.chmod(0o646)
    with pytest.raises(ProfileError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: everybody may write this profile\nchmod o-w {path}"


def test_a_directory_and_a_pipe_are_no_profiles(tmp_path):
    pipe = tmp_path / "lab.yaml"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):  # the pipe, without a writer, must not be waited for
        with pytest.raises(ProfileError, match="not a regular file"):
            read(path)


def test_a_loop_of_links(tmp_path):
    path = tmp_path / "lab.yaml"
    path.symlink_to(path)
    with pytest.raises(ProfileError, match="cannot be read"):
        read(path)


@needs_root
def test_a_root_daemon_takes_a_file_of_root(tmp_path):
    root = tmp_path / "config"
    path = write(root)
    # /tmp itself is open to all, but sticky: what root has there, others cannot replace.
    assert read(path, is_privileged=True).engine_sets["engines"].n == 1


@needs_root
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_root_daemon_refuses_a_file_that_others_may_write(tmp_path, mode):
    path = write(tmp_path)
    path.chmod(mode)
    with pytest.raises(ProfileError) as caught:
        read(path, is_privileged=True)
    assert str(caught.value) == (
        f"{path} may be written by others: a daemon that runs as root does not read profiles from there\nchmod go-w {path}"
    )


@needs_root
def test_a_root_daemon_refuses_a_directory_that_others_may_write(tmp_path):
    path = write(tmp_path / "open")
    path.parent.chmod(0o775)
    with pytest.raises(ProfileError, match=f"^{path.parent} may be written by others"):
        read(path, is_privileged=True)


@needs_root
def test_a_root_daemon_refuses_a_file_and_a_link_of_somebody_else(tmp_path):
    path = write(tmp_path)
    os.chown(path, 12345, 12345)
    with pytest.raises(ProfileError) as caught:
        read(path, is_privileged=True)
    assert str(caught.value) == (
        f"{path} belongs to uid 12345: a daemon that runs as root does not read profiles from there\n"
        f"chown root {path}, or put the profile into /etc/clusterd/profiles"
    )
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    os.chown(path, 0, 0)
    link = theirs / "link.yaml"
    link.symlink_to(path)
    # The file is root's, but another could be put in its place.
    with pytest.raises(ProfileError, match=f"^{theirs} belongs to uid 12345"):
        read(link, is_privileged=True)


@pytest.mark.parametrize(
    ("mode", "uid", "problem"),
    [
        (stat.S_IFREG | 0o644, 0, None),
        (stat.S_IFREG | 0o644, 1000, "belongs to uid 1000"),
        (stat.S_IFREG | 0o664, 0, "may be written by others"),
        (stat.S_IFREG | 0o1666, 0, "may be written by others"),
        (stat.S_IFDIR | 0o755, 0, None),
        (stat.S_IFDIR | 0o1777, 0, None),
        (stat.S_IFDIR | 0o777, 0, "may be written by others"),
        (stat.S_IFDIR | 0o1777, 1000, "belongs to uid 1000"),
    ],
)
def test_who_may_write_what(mode, uid, problem):
    status = os.stat_result((mode, 1, 1, 1, uid, 0, 0, 0, 0, 0))
    if problem is None:
        trust._check_owned(Path("/x"), status)
        return
    with pytest.raises(ProfileError, match=problem):
        trust._check_owned(Path("/x"), status)
