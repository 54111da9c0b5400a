"""The agent's end of the zygote: starts it, talks with it, notices when it is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from clusterd.agent.placement import static_environment
from clusterd.agent.zygote import messages

if TYPE_CHECKING:
    from clusterd.core.model.launch import AgentSpec

# A batch of forks is answered at once; more is read in the next turn.
_BURST = 256


class ZygoteProcess:
    """One zygote; when it is gone, make another.

    Args:
        spec: what it warms up for.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [*_interpreter(), "-m", "clusterd.agent.zygote", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **static_environment(spec)},
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                self._link.close()
                raise
        self._link.send(messages.encode(messages.Configure(spec)))
        self._link.setblocking(False)
        # True once it has said Warmed.
        self.is_warm = False
        # Orders that did not fit into the socket's buffer.
        self._waiting: list[messages.Fork] = []

    def fileno(self) -> int:
        """Readable when it says something, or is gone."""
        return self._link.fileno()

    @property
    def is_waiting(self) -> bool:
        """True while orders wait for room: call `fork` with nothing, soon."""
        return bool(self._waiting)

    def fork(self, *orders: messages.Fork) -> None:
        """Order engines; never blocks. While it warms up the orders wait in the socket."""
        self._waiting += orders
        while self._waiting:
            try:
                self._link.send(messages.encode(self._waiting[0]))
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._waiting.clear()  # it is gone: `receive` says so
                return
            del self._waiting[0]

    def receive(self) -> tuple[list[messages.FromZygote], bool]:
        """(what it says, False when it is gone)."""
        received: list[messages.FromZygote] = []
        while len(received) < _BURST:
            try:
                packet = self._link.recv(messages.MAX_PACKET)
            except BlockingIOError:
                break
            except ConnectionResetError:
                packet = b""
            if not packet:
                return received, False
            message = messages.decode_from_zygote(packet)
            self.is_warm = self.is_warm or isinstance(message, messages.Warmed)
            received.append(message)
        return received, True

    def close(self) -> int:
        """End it (its engines go on), and reap it; its exit status."""
        self._link.close()
        try:
            return self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # In the middle of a long import it does not read; it holds nothing that could be lost.
            self.process.kill()
            return self.process.wait()


def _interpreter() -> list[str]:
    # -P as we were started: the working directory's modules are not to be imported by the zygote.
    return [sys.executable, "-P"] if sys.flags.safe_path else [sys.executable]
