"""How clients reach the controller: what its client file says, and the copy of it in the IPython directory (`publish: ipython`).

The copy is put there once a controller answers, since readers take it for a sign that one does; it is renewed with the next
controller's, and taken away when none is wanted any more. One that `clusterctl connect --ipython` put there is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from clusterd.core.model import connection as connection_file
from clusterd.errors import ClusterdError
from clusterd.publish import ipython
from clusterd.system.paths import host_id

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.daemon.places import Places
    from clusterd.daemon.story import Story

__all__ = ["Publisher", "connection_of"]


def connection_of(
    places: Places, controller_state: str, published: Path | None, *, is_shared: bool = False
) -> dict[str, Any]:
    """Return what `clusterctl connect` and the library are told.

    Args:
        places: the instance's files.
        controller_state: as `status` has it.
        published: the copy in the IPython directory, if the daemon keeps one.
        is_shared: others may connect, too: readers need not wonder that a group, or an ACL, gives them the file.
    """
    file = places.security / connection_file.CLIENT_FILE
    url, stock = "", ""
    # Not written yet, or just being replaced: is_ready says so.
    with contextlib.suppress(OSError, ClusterdError):
        content = connection_file.decode(file.read_bytes(), str(file))
        url = content.clusterd.data
        stock = "off" if content.stock is None else "curve" if content.stock.curve_serverkey else "on"
    return {
        "profile": places.name,
        "profile_dir": str(places.state),
        "client_file": str(file),
        "engine_file": str(places.security / connection_file.ENGINE_FILE),
        "controller": controller_state,
        "url": url,
        "is_ready": bool(url) and controller_state == "running",
        "is_local_only": url.startswith("unix:") or "//127." in url,
        "stock": stock or None,
        "ipython_file": None if published is None else str(published),
        "is_shared": is_shared,
        # Whose these files are: at a socket that systemd has made, the kernel names root.
        "uid": os.geteuid(),
    }


class Publisher:
    """Keeps the copy.

    Args:
        places: the instance's files.
        story: is told of what is published, and why it is not.

    Attributes:
        file: the copy, None while there is none.
        problem: why there is none although there should be; else empty.
    """

    def __init__(self, places: Places, story: Story) -> None:
        self._places = places
        self._story = story
        self._source = places.security / connection_file.CLIENT_FILE
        # What the client file was when it was last looked at: (inode, time of change).
        self._seen: tuple[int, int] | None = None
        # Whether that of an earlier daemon was looked for.
        self._has_looked = False
        self.file: Path | None = None
        self.problem = ""

    def follow(self, wish: str | None, *, is_up: bool, is_wanted: bool) -> None:
        """Publish, or take away, if it is time. Cheap when nothing has changed.

        Args:
            wish: `publish` of the profile.
            is_up: the controller answers.
            is_wanted: one is wanted, or still runs.
        """
        if wish is not None and is_up:
            self._publish()
        elif wish is None or not is_wanted:
            if self.file is not None or (wish is not None and not self._has_looked):
                self._withdraw()
            self._has_looked = True

    def look_again(self) -> None:
        """Try again what failed: something has changed that may have been the reason."""
        self._seen = None

    def renew(self) -> Path | None:
        """Have the copy say what the client file says now, also one that `connect --ipython` put there; None where there is none."""
        try:
            target = ipython.place(self._places.name)
            owner = ipython.owner_of(target.read_bytes())
            if owner is not None and (owner.cluster, owner.host) == (self._places.name, host_id()):
                ipython.publish_file(self._source, target)
                return target
        except FileNotFoundError:
            pass
        except (ClusterdError, OSError) as error:
            text = f"the copy of the client file in the IPython directory was not renewed: {error}"
            self._story.tell("not_published", text, level=logging.WARNING)
        return None

    def _publish(self) -> None:
        try:
            status = self._source.stat()
            seen = (status.st_ino, status.st_mtime_ns)
            if seen == self._seen:
                return
            self._seen = seen
            target = ipython.place(self._places.name)
            if ipython.publish_file(self._source, target):
                self._story.tell("published", f"ipyparallel.Client(profile={self._places.name!r}) connects: {target}")
            self.file, self.problem = target, ""
        except FileNotFoundError:
            return
        except (ClusterdError, OSError) as error:
            self.file = None
            reason = error.message if isinstance(error, ClusterdError) else str(error)
            if reason != self.problem:
                self.problem = reason
                self._story.tell("not_published", f"publish: {reason}", level=logging.WARNING)

    def _withdraw(self) -> None:
        self.file, self._seen, self.problem = None, None, ""
        with contextlib.suppress(OSError, ClusterdError):
            target = ipython.place(self._places.name)
            owner = ipython.owner_of(target.read_bytes())
            if owner is not None and (owner.cluster, owner.host) == (self._places.name, host_id()):
                ipython.withdraw(target, self._places.name)
                self._story.tell("withdrawn", f"took away {target}")
