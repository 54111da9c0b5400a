"""Puts the client file where other programs look for it, and takes it away again."""

from __future__ import annotations

from clusterd.publish.ipython import Owner, owner_of, place, publish, publish_file, withdraw

__all__ = ["Owner", "owner_of", "place", "publish", "publish_file", "withdraw"]
