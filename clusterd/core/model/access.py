"""DECIDES who may do what with a cluster: the section `access` of a profile, what each right brings with it, who holds which.

Names become numbers elsewhere (the user directory may be slow or away); here are numbers alone: a caller's uid and gids against
those that were granted something. What is not known grants nothing. Root and the owner of the daemon are asked nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct, field

from clusterd.core.model.setting import form, setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "IMPLIED",
    "RIGHTS",
    "Access",
    "Granted",
    "Need",
    "Numbers",
    "Right",
    "Subjects",
    "givers",
    "holders",
    "numbers_of",
    "rights_of",
    "strongest",
]

Right: TypeAlias = Literal["admin", "operate", "connect", "view"]
Need: TypeAlias = tuple[Right, ...]
"""Any one of these is enough."""

RIGHTS: Final[Need] = ("admin", "operate", "connect", "view")
"""All, the strongest first."""

IMPLIED: Final[dict[Right, frozenset[Right]]] = {
    "admin": frozenset(RIGHTS),
    # Who looks after a cluster need not be able to compute on it, and the reverse.
    "operate": frozenset({"operate", "view"}),
    "connect": frozenset({"connect", "view"}),
    "view": frozenset({"view"}),
}
"""Right -> itself, and what comes with it."""

# As directories have them: `alice`, `alice@corp.example`, `CORP\\alice`, `domain users`; not what would be read as a list or an option.
_NAME = Annotated[str, form(r"^[^\s:,/#-][^:,/\x00-\x1f\x7f]{0,254}$", "the name of a user or group", max_length=255)]


class Subjects(Struct, frozen=True, kw_only=True):
    """Who has one right."""

    users: Annotated[list[_NAME], setting("Users, by login name.", "live", example=["alice", "bob"])] = field(
        default_factory=list
    )
    groups: Annotated[
        list[_NAME], setting("Groups, whatever way their members are in them.", "live", example=["hpc-users"])
    ] = field(default_factory=list)


class Access(Struct, frozen=True, kw_only=True):
    """Who may use the cluster, beside root and the user that the daemon runs as. Without it: nobody else."""

    admin: Annotated[
        Subjects, setting("Everything: reload the profile, change keys, and all of the below.", "live")
    ] = Subjects()
    operate: Annotated[
        Subjects,
        setting("Start, stop, scale, restart; interrupt and kill engines; logs and records of tasks; view.", "live"),
    ] = Subjects()
    connect: Annotated[
        Subjects,
        setting(
            "Run code on the engines, as the user that they run as, which is all that this user can do; logs and records of tasks; view.",
            "live",
        ),
    ] = Subjects()
    view: Annotated[
        Subjects, setting("See status, engines and events, without anything that users' code has printed.", "live")
    ] = Subjects()

    def of(self, right: Right) -> Subjects:
        """Return who is named for a right itself."""
        subjects: Subjects = getattr(self, right)
        return subjects

    @property
    def is_closed(self) -> bool:
        """Nobody is named."""
        return not any(self.of(right).users or self.of(right).groups for right in RIGHTS)

    @property
    def users(self) -> set[str]:
        """All users that are named."""
        return {name for right in RIGHTS for name in self.of(right).users}

    @property
    def groups(self) -> set[str]:
        """All groups that are named."""
        return {name for right in RIGHTS for name in self.of(right).groups}


class Numbers(NamedTuple):
    """Users and groups as the kernel knows them."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()


Granted: TypeAlias = "Mapping[Right, Numbers]"
"""Who was named for each right; rights that are missing were given to nobody."""


def numbers_of(access: Access, uids: Mapping[str, int], gids: Mapping[str, int]) -> dict[Right, Numbers]:
    """Return an access section in numbers; names without one are left out, and so grant nothing."""
    return {
        right: Numbers(
            frozenset(uids[name] for name in access.of(right).users if name in uids),
            frozenset(gids[name] for name in access.of(right).groups if name in gids),
        )
        for right in RIGHTS
    }


def rights_of(granted: Granted, uid: int, gids: Iterable[int]) -> frozenset[Right]:
    """Return what a caller may do."""
    own = frozenset(gids)
    held: set[Right] = set()
    for right, numbers in granted.items():
        if uid in numbers.uids or own & numbers.gids:
            held |= IMPLIED[right]
    return frozenset(held)


def holders(granted: Granted, right: Right) -> Numbers:
    """Return everybody who has a right, by name or because it comes with a stronger one."""
    found = [numbers for stronger, numbers in granted.items() if right in IMPLIED[stronger]]
    return Numbers(
        frozenset().union(*(numbers.uids for numbers in found)), frozenset().union(*(numbers.gids for numbers in found))
    )


def givers(access: Access) -> list[str]:
    """Return who can be asked for a right, as people name them."""
    return [*access.admin.users, *(f"group {name}" for name in access.admin.groups)]


def strongest(held: frozenset[Right]) -> list[Right]:
    """Return rights without those that come with another one of them, for a sentence."""
    return [right for right in RIGHTS if right in held and not any(right in IMPLIED[other] - {other} for other in held)]
