"""OpenPBS and PBS Professional: `qstat -x -f -F json`, `qstat -x -f -w`; measured with 22.05.11, 23.06.06 and the master of 2026.

qstat(1B) (-f, -F json, -w, -x), pbs_job_attributes(7B) (job_state, substate, Exit_status, comment, Hold_Types, run_count), PBS
Administrator's Guide, "Job Exit Codes". JSON of released clients is invalid when any value of any job looks like a number that
it is not, and loses types; some builds print the first of several ids only. So no job that an answer lacks is gone by that,
and an answer with problems is to be asked for once more as text, with -w and one's own ids.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from clusterd.launchers.answers.answer import JobReport, Reading
from clusterd.launchers.answers.lenient import Unreadable, load, text, whole
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
    from collections.abc import Mapping

    from clusterd.launchers.answers.answer import Answer, Reply
    from clusterd.launchers.job_state import Cause, Holder

__all__ = ["from_qstat_json", "from_qstat_text"]

_ID: Final = re.compile(r"[0-9]+(\[[0-9]*\])?\.[^\s\"']+")
_UNKNOWN: Final = re.compile(r"qstat: (Unknown Job Id) (\S+)\s*")
_FINISHED: Final = re.compile(r"qstat: (\S+) (Job has finished)\b.*")
_BY: Final = re.compile(r"\bterminated by \S+$")

# Exit_status below 0: JOB_EXEC_* of "Job Exit Codes". What is not named here kept the script from running.
_NEGATIVE: Final[dict[int, Cause]] = {
    -4: "node_failure",  # the node's daemon was started again while the job ran
    -5: "node_failure",
    -6: "node_failure",
    -11: "cancelled",  # qrerun of a job that cannot be run again
    -14: "node_failure",  # a sister node was lost
    -18: "cancelled",
    -19: "cancelled",  # a hook asked for it
    -20: "node_failure",
    -24: "limit",
    -25: "limit",
    -26: "out_of_memory",
    -27: "out_of_memory",
    -28: "limit",
    -29: "walltime",
}


def from_qstat_json(reply: Reply) -> Answer:
    """Read `qstat -x -f -F json [ID...]`."""
    reading = Reading("qstat")
    _complaints(reading, reply)
    try:
        document = load(reply.stdout) if reply.stdout.strip() else {}
    except Unreadable as error:
        reading.problem(f"qstat: {error}")
        return reading.answer()
    jobs = document.get("Jobs", {}) if isinstance(document, dict) else None
    if not isinstance(jobs, dict):
        reading.problem("qstat: JSON that is no list of jobs")
        return reading.answer()
    for job, attributes in jobs.items():
        _add(reading, job, attributes if isinstance(attributes, dict) else {})
    return reading.answer()


def from_qstat_text(reply: Reply) -> Answer:
    """Read `qstat -x -f -w ID...`, or without -w."""
    reading = Reading("qstat")
    _complaints(reading, reply)
    add_records(reading, reply.stdout, _add)
    return reading.answer()


def _complaints(reading: Reading, reply: Reply) -> None:
    """Note what stands in stderr: about one id each, so that the others are answered all the same."""
    rest = []
    for line in reply.stderr.splitlines():
        if match := _UNKNOWN.fullmatch(line):
            _deny(reading, match[2], match[1])
        elif match := _FINISHED.fullmatch(line):
            _deny(reading, match[1], match[2])
        elif line.strip():
            rest.append(line)
    if rest:
        reading.problem(f"qstat: {rest[0]}")
    elif reply.status and not reply.stderr.strip():
        reading.failed(reply)


def _deny(reading: Reading, job: str, words: str) -> None:
    if _ID.fullmatch(job):
        reading.deny(job, Ended("unknown", reason=words))
    else:
        reading.problem(f"qstat: {words}: {job}")


def _add(reading: Reading, job: str, attributes: Mapping[str, Any]) -> None:
    letter = text(attributes.get("job_state")).strip()
    if not _ID.fullmatch(job) or not letter:
        reading.problem(f"qstat: a job without an id or a state: {job!r}")
        return
    substate = whole(attributes.get("substate"))
    starts = whole(attributes.get("run_count"))
    reading.add(
        JobReport(
            id=job,
            state=_state(letter, substate, starts or 0, attributes, is_array="[]" in job),
            words=letter if substate is None else f"{letter}/{substate}",
            name=text(attributes.get("Job_Name")),
            owner=text(attributes.get("Job_Owner")).partition("@")[0],
            elements=text(attributes.get("array_indices_submitted")),
            starts=starts,
        )
    )


def _state(  # noqa: PLR0911 - one case per letter
    letter: str, substate: int | None, starts: int, attributes: Mapping[str, Any], *, is_array: bool
) -> JobState:
    comment = text(attributes.get("comment"))
    match letter:
        case "Q" if starts:
            return Requeued(comment)
        case "Q" | "W" | "T":
            return Pending(comment, is_hopeless=comment.startswith("Can Never Run"))
        case "H":
            return Held(_holder(substate, attributes), comment)
        case "R" | "B" if _BY.search(comment):
            # qdel has been accepted, the processes have yet to end.
            return Completing(comment)
        case "R" | "B":
            return Running(text(attributes.get("exec_host")))
        case "S" | "U":
            return Suspended(comment)
        case "E":
            return Completing(comment)
        case "F" | "X":
            return _ended(substate, whole(attributes.get("Exit_status")), comment, is_array=is_array)
        case _:
            return Unclear(f"job_state {letter}" + (f": {comment}" if comment else ""))


def _holder(substate: int | None, attributes: Mapping[str, Any]) -> Holder:
    types = text(attributes.get("Hold_Types"))
    if "too many failed attempts" in text(attributes.get("comment")):
        return "error"
    if substate == 22:
        return "dependency"
    return next((holder for letter, holder in HOLDERS.items() if letter in types), "unknown")


def _ended(  # noqa: PLR0911 - one rule each, the first that fits decides
    substate: int | None, status: int | None, comment: str, *, is_array: bool
) -> Ended:
    """Return how it ended: substate 91 deleted, 92 ended with 0, 93 failed; Exit_status counts only now, and not always."""
    if comment == "Subjob finished":
        # Deleting an array overwrites what its ended elements were.
        return Ended("unknown", reason=comment)
    if "preempt" in comment.lower():
        return Ended("preempted", reason=comment)
    if substate == 91:
        return Ended("cancelled", reason=comment)
    if is_array:
        # Its Exit_status is no summary: it is 0 although elements failed.
        return Ended("exit", 0 if substate == 92 else None, reason=comment)
    if status is None:
        # It never ran: what it depended on has failed or is not known, and it was given up.
        return Ended("cancelled" if substate == 92 else "unknown", reason=comment or "no Exit_status: it never ran")
    if status < 0:
        return Ended(_NEGATIVE.get(status, "start_failure"), reason=comment or f"Exit_status {status}")
    if status >= 256:
        return Ended("signal", signal=status - 256, reason=comment)
    return Ended("exit", status, reason=comment)
