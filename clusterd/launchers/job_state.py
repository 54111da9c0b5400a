"""What is known of a job: its state in one vocabulary for all batch systems, and alive, gone, or unknown since when.

`JobState` is what a system said, told apart as far as it tells: why it waits, who holds it, how it ended. `Standing` is what
follows for us. The rules: an end is believed only when the system itself shows it (its queue's record, its accounting, or its
word that it does not know an id that it once gave); an error, silence, or what cannot be read changes nothing but the age of
what is known; a question put before another never corrects its answer. Pure: times are arguments.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

__all__ = [
    "CAUSES",
    "Alive",
    "Cause",
    "Completing",
    "Ended",
    "Gone",
    "Held",
    "Holder",
    "JobState",
    "Pending",
    "Requeued",
    "Running",
    "Standing",
    "Suspended",
    "Unclear",
    "UnknownSince",
    "after_silence",
    "after_word",
    "age",
    "in_words",
    "is_failure",
]

Holder = Literal["user", "operator", "system", "dependency", "error", "unknown"]
"""Who holds a job. error: the system gave up starting it (Eqw, too many failed attempts); it waits for a person."""

Cause = Literal[
    "exit",
    "signal",
    "walltime",
    "limit",
    "out_of_memory",
    "preempted",
    "node_failure",
    "cancelled",
    "start_failure",
    "unknown",
]
"""How a job ended. limit: another resource's limit, or the system does not say which. start_failure: its script never ran."""
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

# The job did what it was told, somebody took it away, or it had its time: nothing of ours is broken.
_NO_FAILURE: Final = frozenset({"walltime", "preempted", "cancelled"})


class Pending(Struct, frozen=True, tag=True):
    """It waits for its turn, for as long as the system likes.

    Attributes:
        reason: the system's own words, empty when it gives none.
        is_hopeless: the system says that it can never run as things are; somebody has to change the job or the cluster.
    """

    reason: str = ""
    is_hopeless: bool = False


class Running(Struct, frozen=True, tag=True):
    """It has its nodes.

    Attributes:
        nodes: their names as the system writes them (`n[1-4]`, `n1/0*4+n2/0*4`), empty when it does not say.
    """

    nodes: str = ""


class Held(Struct, frozen=True, tag=True):
    """It waits until somebody, or another job, lets it go."""

    by: Holder
    reason: str = ""


class Suspended(Struct, frozen=True, tag=True):
    """It has its nodes and stands still: its engines are silent, and alive."""

    reason: str = ""


class Requeued(Struct, frozen=True, tag=True):
    """It ran, was taken from its nodes, and waits to run again under the same id: its engines are gone."""

    reason: str = ""


class Completing(Struct, frozen=True, tag=True):
    """It is being ended or tidied up after; its engines are gone or about to be. Not yet an end: it may take minutes."""

    reason: str = ""


class Ended(Struct, frozen=True, tag=True):
    """It is over.

    Attributes:
        cause: as far as the system tells.
        exit_code: of the script, None when it is not known or there was none.
        signal: that ended it, likewise.
        reason: the system's own words.
    """

    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""


class Unclear(Struct, frozen=True, tag=True):
    """The system shows the job, and not in what state it is (a node's daemon is silent), or in words that we do not know."""

    reason: str = ""


JobState: TypeAlias = Pending | Running | Held | Suspended | Requeued | Completing | Ended | Unclear


class Alive(Struct, frozen=True, tag=True):
    """The job exists.

    Attributes:
        state: what the system said last.
        asked_at: when the question was put to which it said so.
        evidence: how that is known: `squeue: RUNNING`.
    """

    state: JobState
    asked_at: float
    evidence: str


class Gone(Struct, frozen=True, tag=True):
    """The job is over, by positive evidence. Final: nothing brings it back.

    Attributes:
        end: how it ended.
        asked_at: when the question was put that showed it.
        evidence: how that is known: `sacct: FAILED 7:0`.
    """

    end: Ended
    asked_at: float
    evidence: str


class UnknownSince(Struct, frozen=True, tag=True):
    """Nobody can say at present.

    Attributes:
        since: the first question without an answer.
        asked_at: the last one.
        evidence: why there is none: `squeue: exit status 1: Unable to contact slurm controller`.
        last: what was known before; None when nothing ever was.
    """

    since: float
    asked_at: float
    evidence: str
    last: Alive | None = None


Standing: TypeAlias = Alive | Gone | UnknownSince


def after_word(before: Standing | None, state: JobState, asked_at: float, evidence: str) -> Standing:
    """Return what is known after the system spoke of the job.

    Args:
        before: what was known; None for a job that nothing was asked about.
        state: what it said.
        asked_at: when the question was put.
        evidence: how it is known.
    """
    if isinstance(before, Gone) or _is_older(before, asked_at):
        return before  # type: ignore[return-value]  # _is_older is false for None
    match state:
        case Ended():
            return Gone(state, asked_at, evidence)
        case Unclear():
            return after_silence(before, asked_at, evidence)
        case _:
            return Alive(state, asked_at, evidence)


def after_silence(before: Standing | None, asked_at: float, evidence: str) -> Standing:
    """Return what is known after a question that said nothing of the job: failed, timed out, unreadable, or without it.

    Args:
        before: what was known; None for a job that nothing was asked about.
        asked_at: when the question was put.
        evidence: why it said nothing.
    """
    match before:
        case None:
            return UnknownSince(asked_at, asked_at, evidence)
        case Gone():
            return before
        case _ if _is_older(before, asked_at):
            return before
        case Alive():
            return UnknownSince(asked_at, asked_at, evidence, before)
        case UnknownSince():
            return UnknownSince(before.since, asked_at, evidence, before.last)


def _is_older(before: Standing | None, asked_at: float) -> bool:
    return before is not None and asked_at < before.asked_at


def age(standing: Standing, now: float) -> float:
    """Return how old the knowledge is, in seconds: of what is unknown, for how long it has been so."""
    return now - (standing.since if isinstance(standing, UnknownSince) else standing.asked_at)


def is_failure(end: Ended) -> bool:
    """Say whether something is broken: not after the end of its time, a cancellation or a preemption.

    An end of unknown cause is a failure: nobody can say that it was none, and it is restarted with patience.
    """
    if end.cause == "exit":
        return end.exit_code != 0
    return end.cause not in _NO_FAILURE


_ENDS: Final[dict[Cause, str]] = {
    "exit": "ended",
    "signal": "was killed",
    "walltime": "reached its walltime",
    "limit": "exceeded a limit",
    "out_of_memory": "ran out of memory",
    "preempted": "was preempted",
    "node_failure": "lost its node",
    "cancelled": "was cancelled",
    "start_failure": "could not be started",
    "unknown": "ended, how is not known",
}


def in_words(state: JobState) -> str:  # noqa: C901, PLR0912 - one case per state
    """Return a state as the rest of a sentence that begins with `the job`: `was killed (signal 9): ...`."""
    match state:
        case Pending(is_hopeless=True):
            text = "can never run as things are"
        case Pending():
            text = "is pending"
        case Running():
            text = "is running"
        case Held(by="error"):
            text = "is held after an error"
        case Held(by="dependency"):
            text = "waits for another job"
        case Held():
            text = "is held" if state.by == "unknown" else f"is held by {state.by}"
        case Suspended():
            text = "is suspended"
        case Requeued():
            text = "was requeued and waits"
        case Completing():
            text = "is completing"
        case Unclear():
            text = "is in an unclear state"
        case Ended():
            text = _ENDS[state.cause]
            if state.signal is not None:
                text += f" (signal {state.signal})"
            elif state.exit_code is not None:
                text += f" (exit status {state.exit_code})"
    words = state.nodes if isinstance(state, Running) else state.reason
    if not words:
        return text
    return f"{text} on {words}" if isinstance(state, Running) else f"{text}: {words}"
