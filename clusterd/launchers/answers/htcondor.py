"""HTCondor: `condor_q -json`, `condor_history -json`; written for the documented attributes of 10.x to 25.x.

HTCondor Manual, condor_q(1) and condor_history(1) (-json, -attributes), "Job ClassAd Attributes" (JobStatus, ExitBySignal,
ExitCode, ExitSignal, HoldReason, HoldReasonCode, RemoveReason, NumShadowStarts). The queue has a job until it is completed or
removed; then the history has it. An empty list is an empty document, or `[]`, by release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.launchers.answers.answer import JobReport, Reading
from clusterd.launchers.answers.lenient import Unreadable, load, text, whole
from clusterd.launchers.job_state import (
    Completing,
    Ended,
    Held,
    JobState,
    Pending,
    Requeued,
    Running,
    Suspended,
    Unclear,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterd.launchers.answers.answer import Answer, Reply
    from clusterd.launchers.job_state import Cause

__all__ = ["ATTRIBUTES", "from_condor_history", "from_condor_q"]

ATTRIBUTES: Final = (
    "ClusterId,ProcId,JobStatus,JobBatchName,Owner,RemoteHost,ExitBySignal,ExitCode,ExitSignal,"
    "HoldReason,HoldReasonCode,RemoveReason,NumShadowStarts,LastRemoteHost"
)
"""For `-attributes`."""

_STATUS: Final = {
    1: "Idle",
    2: "Running",
    3: "Removed",
    4: "Completed",
    5: "Held",
    6: "Transferring output",
    7: "Suspended",
}
# HoldReasonCode: 1 by the user, 15 submitted on hold, 16 input is being spooled, 3 to 5 by expressions of job and pool.
_HELD_BY_USER: Final = frozenset({1, 15})
_HELD_BY_SYSTEM: Final = frozenset({3, 4, 5, 16, 26, 27, 34, 45, 46, 47})
_REMOVALS: Final[tuple[tuple[str, Cause], ...]] = (
    ("memory", "out_of_memory"),
    ("allowedjobduration", "walltime"),
    ("allowedexecuteduration", "walltime"),
    ("preempt", "preempted"),
)


def from_condor_q(reply: Reply, asked: Sequence[str] = ()) -> Answer:
    """Read `condor_q -json -attributes ATTRIBUTES [ID...]`.

    Args:
        reply: what it said.
        asked: the ids that it was given; empty when it was to list all of a user's.
    """
    return _read("condor_q", reply, is_list=not asked)


def from_condor_history(reply: Reply) -> Answer:
    """Read `condor_history -json -attributes ATTRIBUTES ID...`."""
    return _read("condor_history", reply, is_list=False)


def _read(source: str, reply: Reply, *, is_list: bool) -> Answer:
    reading = Reading(source, is_list=is_list)
    if reply.status:
        reading.failed(reply)
        return reading.answer()
    if reply.stderr.strip():
        # "-- Failed to fetch ads from", with several schedulers also beside what others said.
        reading.problem(f"{source}: {reply.first_words}")
    try:
        ads = load(reply.stdout) if reply.stdout.strip() else []
    except Unreadable as error:
        reading.problem(f"{source}: {error}")
        return reading.answer()
    if not isinstance(ads, list):
        reading.problem(f"{source}: JSON that is no list")
        return reading.answer()
    for ad in ads:
        _add(reading, ad if isinstance(ad, dict) else {})
    return reading.answer()


def _add(reading: Reading, ad: Mapping[str, Any]) -> None:
    cluster, process, status = (whole(ad.get(name)) for name in ("ClusterId", "ProcId", "JobStatus"))
    if cluster is None or process is None or status is None:
        reading.problem(f"{reading.source}: a job without ClusterId, ProcId or JobStatus")
        return
    starts = whole(ad.get("NumShadowStarts"))
    reading.add(
        JobReport(
            id=f"{cluster}.{process}",
            state=_state(status, starts or 0, ad, is_queue=reading.source == "condor_q"),
            words=_STATUS.get(status, f"JobStatus {status}"),
            name=text(ad.get("JobBatchName")),
            owner=text(ad.get("Owner")),
            starts=starts,
        )
    )


def _state(status: int, starts: int, ad: Mapping[str, Any], *, is_queue: bool) -> JobState:  # noqa: PLR0911 - one case per status
    match status:
        case 1 if starts:
            return Requeued("evicted from " + (text(ad.get("LastRemoteHost")) or "its machine"))
        case 1:
            return Pending()
        case 2:
            return Running(text(ad.get("RemoteHost")))
        case 3 if is_queue:
            # It stays in the queue while its machine has not confirmed.
            return Completing(text(ad.get("RemoveReason")) or "removed")
        case 3:
            return _removed(text(ad.get("RemoveReason")))
        case 4:
            return _completed(ad)
        case 5:
            return _held(ad)
        case 6:
            return Completing("its output is being transferred")
        case 7:
            return Suspended()
        case _:
            return Unclear(f"JobStatus {status}")


def _removed(reason: str) -> Ended:
    words = reason.lower().replace("_", "")
    for word, cause in _REMOVALS:
        if word in words:
            return Ended(cause, reason=reason)
    return Ended("cancelled", reason=reason)


def _completed(ad: Mapping[str, Any]) -> Ended:
    if ad.get("ExitBySignal") is True:
        return Ended("signal", signal=whole(ad.get("ExitSignal")))
    code = whole(ad.get("ExitCode"))
    return Ended("unknown", reason="completed, without ExitCode") if code is None else Ended("exit", code)


def _held(ad: Mapping[str, Any]) -> Held:
    code, reason = whole(ad.get("HoldReasonCode")), text(ad.get("HoldReason"))
    if code in _HELD_BY_USER:
        return Held("user", reason)
    # Whatever else is a failure to start it, to fetch its input or to deliver its output: somebody has to look.
    return Held("system" if code in _HELD_BY_SYSTEM else "error", reason)
