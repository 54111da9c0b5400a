"""A Condition that a KeyboardInterrupt cannot leave locked.

`with condition:` runs Python code between taking the lock and entering the block, and the main thread may be interrupted
just there: the lock is then held for ever, and the I/O thread with it. `with gate.lock:` is one instruction.
"""

from __future__ import annotations

import threading


class Gate(threading.Condition):
    """A Condition; enter it by `with gate.lock:`.

    Attributes:
        lock: its lock, an RLock.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        super().__init__(self.lock)
