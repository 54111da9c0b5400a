"""What one controller has to itself while it lives: its profile directory, its runtime directory and its identity file.

Two controllers on one profile directory would overwrite each other's keys and connection files, whatever they listen on: the
second is refused, by a lock. A runtime directory that was made for a controller by hand goes with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from clusterd.errors import LaunchError, LockHeld
from clusterd.system import files, paths, process
from clusterd.system.lock import LockFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterd.core.model.launch import ControllerSpec

__all__ = ["by_hand_runtime_dir", "claimed"]

LOCK_FILE = "controller.lock"


def by_hand_runtime_dir(profile_dir: Path, cluster_id: str = "") -> Path:
    """Return where the Unix sockets of a controller by hand go: named by what makes two of them different."""
    what = os.fsencode(profile_dir) + (b"\0" + cluster_id.encode() if cluster_id else b"")
    return paths.runtime_dir("by-hand-" + hashlib.sha256(what).hexdigest()[:12])


@contextlib.contextmanager
def claimed(spec: ControllerSpec) -> Iterator[None]:
    """Make and hold what is the controller's own; give it back at the end.

    Raises:
        LaunchError: a directory cannot be made, another controller has this one, or the launch was called off.
        NotPrivate: a directory belongs to somebody else.
    """
    profile_dir, runtime = Path(spec.profile_dir), Path(spec.runtime_dir)
    with contextlib.ExitStack() as held:
        try:
            # One of each cluster id, since each has connection files of its own.
            name = f"controller-{spec.cluster_id}.lock" if spec.cluster_id else LOCK_FILE
            lock = LockFile(files.private_directory(profile_dir / "security") / name)
            lock.acquire()
        except LockHeld as error:
            who = f"process {error.pid}" if error.pid else "another process"
            raise LaunchError(
                f"{profile_dir} has a controller already: {who}",
                hint=error.hint or "Stop that one, or use another directory.",
            ) from None
        except OSError as error:
            raise _cannot_make(error, profile_dir) from error
        held.callback(lock.release, remove=True)
        if runtime == by_hand_runtime_dir(profile_dir, spec.cluster_id):
            held.callback(_remove, runtime)
        try:
            identity = _identify(spec, files.private_directory(files.private_directory(runtime) / "units"))
        except OSError as error:
            raise _cannot_make(error, runtime) from error
        held.callback(identity.unlink, missing_ok=True)
        yield


def _identify(spec: ControllerSpec, units: Path) -> Path:
    path = units / f"controller-{spec.launch}.json"
    content = {"kind": "controller", "launch": spec.launch, "cluster": spec.cluster, **process.current()._asdict()}
    if not files.claim(path, json.dumps(content)):
        raise LaunchError(f"launch {spec.launch} was called off, or runs already: {path} exists")
    return path


def _remove(runtime: Path) -> None:
    shutil.rmtree(runtime, ignore_errors=True)
    with contextlib.suppress(OSError):
        # That of all instances, if it was made for this one and no other is there.
        if runtime.parent.name.startswith("clusterd"):
            runtime.parent.rmdir()


def _cannot_make(error: OSError, path: Path) -> LaunchError:
    return LaunchError(f"cannot use {error.filename or path}: {error.strerror}")
