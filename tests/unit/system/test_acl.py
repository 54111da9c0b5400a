"""ACLs as the kernel takes them: read back through it, and through what a user with them may do."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys

import pytest

from clusterd.system import acl, files

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

TRY = """
import os, sys
os.setgroups([int(g) for g in sys.argv[3].split(",") if g]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    print(open(sys.argv[1]).read())
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f"
    path.write_text("secret")
    path.chmod(0o600)
    try:
        os.setxattr(path, acl.ATTRIBUTE, acl.encoded(6, 4, [1], []))
        os.removexattr(path, acl.ATTRIBUTE)
    except OSError as error:
        pytest.skip(f"no ACLs on the file system of {tmp_path}: {error.strerror}")
    path.chmod(0o600)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def entries(data):
    assert struct.unpack_from("<I", data) == (2,)
    return list(struct.iter_unpack("<HHI", data[4:]))


def test_the_bytes():
    none = 0xFFFFFFFF
    assert entries(acl.encoded(6, 4, [20, 10, 20], [30])) == [
        *[(0x01, 6, none), (0x02, 4, 10), (0x02, 4, 20), (0x04, 0, none)],
        *[(0x08, 4, 30), (0x10, 4, none), (0x20, 0, none)],
    ]


def test_the_kernel_takes_them_as_they_are(file):
    acl.share(file, 4, frozenset({1001, 1002}), frozenset({50}))
    assert os.getxattr(file, acl.ATTRIBUTE) == acl.encoded(6, 4, {1001, 1002}, {50})
    # What ls shows: the mask where the group's bits are.
    assert mode(file) == 0o640
    assert acl.has_acl(file)
    acl.share(file, 4, frozenset({1002}), frozenset())
    assert os.getxattr(file, acl.ATTRIBUTE) == acl.encoded(6, 4, {1002}, set())
    acl.share(file, 4, frozenset(), frozenset())
    assert mode(file) == 0o600
    assert not acl.has_acl(file)


@as_root
@pytest.mark.parametrize(("uid", "groups", "may"), [(1001, "", True), (1002, "50", True), (1002, "51", False)])
def test_exactly_those_can_read(file, uid, groups, may):
    for parent in (file.parent, *file.parents):
        if parent.stat().st_uid == 0 and not mode(parent) & 1:
            parent.chmod(0o711)
    acl.share(file, 4, frozenset({1001}), frozenset({50}))
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(file), str(uid), groups], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ("secret" if may else "Permission denied")


def test_what_replaces_a_file_is_open_to_the_same(file):
    acl.share(file, 4, frozenset({1001}), frozenset())
    files.atomic_write(file, "new", keeps_access=True)
    assert os.getxattr(file, acl.ATTRIBUTE) == acl.encoded(6, 4, {1001}, set())
    files.atomic_write(file, "newer")
    assert (mode(file), acl.has_acl(file)) == (0o600, False)
    files.atomic_write(file.with_name("other"), "first", keeps_access=True)
    assert mode(file.with_name("other")) == 0o600


def test_a_directory_that_is_given_to_pass_stays_so(tmp_path, file):
    place = tmp_path / "place"
    files.private_directory(place)
    acl.share(place, 1, frozenset({1001}), frozenset())
    files.private_directory(place)
    assert mode(place) == 0o710
    acl.keep_private(place)
    assert mode(place) == 0o700


@pytest.fixture
def no_acls(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "removexattr", refuse)


def test_without_acls_one_group_can_be_given_a_file(tmp_path, no_acls):
    path = tmp_path / "f"
    path.touch(mode=0o600)
    acl.share(path, 4, frozenset(), frozenset({os.getegid()}))
    assert (mode(path), path.stat().st_gid) == (0o640, os.getegid())
    for uids, gids in (({1001}, set()), ({1001}, {os.getegid()}), (set(), {50, 51})):
        with pytest.raises(acl.ReachError, match="no ACLs"):
            acl.share(path, 4, frozenset(uids), frozenset(gids))
    acl.share(path, 4, frozenset(), frozenset())
    assert mode(path) == 0o600


def test_a_group_that_is_not_ours_cannot_be_given_anything(tmp_path, no_acls, monkeypatch):
    path = tmp_path / "f"
    path.touch(mode=0o600)

    def refuse(*_args, **_options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(acl.ReachError, match="not in the group 50"):
        acl.share(path, 4, frozenset(), frozenset({50}))
    assert mode(path) == 0o600
