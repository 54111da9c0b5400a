"""Slurm: `squeue -o`, `squeue --json`, `sacct -P`; written for 22.05, read up to the JSON of 24.05.

squeue(1): OUTPUT OF THE COMMAND (-o), JOB STATE CODES, JOB REASON CODES; sacct(1): Job Accounting Fields, JOB STATE CODES,
-P/--parsable2; the JSON is the REST API's data type job_info (slurmrestd openapi/v0.0.38). Finished jobs stay in squeue for
MinJobAge (300 s by default); after that only sacct has them, where there is accounting.
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
    from clusterd.launchers.job_state import Cause, Holder

__all__ = ["SACCT_FIELDS", "SQUEUE_FORMAT", "from_sacct", "from_squeue", "from_squeue_json"]

SQUEUE_FORMAT: Final = "%i|%T|%N|%u|%r|%j"
"""For `squeue -h -r -t all -o`; the job's name, where anything may stand, comes last."""
SACCT_FIELDS: Final = "JobID,State,ExitCode,User,JobName"
"""For `sacct -X -P -o`; likewise. The header must be printed: it says which column is which."""

# 12, 12_3, 12_[1-4%2], and 12+1 of a heterogeneous job.
_ID: Final = re.compile(r"([0-9]+(?:\+[0-9]+)?(?:_[0-9]+)?)(?:_\[([0-9,:%-]+(?:\.\.\.)?)\])?")
_EXIT: Final = re.compile(r"([0-9]+):([0-9]+)")
_DENIED: Final = "Invalid job id specified"
# A signal of Slurm's own beside those of the system: the job's output or directory could not be opened.
_NOT_STARTED: Final = 53
_SIGNALS: Final = 64

_HOLDERS: Final[dict[str, Holder]] = {
    "jobhelduser": "user",
    "jobheldadmin": "operator",
    "dependency": "dependency",
    "jobholdmaxrequeue": "error",
    "launchfailedrequeuedheld": "error",
    "reservationdeleted": "system",
}
_HOPELESS: Final = frozenset(
    {
        "accountnotallowed",
        "assocmaxwalldurationperjoblimit",
        "badconstraints",
        "dependencyneversatisfied",
        "invalidaccount",
        "invalidqos",
        "partitionconfig",
        "partitionnodelimit",
        "partitiontimelimit",
        "qosmaxwalldurationperjoblimit",
        "qosnotallowed",
    }
)
_CAUSES: Final[dict[str, Cause]] = {
    "BOOT_FAIL": "node_failure",
    "CANCELLED": "cancelled",
    "COMPLETED": "exit",
    "DEADLINE": "limit",
    "FAILED": "unknown",
    "NODE_FAIL": "node_failure",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
    "TIMEOUT": "walltime",
}
# Flags that the JSON of 23.11 lists beside the state itself.
_FLAGS: Final = ("COMPLETING", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUED", "STOPPED", "CONFIGURING", "STAGE_OUT")


def from_squeue(reply: Reply, asked: Sequence[str] = ()) -> Answer:
    """Read `squeue -h -r -t all -o SQUEUE_FORMAT`.

    Args:
        reply: what it said.
        asked: the ids of `-j`; empty when it was to list all.
    """
    reading = Reading("squeue", is_list=not asked)
    if reply.status:
        return _refused(reading, reply, asked)
    for line in reply.stdout.splitlines():
        fields = line.split("|", 5)
        match = _ID.fullmatch(fields[0].strip())
        if len(fields) < 6 or match is None:
            if line.strip():
                reading.problem(f"squeue: not a job: {line!r}")
            continue
        _, word, nodes, owner, reason, name = fields
        state = _state(word.strip(), reason, nodes, None, None, 0)
        reading.add(JobReport(id=match[1], state=state, words=word, name=name, owner=owner, elements=match[2] or ""))
    return reading.answer()


def from_squeue_json(reply: Reply, asked: Sequence[str] = ()) -> Answer:
    """Read `squeue --json`; arguments as of `from_squeue`."""
    reading = Reading("squeue", is_list=not asked)
    if reply.status:
        return _refused(reading, reply, asked)
    try:
        document = load(reply.stdout)
    except Unreadable as error:
        reading.problem(f"squeue: {error}")
        return reading.answer()
    jobs = document.get("jobs") if isinstance(document, dict) else None
    if not isinstance(jobs, list):
        reading.problem("squeue: JSON without a list of jobs")
        return reading.answer()
    if errors := document.get("errors"):
        reading.problem(f"squeue: {str(errors)[:150]}")
    for job in jobs:
        report = _from_json(job) if isinstance(job, dict) else None
        if report is None:
            reading.problem("squeue: a job without an id or a state")
        else:
            reading.add(report)
    return reading.answer()


def from_sacct(reply: Reply) -> Answer:
    """Read `sacct -X -P -o SACCT_FIELDS` with its header. Steps (`12.batch`) are passed over."""
    reading = Reading("sacct")
    if reply.status:
        reading.failed(reply)
        return reading.answer()
    lines = reply.stdout.splitlines()
    names = lines[0].split("|") if lines else []
    if not {"JobID", "State", "ExitCode"} <= set(names):
        reading.problem("sacct: no header with JobID, State and ExitCode")
        return reading.answer()
    for line in lines[1:]:
        # Whatever stands last takes the rest of the line: names may contain the separator.
        fields = dict(zip(names, line.split("|", len(names) - 1), strict=False))
        if "." in fields["JobID"]:
            continue
        match, codes = _ID.fullmatch(fields["JobID"]), _EXIT.fullmatch(fields.get("ExitCode", ""))
        if match is None or codes is None:
            reading.problem(f"sacct: not a job: {line!r}")
            continue
        # "CANCELLED by 1000".
        word, _, by = fields["State"].partition(" ")
        state = _state(word, by, "", int(codes[1]), int(codes[2]), 0)
        reading.add(
            JobReport(
                id=match[1],
                state=state,
                words=fields["State"],
                name=fields.get("JobName", ""),
                owner=fields.get("User", ""),
                elements=match[2] or "",
            )
        )
    return reading.answer()


def _refused(reading: Reading, reply: Reply, asked: Sequence[str]) -> Answer:
    # It says so only when it knows none of them: one that it knows among others makes it silent about the rest.
    if asked and _DENIED in reply.stderr:
        for job in asked:
            reading.deny(job, Ended("unknown", reason=_DENIED))
    else:
        reading.failed(reply)
    return reading.answer()


def _from_json(job: Mapping[str, Any]) -> JobReport | None:
    number, words = whole(job.get("job_id")), job.get("job_state")
    states = [word for word in words if isinstance(word, str)] if isinstance(words, list) else [text(words)]
    if number is None or not states or not states[0]:
        return None
    array, element = whole(job.get("array_job_id")), whole(job.get("array_task_id"))
    # Of an element that has begun job_id is a number of its own, which nobody types.
    name = f"{array}_{element}" if array and element is not None else str(number)
    code, signal = _exit(job.get("exit_code"))
    starts = whole(job.get("restart_cnt"))
    word = next((flag for flag in _FLAGS if flag in states), states[0])
    state = _state(word, text(job.get("state_reason")), text(job.get("nodes")), code, signal, starts or 0)
    return JobReport(
        id=name,
        state=state,
        words=" ".join(states),
        name=text(job.get("name")),
        owner=text(job.get("user_name")),
        elements=text(job.get("array_task_string")),
        starts=None if starts is None else starts + isinstance(state, (Running, Suspended, Completing, Ended)),
    )


def _exit(value: Any) -> tuple[int | None, int | None]:
    """Return exit code and signal: of the status of wait(2) up to 23.02, of a struct from then on."""
    if isinstance(value, dict) and "return_code" in value:
        signal = value.get("signal")
        number = None
        if isinstance(signal, dict):
            number = whole(signal.get("id", signal.get("signal_id")))
        return whole(value["return_code"]), number or 0
    status = whole(value)
    return (None, None) if status is None else (status >> 8 & 0xFF, status & 0x7F)


def _state(word: str, reason: str, nodes: str, code: int | None, signal: int | None, restarts: int) -> JobState:  # noqa: PLR0911 - one case per group of states
    reason = "" if reason == "None" else reason
    match word:
        case "PENDING":
            return _waiting(reason, restarts)
        case "RUNNING" | "RESIZING" | "SIGNALING":
            return Running(nodes)
        case "CONFIGURING":
            return Pending("Configuring: its nodes are being made ready")
        case "COMPLETING" | "STAGE_OUT":
            return Completing(reason)
        case "SUSPENDED" | "STOPPED":
            return Suspended(reason)
        case "REQUEUED" | "REQUEUE_FED":
            return Requeued(reason)
        case "REQUEUE_HOLD" | "RESV_DEL_HOLD":
            return Held("system", reason)
        case "SPECIAL_EXIT":
            return Held("error", reason)
        case _ if word in _CAUSES:
            return _ended(word, reason, code, signal)
        case _:
            return Unclear(f"{word} {reason}".strip())


def _waiting(reason: str, restarts: int) -> JobState:
    key = re.sub(r"[^a-z]", "", reason.lower())
    if key in _HOLDERS:
        return Held(_HOLDERS[key], reason)
    if restarts:
        return Requeued(reason)
    return Pending(reason, is_hopeless=key in _HOPELESS)


def _ended(word: str, reason: str, code: int | None, signal: int | None) -> Ended:
    cause = _CAUSES[word]
    if word == "COMPLETED":
        return Ended("exit", 0 if code is None else code, None, reason)
    if word == "FAILED":
        if signal == _NOT_STARTED or reason == "BadConstraints":
            cause = "start_failure"
        elif signal:
            cause = "signal"
        elif code or reason == "NonZeroExitCode":
            cause = "exit"
        elif reason == "JobLaunchFailure":
            cause = "start_failure"
    is_real = cause in {"exit", "signal"}
    return Ended(
        cause,
        code if is_real and not signal else None,
        signal if is_real and signal and signal <= _SIGNALS else None,
        reason,
    )
