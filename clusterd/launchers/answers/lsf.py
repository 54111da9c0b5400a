"""LSF: `bjobs -a -o "..." -json`; written for the documented format of Spectrum LSF 10.1.

bjobs(1), options -o (field names), -json, and OUTPUT, "Job status" (STAT); "Job exit reasons" in bacct(1) (TERM_...). All values
are texts. A job that mbatchd no longer has is a record with an ERROR, after CLEAN_PERIOD (1 h by default); bhist has it longer.
"""

from __future__ import annotations

import re
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

__all__ = ["BJOBS_FIELDS", "from_bjobs_json"]

BJOBS_FIELDS: Final = "jobid jobindex stat user job_name exec_host pend_reason exit_code exit_reason"
"""For `bjobs -a -json -o`."""

_ID: Final = re.compile(r"([0-9]+)(?:\[([0-9]+)\])?")
_NOT_FOUND: Final = re.compile(r"Job <([0-9]+(?:\[[0-9]+\])?)> is not found")
_NONE: Final = re.compile(r"No (unfinished )?job found")
_TERM: Final = re.compile(r"\bTERM_[A-Z_]+")
_CAUSES: Final[dict[str, Cause]] = {
    "TERM_ADMIN": "cancelled",
    "TERM_BUCKET_KILL": "cancelled",
    "TERM_CPULIMIT": "limit",
    "TERM_CWD_NOTEXIST": "start_failure",
    "TERM_DEADLINE": "limit",
    "TERM_FORCE_ADMIN": "cancelled",
    "TERM_FORCE_OWNER": "cancelled",
    "TERM_LOAD": "preempted",
    "TERM_MEMLIMIT": "out_of_memory",
    "TERM_OWNER": "cancelled",
    "TERM_PREEMPT": "preempted",
    "TERM_PRE_EXEC_FAIL": "start_failure",
    "TERM_PROCESSLIMIT": "limit",
    "TERM_REMOVE_HUNG_JOB": "node_failure",
    "TERM_RUNLIMIT": "walltime",
    "TERM_SWAP": "out_of_memory",
    "TERM_THREADLIMIT": "limit",
    "TERM_WINDOW": "preempted",
    "TERM_ZOMBI": "node_failure",
}


def from_bjobs_json(reply: Reply, asked: Sequence[str] = ()) -> Answer:
    """Read `bjobs -a -json -o BJOBS_FIELDS [ID...]`.

    Args:
        reply: what it said.
        asked: the ids that it was given; empty when it was to list all.
    """
    reading = Reading("bjobs", is_list=not asked)
    complaints = [line for line in reply.stderr.splitlines() if line.strip()]
    for line in complaints:
        if match := _NOT_FOUND.search(line):
            reading.deny(match[1], Ended("unknown", reason=match[0]))
        elif not _NONE.search(line):
            reading.problem(f"bjobs: {line}")
    if not reply.stdout.strip():
        if not complaints:
            # Even an empty list is a document.
            reading.failed(reply)
        return reading.answer()
    try:
        document = load(reply.stdout)
    except Unreadable as error:
        reading.problem(f"bjobs: {error}")
        return reading.answer()
    records = document.get("RECORDS") if isinstance(document, dict) else None
    if not isinstance(records, list):
        reading.problem("bjobs: JSON without RECORDS")
        return reading.answer()
    for record in records:
        _add(reading, record if isinstance(record, dict) else {})
    if document.get("JOBS") != len(records):
        reading.problem(f"bjobs: {len(records)} records, but JOBS is {document.get('JOBS')!r}")
    return reading.answer()


def _add(reading: Reading, record: Mapping[str, Any]) -> None:
    if error := text(record.get("ERROR")):
        if match := _NOT_FOUND.search(error):
            reading.deny(match[1], Ended("unknown", reason=match[0]))
        else:
            reading.problem(f"bjobs: {error}")
        return
    number, word = whole(record.get("JOBID")), text(record.get("STAT")).strip()
    match = _ID.fullmatch(str(number) if number is not None else text(record.get("JOBID")).strip())
    if match is None or not word:
        reading.problem("bjobs: a job without an id or a state")
        return
    # 0 is the index of what is no array.
    index = whole(match[2]) if match[2] else whole(record.get("JOBINDEX"))
    reading.add(
        JobReport(
            id=f"{match[1]}[{index}]" if index else match[1],
            state=_state(word, record),
            words=word,
            name=_given(record, "JOB_NAME"),
            owner=_given(record, "USER"),
        )
    )


def _given(record: Mapping[str, Any], name: str) -> str:
    value = text(record.get(name)).strip()
    return "" if value == "-" else value


def _state(word: str, record: Mapping[str, Any]) -> JobState:  # noqa: PLR0911 - one case per group of states
    match word:
        case "PEND" | "FWD_PEND":
            return Pending(_given(record, "PEND_REASON"))
        case "PROV":
            return Pending("its host is being made ready (PROV)")
        case "WAIT":
            # A chunk job's member: dispatched, and waits for those before it.
            return Pending("waits in a chunk of jobs (WAIT)")
        case "PSUSP":
            return Held("unknown", _given(record, "PEND_REASON"))
        case "RUN":
            return Running(_given(record, "EXEC_HOST"))
        case "USUSP" | "SSUSP":
            return Suspended(_given(record, "PEND_REASON") or word)
        case "DONE":
            return Ended("exit", 0)
        case "EXIT":
            return _exited(record)
        case _:
            # UNKWN: mbatchd has lost sbatchd of its host. ZOMBI: killed while that was so. Neither says that it ended.
            return Unclear(word)


def _exited(record: Mapping[str, Any]) -> JobState:
    code, reason = whole(record.get("EXIT_CODE")), _given(record, "EXIT_REASON")
    term = _TERM.search(reason)
    word = term[0] if term else ""
    if word.startswith("TERM_REQUEUE_"):
        return Requeued(reason)
    if word == "TERM_CHKPNT":
        return Completing(reason)
    if word in _CAUSES:
        return Ended(_CAUSES[word], reason=reason)
    if code is None:
        return Ended("unknown", reason=reason)
    return Ended("exit", code, reason=reason)
