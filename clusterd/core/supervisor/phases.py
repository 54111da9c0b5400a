"""What is known of a launch, and how each fact changes that. A table, total over phases and facts.

The heart of it: `absent` does not end a launch whose request is still on its way (nobody could have seen it yet), and
nothing but a certain fact ends anything. An unanswered or failed query is no fact at all and has no column here.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["TRANSITIONS", "Fact", "Phase"]


class Phase(Enum):
    """What is known of a launch."""

    REQUESTED = "requested"
    """This process has asked for it and has no answer yet. It may or may not run."""
    UNRESOLVED = "unresolved"
    """The answer was lost, or an earlier daemon asked. It may or may not run; adoption or a query will tell."""
    PRESENT = "present"
    """It certainly came to be, and nothing says that it ended. A job may be queued."""
    ENDED = "ended"
    """It certainly does not run and never will. Final: the launch is recorded as ended and forgotten."""


class Fact(Enum):
    """What can be learnt about a launch."""

    ACCEPTED = "accepted"
    """The operating or batch system said yes and gave an identity or a job id."""
    REFUSED = "refused"
    """It said no: nothing was started, and nothing will be."""
    UNCERTAIN = "uncertain"
    """The answer was lost: neither yes nor no."""
    SEEN = "seen"
    """Adoption, a query or a message of its own shows it alive or queued."""
    ABSENT = "absent"
    """Adoption or a query that was asked late enough does not show it."""
    EXITED = "exited"
    """The pidfd, or the batch system's own record, says that it is over."""


TRANSITIONS: Final[dict[Phase, dict[Fact, Phase]]] = {
    Phase.REQUESTED: {
        Fact.ACCEPTED: Phase.PRESENT,
        Fact.REFUSED: Phase.ENDED,
        Fact.UNCERTAIN: Phase.UNRESOLVED,
        Fact.SEEN: Phase.PRESENT,
        Fact.ABSENT: Phase.REQUESTED,
        Fact.EXITED: Phase.ENDED,
    },
    Phase.UNRESOLVED: {
        Fact.ACCEPTED: Phase.PRESENT,
        Fact.REFUSED: Phase.ENDED,
        Fact.UNCERTAIN: Phase.UNRESOLVED,
        Fact.SEEN: Phase.PRESENT,
        Fact.ABSENT: Phase.ENDED,
        Fact.EXITED: Phase.ENDED,
    },
    Phase.PRESENT: {
        Fact.ACCEPTED: Phase.PRESENT,
        # A query saw it before the (late, contradicting) answer came: what was seen is believed.
        Fact.REFUSED: Phase.PRESENT,
        Fact.UNCERTAIN: Phase.PRESENT,
        Fact.SEEN: Phase.PRESENT,
        Fact.ABSENT: Phase.ENDED,
        Fact.EXITED: Phase.ENDED,
    },
    Phase.ENDED: dict.fromkeys(Fact, Phase.ENDED),
}
