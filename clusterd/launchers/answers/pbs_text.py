"""READS the records of `qstat -f` as every PBS prints them: `Job Id: ID`, then `    name = value` lines.

qstat(1B), "Full display" (-f): values longer than a line go on after a newline and a tab (not with -w, which OpenPBS has). A
value may itself contain line ends, for which there is no escape: such lines are taken as part of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from clusterd.launchers.answers.answer import Reading
    from clusterd.launchers.job_state import Holder

__all__ = ["HOLDERS", "NoRecord", "add_records", "records"]

HOLDERS: Final[dict[str, Holder]] = {"s": "system", "o": "operator", "u": "user"}
"""Who holds a job, by the letters of its Hold_Types; the first that is there counts."""
_HEAD: Final = re.compile(r"Job Id: *(\S+)\s*")
_ATTRIBUTE: Final = re.compile(r"    ([A-Za-z][\w.-]*) = (.*)")


class NoRecord(str):
    """A line before the first record: it belongs to another format."""

    __slots__ = ()


def records(stdout: str) -> Iterator[tuple[str, dict[str, str]] | NoRecord]:
    """Yield each job's id and attributes, in the order of the text."""
    job = ""
    attributes: dict[str, str] = {}
    name = ""
    # Not splitlines(): names of other users may contain what Python takes for the end of a line.
    for line in stdout.split("\n"):
        if head := _HEAD.fullmatch(line):
            if job:
                yield job, attributes
            job, attributes, name = head[1], {}, ""
        elif not job:
            if line.strip():
                yield NoRecord(line)
        elif attribute := _ATTRIBUTE.fullmatch(line):
            name = attribute[1]
            attributes[name] = attribute[2]
        elif name and line:
            attributes[name] += line[1:] if line.startswith("\t") else f"\n{line}"
    if job:
        yield job, attributes


def add_records(reading: Reading, stdout: str, add: Callable[[Reading, str, Mapping[str, str]], None]) -> None:
    """Have each record added to the reading by `add`; what is no record is a problem of it."""
    for record in records(stdout):
        if isinstance(record, NoRecord):
            reading.problem(f"qstat: not a job: {record!r}")
        else:
            add(reading, *record)
