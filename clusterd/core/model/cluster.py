"""A cluster: a running controller with its engine sets. One cluster, one uid, one domain of trust."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Cluster"]


class Cluster(Struct, frozen=True):
    """Who a cluster is.

    Attributes:
        name: the profile's name; what `clusterctl -p` takes.
        instance: 8 hex digits, chosen at random when its journal was begun; part of every launch id.
        uid: the user as whom everything of it runs, and who may command it.
    """

    name: str
    instance: str
    uid: int
