"""What clusterctl ends with, as one table: the manual, `clusterctl help exit-codes` and the code read it here.

Numbers are never given a new meaning: scripts depend on them.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BY_ERROR", "MEANINGS", "of"]

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
DENIED: Final = 4
REFUSED: Final = 5
NOT_CONVERGED: Final = 6
PROFILE: Final = 7
NO_ANSWER: Final = 8
INTERRUPTED: Final = 130

MEANINGS: dict[int, str] = {
    DONE: "Done; with --wait: the cluster is as wished.",
    FAILED: "Something unexpected went wrong; the message says what.",
    USAGE: "The command line is wrong, or does not say which of several daemons is meant.",
    NO_DAEMON: "No daemon runs for this profile.",
    DENIED: "You lack the right to do this; the message says which one, and who can give it.",
    REFUSED: "The daemon refused, or could not do it; nothing was changed.",
    NOT_CONVERGED: "The wish is recorded and pursued, but did not come true in time, or cannot without help.",
    PROFILE: "The profile is wrong or missing.",
    NO_ANSWER: "The daemon is there but did not answer in time.",
    INTERRUPTED: "Interrupted with Ctrl-C; what was asked for is still being done.",
}

BY_ERROR: dict[str, int] = {
    "no_daemon": NO_DAEMON,
    "denied": DENIED,
    "not_private": DENIED,
    "refused": REFUSED,
    "bad_request": REFUSED,
    "not_found": REFUSED,
    "wrong_method": REFUSED,
    "too_large": REFUSED,
    "locked": REFUSED,
    "launch": REFUSED,
    "connection_file": REFUSED,
    "controller_lost": REFUSED,
    "bad_query": REFUSED,
    "unknown_task": REFUSED,
    "no_records": REFUSED,
    "not_converged": NOT_CONVERGED,
    "profile": PROFILE,
    "no_answer": NO_ANSWER,
    "cut_short": NO_ANSWER,
    "usage": USAGE,
}
"""Code of a clusterd.errors.ClusterdError -> what to end with."""


def of(code: str) -> int:
    """Return the exit code for an error code; FAILED for those that mean a defect or a broken machine."""
    return BY_ERROR.get(code, FAILED)
