"""Torque, and Slurm's wrappers for it: `qstat -f` (text) and `qstat -x` (XML).

Torque 6 Administrator Guide, "qstat" (-f, -x), "Job states", "Job exit status" (negative: JOB_EXEC_*; 256 and a signal).
Ended jobs stay as C for keep_completed (300 s by default). The wrappers of slurm-wlm-torque (qstat.pl) print no exit status, show
held jobs as Q, and know neither -x nor `id.server`; an unknown id makes them say nothing, with exit status 153.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clusterd.launchers.answers import xml
from clusterd.launchers.answers.answer import JobReport, Reading
from clusterd.launchers.answers.lenient import Unreadable, whole
from clusterd.launchers.answers.pbs_text import HOLDERS, add_records
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

__all__ = ["from_qstat_text", "from_qstat_xml"]

_ID: Final = re.compile(r"[0-9]+(\[[0-9]*\])?(\.\S+)?")
_UNKNOWN: Final = re.compile(r"qstat: (Unknown Job Id)(?: Error)? (\S+)\s*")
_UNKNOWN_STATUS: Final = 153
_NEGATIVE: Final[dict[int, Cause]] = {
    -4: "node_failure",
    -5: "node_failure",
    -6: "node_failure",
    -10: "out_of_memory",
    -11: "walltime",
    -12: "limit",
}


def from_qstat_text(reply: Reply, asked: Sequence[str] = ()) -> Answer:
    """Read `qstat -f [ID...]`.

    Args:
        reply: what it said.
        asked: the ids that it was given; empty when it was to list all.
    """
    reading = Reading("qstat", is_list=not asked)
    _complaints(reading, reply, asked)
    add_records(reading, reply.stdout, _add)
    return reading.answer()


def from_qstat_xml(reply: Reply, asked: Sequence[str] = ()) -> Answer:
    """Read `qstat -x [ID...]`; arguments as of `from_qstat_text`."""
    reading = Reading("qstat", is_list=not asked)
    _complaints(reading, reply, asked)
    if not reply.stdout.strip():
        return reading.answer()
    try:
        root = xml.parse(reply.stdout)
    except Unreadable as error:
        reading.problem(f"qstat: {error}")
        return reading.answer()
    for job in root.iter("Job"):
        attributes = {child.tag: (child.text or "").strip() for child in job}
        _add(reading, attributes.pop("Job_Id", ""), attributes)
    if root.tag != "Data":
        reading.problem(f"qstat: XML of <{root.tag}>, not of <Data>")
    return reading.answer()


def _complaints(reading: Reading, reply: Reply, asked: Sequence[str]) -> None:
    rest = []
    for line in reply.stderr.splitlines():
        if match := _UNKNOWN.fullmatch(line):
            reading.deny(match[2], Ended("unknown", reason=match[1]))
        elif line.strip():
            rest.append(line)
    if rest:
        reading.problem(f"qstat: {rest[0]}")
    elif reply.status == _UNKNOWN_STATUS and not reply.stderr.strip() and len(asked) == 1:
        reading.deny(asked[0], Ended("unknown", reason="Unknown Job Id"))
    elif reply.status and not reply.stderr.strip():
        reading.failed(reply)


def _add(reading: Reading, job: str, attributes: Mapping[str, str]) -> None:
    letter = attributes.get("job_state", "").strip()
    if not _ID.fullmatch(job) or not letter:
        reading.problem(f"qstat: a job without an id or a state: {job!r}")
        return
    starts = whole(attributes.get("start_count"))
    reading.add(
        JobReport(
            id=job,
            state=_state(letter, starts or 0, attributes),
            words=letter,
            name=attributes.get("Job_Name", ""),
            owner=attributes.get("Job_Owner", "").partition("@")[0],
            elements=attributes.get("job_array_request", ""),
            starts=starts,
        )
    )


def _state(letter: str, starts: int, attributes: Mapping[str, str]) -> JobState:  # noqa: PLR0911 - one case per letter
    comment = attributes.get("comment", "")
    match letter:
        case "Q" if starts:
            return Requeued(comment)
        case "Q" | "W" | "T":
            return Pending(comment)
        case "H":
            types = attributes.get("Hold_Types", "")
            is_dependent = "s" in types and "depend" in attributes
            holders = [holder for key, holder in HOLDERS.items() if key in types]
            return Held("dependency" if is_dependent else holders[0] if holders else "unknown", comment)
        case "R":
            return Running(attributes.get("exec_host", ""))
        case "S" | "U":
            # The wrappers' U: suspended by somebody, as OpenPBS has it for workstations.
            return Suspended(comment)
        case "E":
            return Completing(comment)
        case "C":
            return _ended(whole(attributes.get("exit_status")), comment)
        case _:
            return Unclear(f"job_state {letter}" + (f": {comment}" if comment else ""))


def _ended(status: int | None, comment: str) -> Ended:
    if status is None:
        return Ended("unknown", reason=comment or "completed, without exit_status")
    if status < 0:
        return Ended(_NEGATIVE.get(status, "start_failure"), reason=comment or f"exit_status {status}")
    if status >= 256:
        # Also what qdel leaves (271): the server does not tell the two apart.
        return Ended("signal", signal=status - 256, reason=comment)
    return Ended("exit", status, reason=comment)
