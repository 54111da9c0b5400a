"""Reads the log files of an instance, the last lines or as they grow. The files are the processes' own: this only looks.

Changes are told by inotify on the one directory; where that is missing it looks twice a second. A file that is replaced
(rotation) is read to its end, then its successor from its beginning. A line without an end is not told yet.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model.ids import parse_slot
from clusterd.daemon.log_times import later_lines
from clusterd.errors import ControlError
from clusterd.system.inotify import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

__all__ = ["LogFiles", "sources_of"]

BLOCK: Final = 64 * 1024
LOOK_EVERY: Final = 0.5
# What one turn of a follower reads of one file: a runaway engine must not hide the others.
READ_MAX: Final = 1024**2


def sources_of(text: str | None, sets: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for names of log files.

    Args:
        text: what a person named: comma separated `engines/3`, `engine/3`, a set, `controller`, `daemon`, `agent`; None is all.
        sets: the engine sets there are.

    Raises:
        ControlError: code `not_found`: no such source; the text lists those there are.
    """
    known = list(sets)
    if text is None:
        return re.compile(r"(controller|daemon|agent-.+|engine-.+)\.log")
    words = filter(None, (part.strip() for part in text.split(",")))
    patterns = [_pattern(word, known) for word in words]
    return re.compile(rf"({'|'.join(patterns)})\.log")


def _pattern(word: str, sets: list[str]) -> str:
    if word in {"controller", "daemon"}:
        return word
    if word in {"agent", "agents"}:
        return "agent-.+"
    if word in sets:
        return rf"engine-{re.escape(word)}-\d+"
    if word == "engines":
        return r"engine-.+-\d+"
    kind, slash, name = word.partition("/")
    if kind == "agent" and slash and name in sets:
        return f"agent-{re.escape(name)}"
    try:
        slot = parse_slot(word)
    except ValueError:
        slot = None
    if slot is None or slot.engine_set not in sets:
        raise ControlError(
            f"there is no log of `{word}`",
            code="not_found",
            hint=f"there are: controller, daemon, agent, {', '.join(sets)}, and SET/NUMBER for one engine",
        )
    return f"engine-{re.escape(slot.engine_set)}-{slot.number}"


class LogFiles:
    """The log files in a directory that a pattern names."""

    def __init__(self, directory: Path, pattern: re.Pattern[str]) -> None:
        self._directory = directory
        self._pattern = pattern
        # By name: all files that are open.
        self._open: dict[str, _File] = {}

    async def lines(self, tail: int, *, follow: bool, after: float | None = None) -> AsyncGenerator[dict[str, Any]]:
        """Yield the last `tail` lines of each, then those that come.

        Args:
            tail: how many.
            follow: go on.
            after: a wall time: earlier lines are left out where they say when they were written, and files not written since then.
        """
        watcher = Watcher.open(self._directory) if follow and self._directory.is_dir() else None
        try:
            for line in self._tails(tail, after):
                yield line
            while follow:
                changed = await self._changed(watcher)
                for line in self._new_lines(changed):
                    yield line
        finally:
            if watcher is not None:
                watcher.close()
            for file in self._open.values():
                file.close()

    def _names(self) -> list[str]:
        try:
            names = [entry.name for entry in os.scandir(self._directory) if self._pattern.fullmatch(entry.name)]
        except FileNotFoundError:
            return []
        return sorted(names, key=_natural)

    def _tails(self, tail: int, after: float | None) -> Iterable[dict[str, Any]]:
        for name in self._names():
            file = _File.open(self._directory / name)
            if file is not None:
                self._open[name] = file
                lines = file.last_lines(tail)
                if after is not None:
                    lines = later_lines(lines, after) if file.written_at() > after else []
                yield from _told(name, lines)

    def _new_lines(self, changed: set[str]) -> list[dict[str, Any]]:
        # A list, not a generator: between two lines that a slow reader takes, the file could be replaced.
        names = self._names() if "" in changed else sorted(filter(self._pattern.fullmatch, changed), key=_natural)
        found: list[dict[str, Any]] = []
        for name in names:
            path = self._directory / name
            file = self._open.get(name)
            if file is not None:
                found += _told(name, file.new_lines())
                # One that was replaced is read to its end before it is left.
                if file.has_more or file.is_current(path):
                    continue
                # What was written between the look and the replacement.
                found += _told(name, file.new_lines())
                file.close()
                del self._open[name]
            successor = _File.open(path)
            if successor is not None:
                self._open[name] = successor
                found += _told(name, successor.new_lines())
        return found

    async def _changed(self, watcher: Watcher | None) -> set[str]:
        if unfinished := {name for name, file in self._open.items() if file.has_more}:
            await asyncio.sleep(0)
            return unfinished
        if watcher is None:
            await asyncio.sleep(LOOK_EVERY)
            return {""}
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(watcher.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(watcher.fileno())
        return watcher.read()


class _File:
    """One open file, read up to `_offset`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0
        # The last look stopped before the end.
        self.has_more = False
        # The beginning of a line whose end has not been written.
        self._rest = b""

    @classmethod
    def open(cls, path: Path) -> _File | None:
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError:
            return None

    def written_at(self) -> float:
        """When anything was written to it last."""
        return os.fstat(self._descriptor).st_mtime

    def is_current(self, path: Path) -> bool:
        """Whether the path still names this file, with what was read still in it."""
        try:
            status = path.stat()
        except OSError:
            return False
        return os.path.samestat(status, os.fstat(self._descriptor)) and status.st_size >= self._offset

    def last_lines(self, count: int) -> list[bytes]:
        """Return the last lines, reading back from the end."""
        end = position = os.fstat(self._descriptor).st_size
        data = b""
        while position > 0 and data.count(b"\n") <= count:
            begin = max(0, position - BLOCK)
            data = os.pread(self._descriptor, position - begin, begin) + data
            position = begin
        self._offset = end
        *lines, self._rest = data.split(b"\n")
        return lines[-count:] if count else []

    def new_lines(self) -> list[bytes]:
        data = b""
        while len(data) < READ_MAX and (piece := os.pread(self._descriptor, BLOCK, self._offset)):
            data += piece
            self._offset += len(piece)
        self.has_more = len(data) >= READ_MAX
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def close(self) -> None:
        os.close(self._descriptor)


def _told(name: str, lines: list[bytes]) -> Iterable[dict[str, Any]]:
    source = _source(name)
    for line in lines:
        yield {"source": source, "line": line.decode(errors="replace").rstrip("\r")}


def _source(name: str) -> str:
    """Return what people call a log file: `engine-gpu-3.log` is `gpu/3`."""
    stem = name.removesuffix(".log")
    if stem.startswith("engine-"):
        engine_set, _, slot = stem.removeprefix("engine-").rpartition("-")
        return f"{engine_set}/{slot}"
    return f"agent/{stem.removeprefix('agent-')}" if stem.startswith("agent-") else stem


def _natural(name: str) -> tuple[str, int]:
    """Order engine 10 after engine 9."""
    head, _, number = name.removesuffix(".log").rpartition("-")
    return (head, int(number)) if number.isdigit() else (name, 0)
