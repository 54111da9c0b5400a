"""What differs from engine to engine on one node: environment, cores, GPUs, by its rank among those of the set here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clusterd.core.model import placeholder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.model.launch import AgentSpec

T = TypeVar("T")
_GPUS = "CUDA_VISIBLE_DEVICES"


class Placement:
    """Gives ranks, and what follows from them.

    Args:
        spec: of the set.
        cores: that this agent may use, ascending.
        gpus: names of the GPUs that it may use.
    """

    def __init__(self, spec: AgentSpec, cores: Sequence[int], gpus: Sequence[str]) -> None:
        self._spec = spec
        self._cores = list(cores)
        self._gpus = list(gpus)
        # By slot: the lowest number that was free; kept as long as the slot is, so that two live engines never share one.
        self._ranks: dict[int, int] = {}

    def rank(self, slot: int) -> int:
        """The slot's rank."""
        rank = self._ranks.get(slot)
        if rank is None:
            taken = set(self._ranks.values())
            rank = next(number for number in range(len(taken) + 1) if number not in taken)
            self._ranks[slot] = rank
        return rank

    def keep_only(self, slots: Sequence[int]) -> None:
        """Give back the ranks of all other slots."""
        kept = set(slots)
        self._ranks = {slot: rank for slot, rank in self._ranks.items() if slot in kept}

    def environment(self, slot: int, n: int) -> dict[str, str]:
        """Variables of the slot's engine, placeholders expanded."""
        spec, rank = self._spec, self.rank(slot)
        result = {
            name: placeholder.expand(value, local_rank=rank, slot=slot, engine_set=spec.engine_set, n=n)
            for name, value in spec.env.items()
        }
        if spec.gpus_per_engine and self._gpus and _GPUS not in result:
            result[_GPUS] = ",".join(_share(self._gpus, rank, spec.gpus_per_engine))
        return result

    def cpus(self, slot: int) -> list[int]:
        """Cores to pin the slot's engine to; empty for none."""
        if not self._spec.bind or not self._cores:
            return []
        return sorted(_share(self._cores, self.rank(slot), self._spec.cpus_per_engine))

    def warnings(self, wanted: int) -> list[str]:
        """What cannot be given to `wanted` engines without sharing."""
        found = []
        spec = self._spec
        if spec.bind and wanted * spec.cpus_per_engine > len(self._cores):
            found.append(
                f"{wanted} engines with {spec.cpus_per_engine} cores each share {len(self._cores)} cores on this node"
            )
        if spec.gpus_per_engine and wanted * spec.gpus_per_engine > len(self._gpus):
            found.append(
                f"{wanted} engines with {spec.gpus_per_engine} GPUs each share {len(self._gpus)} GPUs on this node"
            )
        return found


def _share(things: list[T], rank: int, each: int) -> list[T]:
    """The part of `things` for a rank; when they do not suffice, ranks share."""
    first = rank * each
    return [things[index % len(things)] for index in range(first, first + min(each, len(things)))]


def cores_here() -> list[int]:
    """Cores that this process may run on: a batch system's cpuset is respected."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def gpus_here() -> list[str]:
    """GPUs that this process may use: those that a batch system gave, else all."""
    given = os.environ.get(_GPUS)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(numbers, key=int)


def static_environment(spec: AgentSpec) -> dict[str, str]:
    """The variables that are the same for all engines: the zygote has them before its first import."""
    return {name: value for name, value in spec.env.items() if "{" not in value and "}" not in value}
