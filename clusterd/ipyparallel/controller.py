"""The launcher of `Cluster(controller="clusterd")`: `clusterd controller` in the foreground of a process of its own.

What ipcontroller takes as options is put into our words; what means nothing here is left out with a warning, because a controller
that refuses to start helps nobody who only tries another one.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from ipyparallel.cluster.launcher import LocalControllerLauncher
from traitlets import Integer, List, Unicode

from clusterd.ipyparallel import attaching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ClusterdControllerLauncher", "in_our_words"]

# ipcontroller's options -> ours. Those with a value: the name alone.
_SAME: Final = frozenset(
    {
        "--ip",
        "--location",
        "--ping",
        "--ports",
        "--reuse",
        "--database",
        "--stock",
        "--task-scheme",
        "--transport",
        "--cluster",
        "--runtime-dir",
        "--log-format",
    }
)
_VALUES: Final = {
    "--scheme": "--task-scheme",
    "--TaskScheduler.scheme_name": "--task-scheme",
    "--IPController.ip": "--ip",
    "--IPController.location": "--location",
    "--IPController.ports": "--ports",
    "--HeartMonitor.period": "--ping",
}
_FLAGS: Final = {
    "--dictdb": ("--database=memory",),
    "--sqlitedb": ("--database=sqlite",),
    "--mongodb": ("--database=mongodb",),
    "--nodb": ("--database=none",),
    "--restore": ("--reuse",),
    "--IPController.reuse_files=True": ("--reuse",),
    "--IPController.enable_curve=True": ("--stock=curve",),
}
# How much is logged, and where: ours logs to its output, and that goes into the same file.
_QUIET: Final = ("--log-level", "--debug", "--quiet", "--log-to-file", "--usethreads")


def in_our_words(arguments: Iterable[str], left_out: list[str]) -> Iterator[str]:
    """Yield options of ipcontroller as those of `clusterd controller`.

    Args:
        arguments: as somebody gave them to `Cluster(controller_args=...)`.
        left_out: gets those that have no meaning here.
    """
    # `--ip X` and `--ip=X` are both usual: a word without a dash belongs to the option before it.
    joined: list[str] = []
    for word in arguments:
        if not word.startswith("-") and joined and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    for option in joined:
        name, equals, value = option.partition("=")
        if option in _FLAGS:
            yield from _FLAGS[option]
        elif name in _VALUES:
            yield f"{_VALUES[name]}{equals}{value}"
        elif name in _SAME:
            yield option
        elif not name.startswith(_QUIET):
            left_out.append(option)


class ClusterdControllerLauncher(LocalControllerLauncher):
    """Starts, signals, stops and finds again one clusterd controller."""

    # Not `controller_cmd`: where that is configured, it is for ipcontroller.
    program = List([sys.executable, "-m", "clusterd", "controller"], config=True, help="What is started.")
    controller_args = List(Unicode(), config=True, help="Options of ipcontroller or of `clusterd controller`.")
    start_time = Integer(
        0, help="When the process began, in the kernel's count: a pid alone may be another's by now."
    ).tag(to_dict=True)

    @property
    def cluster_args(self) -> list[str]:
        """What says which cluster it is."""
        directory = os.path.abspath(self.profile_dir)  # noqa: PTH100 - the process runs in another directory
        named = ["--cluster-id", self.cluster_id, "--cluster", self.cluster_id] if self.cluster_id else []
        return ["--profile-dir", directory, *named]

    def find_args(self) -> list[str]:
        """Return the whole command line."""
        left_out: list[str] = []
        ours = list(in_our_words(self.controller_args, left_out))
        if left_out:
            self.log.warning("clusterd controller has no such options, they are left out: %s", " ".join(left_out))
        if os.environ.get("IPP_ENABLE_CURVE", "0") not in {"", "0"} and not any("--stock" in word for word in ours):
            ours.append("--stock=curve")
        return [*self.program, *self.cluster_args, *ours]

    def start(self) -> None:
        """Start it; ipyparallel waits for its connection files."""
        super().start()
        self.start_time = attaching.start_time(self.pid)

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> ClusterdControllerLauncher:
        """Find one again that another process started.

        Raises:
            NotRunning: it has ended; its pid may be another's by now.
        """
        attaching.check_running(d)
        found: ClusterdControllerLauncher = super().from_dict(d, **kwargs)
        return found
