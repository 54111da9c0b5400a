"""ipyparallel and ipykernel as libraries: what pickles of stock clients name, and the shell and comms that their functions ask for.

Both are optional. They are imported by the zygote where stock sockets exist, else by the first task that needs them.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from clusterd.engine.shell import EngineShell
from clusterd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.engine.stock.kernel import Kernel
    from clusterd.engine.stock.live import Live

SERIALIZE = "ipyparallel.serialize"
_KERNEL_SHELL = "ipykernel.zmqshell"
_COMMS = "comm.base_comm"


def load(shell: EngineShell, kernel: Kernel | None = None) -> Any:
    """The module that packs arguments and results; the shell becomes what ipyparallel's functions expect.

    `kernel` is what they find as the shell's. Functions are to be called through it: `use_dill` and its like swap the pickler inside.

    Raises:
        TaskError: it is not installed, or does not import.
    """
    try:
        module = importlib.import_module(SERIALIZE)
        kernel_shell = importlib.import_module(_KERNEL_SHELL)
    except ImportError as error:
        raise TaskError(
            f"this engine cannot read what an ipyparallel client sends: {error}",
            hint=f"Install it where the engines run: pip install 'clusterd[ipyparallel]' (for {sys.executable}).",
        ) from error
    _adopt(shell, kernel_shell.ZMQInteractiveShell)
    # The class has the name for it.
    shell.kernel = kernel
    return module


def _adopt(shell: EngineShell, kernel_class: type[Any]) -> None:
    """Make `kernel_class.instance()` return the shell, as functions of ipyparallel and others do to find it.

    The shell exists before anybody knows whether ipykernel does, and a second one would have another namespace. So its class becomes
    one that is ipykernel's too, by name: what ipykernel does differently stays as it is here.
    """
    if isinstance(shell, kernel_class):
        return
    ours = {
        name: getattr(InteractiveShell, name)
        for name, value in vars(kernel_class).items()
        if isinstance(value, types.FunctionType) and hasattr(InteractiveShell, name) and name not in vars(EngineShell)
    }
    publisher = DataPublisher(shell)
    # A property: IPython has set the attribute to None.
    ours |= {"data_pub": property(lambda _: publisher), "__doc__": EngineShell.__doc__, "__module__": __name__}
    shell.__class__ = type("StockShell", (type(shell), kernel_class), ours)


class DataPublisher:
    """What `ipyparallel.datapub.publish_data` uses."""

    def __init__(self, shell: EngineShell) -> None:
        self._shell = shell

    def publish_data(self, data: dict[str, Any]) -> None:
        """Send a dict to the client of the running task."""
        if self._shell.live is not None:
            frames = importlib.import_module(SERIALIZE).serialize_object(data)
            self._shell.live.publish("data_message", {"keys": list(data)}, frames=frames)


class Comms:
    """Makes `comm.create_comm` publish through us.

    Args:
        live: where to.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._create: Callable[..., Any] | None = None

    def install(self) -> None:
        """Take the place that the package `comm` keeps for this, and take it again where somebody else has; without it do nothing."""
        package = sys.modules.get("comm")
        if package is not None and (self._create is None or package.create_comm is not self._create):
            self._create = self._create or self._maker()
            package.create_comm = self._create  # type: ignore[attr-defined]

    def receive(self, what: str, message: dict[str, Any]) -> None:
        """A comm message from a client."""
        package = importlib.import_module("comm")
        self.install()
        getattr(package.get_comm_manager(), what)(None, None, message)

    def _maker(self) -> Callable[..., Any]:
        base = importlib.import_module(_COMMS).BaseComm
        live = self._live

        class EngineComm(base):  # type: ignore[misc,valid-type]
            """A comm of a task."""

            def publish_msg(
                self,
                msg_type: str,
                data: dict[str, Any] | None = None,
                metadata: dict[str, Any] | None = None,
                buffers: Sequence[Any] | None = None,
                **keys: Any,
            ) -> None:
                """Send one message of it."""
                content = {"data": data or {}, "comm_id": self.comm_id, **keys}
                live.publish(msg_type, content, metadata, buffers or ())

        return EngineComm
