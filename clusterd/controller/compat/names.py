"""What engines are called on the stock wire: one string is an engine's identity, session and uuid there.

A stock engine has chosen it; one of ours is called by its 16 bytes in hex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterd.controller.hub import Hub
    from clusterd.controller.peers import Engine

_HEX_LENGTH = 32


def name_of(engine: Engine) -> str:
    """The engine's uuid as stock clients know it."""
    return engine.uuid.hex() if engine.door is None else engine.uuid.decode("ascii", "replace")


def find(hub: Hub, name: bytes) -> Engine | None:
    """The engine that is called so; None where there is none (any more)."""
    if len(name) == _HEX_LENGTH:
        try:
            engine = hub.engines.get(bytes.fromhex(name.decode("ascii")))
        except ValueError:
            engine = None
        if engine is not None and engine.door is None:
            return engine
    engine = hub.engines.get(name)
    return engine if engine is not None and engine.door is not None else None


def no_engine(name: bytes) -> str:
    """What clients are told where `find` finds none."""
    return f"there is no engine {name.decode('ascii', 'replace')!r} (any more)"
