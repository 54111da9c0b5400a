"""The keys of one side of the wire (clients, engines): the present one, and earlier ones as long as they are accepted or remembered.

An earlier key that is not accepted any more still serves to verify a Hello: its sender is told what has happened, under that key, and
learns nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clusterd.core.wire.session import is_signed
from clusterd.errors import KeyChanged

if TYPE_CHECKING:
    from collections.abc import Iterable


class Key:
    """One key of one side.

    Attributes:
        value: 32 bytes.
        changed_at: wall time at which another took its place; 0.0 while it is the present one.
        is_accepted: who has it may attach, and remain.
    """

    __slots__ = ("changed_at", "is_accepted", "value")

    def __init__(self, value: bytes, changed_at: float = 0.0, *, is_accepted: bool = True) -> None:
        self.value = value
        self.changed_at = changed_at
        self.is_accepted = is_accepted

    def refusal(self) -> KeyChanged:
        """What who comes with this key is told."""
        then = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self.changed_at))
        return KeyChanged(
            f"the key of this cluster was changed at {then}; read the connection file again",
            hint="A copy of the file has to be copied anew: `clusterctl connect` says where the file is.",
        )


class Ring:
    """All keys of one side.

    Args:
        present: the present key.
        earlier: those before it, the last one first.
    """

    def __init__(self, present: bytes, earlier: Iterable[Key] = ()) -> None:
        self.present = Key(present)
        self.earlier = list(earlier)

    def of(self, mac: bytes, header: bytes) -> Key | None:
        """The key that a message is signed with."""
        if is_signed(self.present.value, mac, header):
            return self.present
        for key in self.earlier:
            if is_signed(key.value, mac, header):
                return key
        return None

    def change(self, value: bytes, changed_at: float) -> None:
        """Have a new key. The present one is accepted until `refuse_earlier`; those before it are no longer."""
        self.refuse_earlier()
        self.present.changed_at = changed_at
        self.earlier.insert(0, self.present)
        self.present = Key(value)

    def refuse_earlier(self) -> None:
        """Accept the present key alone."""
        for key in self.earlier:
            key.is_accepted = False
