"""Finds out which modules may be imported before the fork, in throw-away children, so that the zygote itself stays clean.

A thread does not survive a fork, but the lock that it held does: a module that starts threads is imported by each engine
itself, with a warning that names it. So is one that opens a GPU, whose driver knows nothing of forks. A module whose
threads end at a fork by themselves (OpenBLAS, hence numpy) handles it and is preloaded.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")


class Finding(Struct, array_like=True):
    """What importing one module did. `verdict`: ok, missing (it raised), late; `reason` for the last two."""

    module: str
    verdict: str
    reason: str = ""


_decoder = msgspec.json.Decoder(Finding)


class Probe:
    """Runs in the background: the zygote imports IPython meanwhile.

    Args:
        modules: in the order in which they are to be imported.
        timeout: seconds that one module may take.
    """

    def __init__(self, modules: Sequence[str], timeout: float) -> None:
        self._timeout = timeout
        # What is not decided yet, in order.
        self._todo = list(dict.fromkeys(modules))
        self.findings: list[Finding] = []
        # The running child and our end of its pipe; -1 when there is none.
        self._child = self._pipe = -1
        self._buffer = b""
        self._start()

    def finish(self) -> list[Finding]:
        """Wait for the rest, and return a finding for each module, in order."""
        while self._todo:
            finding = self._next()
            self.findings.append(finding)
            self._todo.remove(finding.module)
            if finding.verdict != "ok":
                # What a bad module has already loaded would hide what the next one does: begin again without it.
                self._end()
                self._start()
        self._end()
        return self.findings

    def _start(self) -> None:
        if not self._todo:
            return
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC)
        self._buffer = b""
        self._child = os.fork()
        if self._child == 0:
            os.close(self._pipe)
            _run(write_end, [finding.module for finding in self.findings if finding.verdict == "ok"], self._todo)
        os.close(write_end)

    def _next(self) -> Finding:
        end = time.monotonic() + self._timeout
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                return Finding(self._todo[0], "late", f"its import took longer than {self._timeout:.0f} s")
            data = os.read(self._pipe, 65536)
            if not data:
                status = self._end()
                return Finding(self._todo[0], "missing", f"its import ended the process ({_described(status)})")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return _decoder.decode(line)

    def _end(self) -> int:
        """Reap the child; its wait status."""
        status = 0
        if self._child > 0:
            os.kill(self._child, signal.SIGKILL)
            _, status = os.waitpid(self._child, 0)
            os.close(self._pipe)
        self._child = self._pipe = -1
        return status


def _run(pipe: int, known: Sequence[str], modules: Sequence[str]) -> NoReturn:
    """The child: import, look, report each; stop after the first that is not ok."""
    status = 1
    try:
        # The zygote's own import will print it again, once.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for module in known:
            importlib.import_module(module)
        for module in modules:
            finding = _look(module)
            os.write(pipe, msgspec.json.encode(finding) + b"\n")
            if finding.verdict != "ok":
                break
        status = 0
    finally:
        os._exit(status)


def _look(module: str) -> Finding:
    before = open_gpus()
    try:
        importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: modules do what they want
        return Finding(module, "missing", f"{type(error).__name__}: {error}")
    opened = open_gpus() - before
    if opened:
        return Finding(module, "late", f"it opens {', '.join(sorted(opened))}")
    if thread_count() > 1:
        pass_fork_handlers()
        remaining = thread_count() - 1
        if remaining:
            return Finding(module, "late", f"it starts {remaining} thread{'s' if remaining > 1 else ''}")
    return Finding(module, "ok")


def pass_fork_handlers() -> None:
    """Fork for nothing: libraries that handle forks end their threads in the parent before one, and start them when needed."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def thread_count() -> int:
    """Threads of this process as the kernel counts them: those of C libraries too."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def open_gpus() -> set[str]:
    """Device files of GPUs that are open in this process."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith(GPU_DEVICES):
            found.add(target)
    return found


def _described(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
