"""What the supervisor needs to know of a profile and its launchers. Not journaled: the profile is its source.

A launcher is *elastic* (`capacity` is None: one launch per engine set, whose agent takes any slots; scaling is a message) or
of *fixed capacity* (each launch carries so many slots; scaling is more or fewer launches).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from clusterd.core.model.profile import RestartPolicy

if TYPE_CHECKING:
    from clusterd.core.model.profile import Profile

__all__ = ["AGENT_MARGIN", "LauncherTraits", "Settings", "UnitSettings", "from_profile"]

AGENT_MARGIN: Final = 5.0
"""Seconds that an agent gets beyond its engines' stop_timeout: it kills them itself first, then says goodbye."""


class LauncherTraits(Struct, frozen=True):
    """How a launcher behaves.

    Attributes:
        capacity: slots that one launch carries, None for any number.
        has_queue: launches are jobs: they are submitted, may wait, and are found by queries. Otherwise processes.
        leaves_engines: engines outlive an agent that dies, so somebody must see to them.
        poll_interval: seconds between queries while there are jobs.
        settle: seconds after the end of a submission until a query that does not show the job proves that there is none:
            the submission may still be under way (a killed daemon's `sbatch` goes on), and the server may show it late.
    """

    capacity: int | None = None
    has_queue: bool = False
    leaves_engines: bool = True
    poll_interval: float = 15.0
    settle: float = 30.0


class UnitSettings(Struct, frozen=True, kw_only=True):
    """One unit: the controller, or an engine set.

    Attributes:
        n: engines wanted at start (a controller: 1).
        max: most that may be asked for.
        traits: of its launcher.
        restart: what follows an end that nobody asked for.
        start_timeout: seconds from running until ready; time in a queue or without a controller does not count.
        stop_timeout: seconds between asking and killing.
        drain_timeout: seconds a task may go on when its engine is scaled away; None: until it is done.
    """

    n: int = 1
    max: int = 1
    traits: LauncherTraits = LauncherTraits()
    restart: RestartPolicy = RestartPolicy()
    start_timeout: float = 60.0
    stop_timeout: float = 10.0
    drain_timeout: float | None = 30.0


class Settings(Struct, frozen=True):
    """All units of a profile."""

    controller: UnitSettings
    sets: dict[str, UnitSettings]

    @property
    def longest_stop(self) -> float:
        """Return the seconds that any unit may take to end."""
        return max([self.controller.stop_timeout, *(unit.stop_timeout for unit in self.sets.values())])


LOCAL: Final = LauncherTraits()
# What kind of thing each launcher of the profile is.
_TRAITS: Final[dict[str, LauncherTraits]] = {"local": LOCAL}


def from_profile(profile: Profile) -> Settings:
    """Return the settings that a profile asks for."""
    controller = profile.controller
    return Settings(
        UnitSettings(
            traits=_TRAITS[controller.launcher],
            restart=controller.restart,
            start_timeout=controller.start_timeout,
            stop_timeout=controller.stop_timeout,
        ),
        {
            name: UnitSettings(
                n=section.n,
                max=section.max,
                traits=_TRAITS[section.launcher],
                restart=section.restart,
                start_timeout=section.start_timeout,
                stop_timeout=section.stop_timeout + AGENT_MARGIN,
                drain_timeout=section.drain_timeout,
            )
            for name, section in profile.engine_sets.items()
        },
    )
