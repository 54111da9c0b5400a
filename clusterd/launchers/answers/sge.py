"""Grid Engine (SGE, Son of Grid Engine, UGE): `qstat -u '*' -xml`, `qacct -j`; written for 8.1.9.

qstat(1), OUTPUT FORMATS, "state" (letters, of which several stand together), and its schema qstat.xsd; accounting(5): `failed`,
`exit_status`; sge_status(5): the codes of `failed`. A job that has ended is gone from qstat at once; its record in qacct may come
later (accounting_flush_time, 15 s), and one that is deleted while it waits never has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clusterd.launchers.answers import xml
from clusterd.launchers.answers.answer import JobReport, Reading
from clusterd.launchers.answers.lenient import Unreadable, whole
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
    from collections.abc import Iterator, Mapping
    from xml.etree.ElementTree import Element

    from clusterd.launchers.answers.answer import Answer, Reply
    from clusterd.launchers.job_state import Cause

__all__ = ["from_qacct", "from_qstat_xml"]

_LETTERS: Final = frozenset("dEhrRsSNPtTwqz")
_RULE: Final = re.compile(r"={10,}\s*")
_FIELD: Final = re.compile(r"(\w+) +(.*)")
_NOT_FOUND: Final = re.compile(r"error: job (id|name) \S+ not found\s*")
_H_RT: Final = re.compile(r"\bh_rt=([0-9]+)\b")

_RESCHEDULED: Final = frozenset({24, 25})
# The script ran: what failed was done after it (12 to 16), or it asked to be held in error (30, exit status 100).
_RAN: Final = frozenset({0, 12, 13, 14, 15, 16, 30})
# The shepherd, its parent, did not write what it should: "probably program or machine crash".
_CRASHED: Final = frozenset({18, 19, 20, 21})
_BY_SIGNAL: Final = frozenset({17, 100})
_QMASTER_ENFORCED_LIMIT: Final = 37


def from_qstat_xml(reply: Reply) -> Answer:
    """Read `qstat -u '*' -xml`, with or without `-g d` (which expands the waiting elements of arrays)."""
    reading = Reading("qstat", is_list=True)
    if reply.status:
        reading.failed(reply)
        return reading.answer()
    try:
        root = xml.parse(reply.stdout)
    except Unreadable as error:
        reading.problem(f"qstat: {error}")
        return reading.answer()
    if root.tag != "job_info":
        reading.problem(f"qstat: XML of <{root.tag}>, not of <job_info>")
    for job in root.iter("job_list"):
        _add(reading, job)
    return reading.answer()


def _add(reading: Reading, job: Element) -> None:
    fields = {child.tag: (child.text or "").strip() for child in job}
    number, letters = whole(fields.get("JB_job_number")), fields.get("state", "")
    if number is None or not letters:
        reading.problem("qstat: a job without a number or a state")
        return
    tasks = fields.get("tasks", "")
    # An array's waiting elements share a line, `3-7:2`; so may running ones, `1,3`, of one host.
    element = f".{tasks}" if tasks.isdecimal() else ""
    reading.add(
        JobReport(
            id=f"{number}{element}",
            state=_state(letters, fields.get("queue_name", "")),
            words=letters,
            name=fields.get("JB_name", ""),
            owner=fields.get("JB_owner", ""),
            elements="" if element else tasks,
        )
    )


def _state(letters: str, queue: str) -> JobState:  # noqa: PLR0911 - one case per letter, the first that is there decides
    has = set(letters)
    if has - _LETTERS:
        return Unclear(f"state {letters}")
    if "z" in has:
        return Ended("unknown", reason="finished (z)")
    if "d" in has:
        return Completing(f"being deleted ({letters})")
    if "E" in has:
        return Held("error", f"{letters}: see qstat -j, `error reason`")
    if has & set("sSTNP"):
        return Suspended(letters)
    if "h" in has and not has & set("rt"):
        # hold_jid, qhold and operators look the same here.
        return Held("unknown", letters)
    if has & set("rt"):
        return Running(queue.partition("@")[2])
    if "R" in has:
        return Requeued(letters)
    return Pending()


def from_qacct(reply: Reply) -> Answer:
    """Read `qacct -j ID`; whole and empty when there is no record, which alone proves nothing: the job may still wait.

    Of the records of one job, one for each run, the last counts.
    """
    reading = Reading("qacct")
    if reply.status and not _NOT_FOUND.search(reply.stderr):
        reading.failed(reply)
        return reading.answer()
    latest: dict[str, JobReport] = {}
    for fields in _blocks(reply.stdout):
        number, failed = whole(fields.get("jobnumber")), whole(fields.get("failed", "").split(":")[0])
        status = whole(fields.get("exit_status", "").split("(")[0])
        if number is None or failed is None or status is None:
            reading.problem("qacct: a record without jobnumber, failed or exit_status")
            continue
        task = fields.get("taskid", "undefined")
        job = f"{number}.{task}" if task.isdecimal() else str(number)
        latest[job] = JobReport(
            id=job,
            state=_record(failed, status, fields),
            words=f"failed {failed}, exit_status {status}",
            name=fields.get("jobname", ""),
            owner=fields.get("owner", ""),
        )
    if not latest and reply.stdout.strip():
        reading.problem("qacct: no record in its output")
    for report in latest.values():
        reading.add(report)
    return reading.answer()


def _blocks(stdout: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in stdout.splitlines():
        if _RULE.fullmatch(line):
            if fields:
                yield fields
            fields = {}
        elif match := _FIELD.fullmatch(line):
            fields.setdefault(match[1], match[2].strip())
    if fields:
        yield fields


def _record(failed: int, status: int, fields: Mapping[str, str]) -> JobState:
    words = fields.get("failed", "")
    _, _, reason = words.partition(":")
    reason = reason.strip()
    if failed in _RESCHEDULED or (failed == 0 and status == 99):
        # 99: the script asked to be run again.
        return Requeued(reason or "exit status 99")
    if failed == _QMASTER_ENFORCED_LIMIT:
        return Ended(_limit(fields), reason=reason)
    if failed in _BY_SIGNAL:
        # Also what qdel leaves (137): nothing tells the two apart.
        return Ended("signal", signal=status - 128 if status > 128 else None, reason=reason)
    if failed in _RAN:
        return Ended("exit", status, reason=reason)
    return Ended("node_failure" if failed in _CRASHED else "start_failure", reason=reason or f"failed {failed}")


def _limit(fields: Mapping[str, str]) -> Cause:
    """Tell the end of the time from other limits: one code means h_rt, h_cpu and h_vmem."""
    asked = _H_RT.search(fields.get("category", ""))
    took = re.match(r"[0-9]+", fields.get("ru_wallclock", ""))
    return "walltime" if asked and took and int(took[0]) >= int(asked[1]) else "limit"
