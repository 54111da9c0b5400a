"""What engines need for tasks of stock ipyparallel clients: 0.2 s of imports and 35 MB, shared when the zygote has done them.

Many engines are worth that at once. Where they are few, the first of them come up without it, because a start is waited for and such a
task may never come; it is made up for when the zygote has nothing to do, for those that come later.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterd.agent.zygote.preload import Probe
from clusterd.core.model import connection
from clusterd.errors import ClusterdError
from clusterd.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.agent.zygote.preload import Finding
    from clusterd.core.model.launch import AgentSpec

MANY: Final = 8
"""From so many engines on they are worth waiting for."""
IDLE_SECONDS: Final = 2.0
"""The zygote has nothing to do when nobody has asked for anything for so long."""
PROBE_SECONDS: Final = 10.0
# numpy: ipyparallel imports it at its first call, where it is installed.
_MODULES: Final = ("numpy", "ipyparallel.serialize", "ipykernel.zmqshell")


class Stock:
    """When, and whether, it is done.

    Args:
        spec: of the agent's set.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self.modules = _modules() if spec.stock or _is_offered(spec.connection_file) else []
        is_large = len(spec.slots) >= MANY
        # To be tried, with the preloads, before the first fork.
        self.at_once = self.modules if is_large else []
        # True while it is to be made up for.
        self.is_pending = bool(self.modules) and not is_large

    def warm(self, findings: Sequence[Finding], rehearse: Callable[[], None]) -> bool:
        """Import and rehearse, where `findings` say that all modules may be imported before a fork; True when that was done."""
        verdicts = {finding.module: finding.verdict for finding in findings}
        if not self.modules or any(verdicts.get(module) != "ok" for module in self.modules):
            return False
        for module in self.modules:
            importlib.import_module(module)
        rehearse()
        return True

    def make_up(self, rehearse: Callable[[], None]) -> bool:
        """Do now what was not done before the first fork; True when that succeeded."""
        self.is_pending = False
        return self.warm(Probe(self.modules, PROBE_SECONDS).finish(), rehearse)


def _is_offered(connection_file: str) -> bool:
    """True when there is a controller, and it takes stock clients."""
    try:
        return connection.decode(files.read_private(Path(connection_file)), connection_file).stock is not None
    except (OSError, ClusterdError):
        return False


def _modules() -> list[str]:
    """The modules to import; none where ipyparallel is not installed."""
    found = [name for name in _MODULES if importlib.util.find_spec(name.partition(".")[0]) is not None]
    return found if _MODULES[1] in found else []
