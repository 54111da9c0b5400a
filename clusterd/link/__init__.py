"""The peers' end of the native wire: one ZeroMQ DEALER that dials, proves itself, and dials again.

Written once for client, engine, agent and daemon, which may not import each other. It performs what `core.wire` decides,
has no thread and never blocks unless asked (`wait`); it knows no message but the handshake.
"""

from clusterd.link.dealer import Down, Link, Received, Refusal, Up

__all__ = ["Down", "Link", "Received", "Refusal", "Up"]
