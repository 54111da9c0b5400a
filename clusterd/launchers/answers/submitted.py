"""What became of a submission: accepted with an id, refused, or lost, which nobody but the next query can tell.

sbatch(1) (--parsable), qsub(1B) of OpenPBS and Torque, qsub(1) of Grid Engine (-terse), bsub(1), condor_submit(1) (-terse). An id on
standard output is an acceptance, whatever follows. A refusal is what a system says when it has looked at the job, or the command
before it sent anything; every other failure may have happened after the job was taken.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from clusterd.launchers.answers.answer import Reply

__all__ = ["Accepted", "Lost", "Refused", "Submission", "submission"]

_WORDS: Final = 400


class Accepted(Struct, frozen=True):
    """The system has the job.

    Attributes:
        job: its id, of an array that of the whole.
        elements: of an array, as Grid Engine names them: `1-4:1`.
    """

    job: str
    elements: str = ""


class Refused(Struct, frozen=True):
    """There is no job.

    Attributes:
        words: what the system said.
    """

    words: str


class Lost(Struct, frozen=True):
    """There may be a job: it is to be looked for by its tag, once the system answers again.

    Attributes:
        words: what was said instead of an answer.
    """

    words: str


Submission: TypeAlias = Accepted | Refused | Lost


class _Dialect(Struct, frozen=True):
    """How one system answers.

    Attributes:
        accepted: a line of standard output; group 1 is the id, group 2 the elements.
        refused: in what it says, makes a failure a refusal ...
        lost: ... unless this is in it.
    """

    accepted: re.Pattern[str]
    refused: re.Pattern[str]
    lost: re.Pattern[str]


_NEVER: Final = re.compile(r"(?!)")

_DIALECTS: Final = {
    "slurm": _Dialect(
        re.compile(r"(?:Submitted batch job )?([0-9]+)(?:;\S+)?(?: on cluster \S+)?()"),
        re.compile(r"^(sbatch: (error|fatal): |sbatch: unrecognized option|sbatch: invalid option)", re.MULTILINE),
        re.compile(
            r"Unable to contact slurm controller|Socket timed out|Zero Bytes|Unexpected message|[Cc]onnection (reset|refused)"
            r"|Transport endpoint|Unspecified error|communication"
        ),
    ),
    "pbs": _Dialect(
        re.compile(r"([0-9]+(?:\[\])?\.[^\s\"']+)()"),
        re.compile(r"^(qsub: |usage: qsub)", re.MULTILINE),
        # 15010 and its like, also while the job was being sent; "Error (n) submitting job" is whatever has no text.
        re.compile(
            r"cannot connect to server|[Cc]onnection|End of File|Premature end|[Tt]imed? ?out|Protocol|Error \(-?[0-9]+\)|No route"
        ),
    ),
    "torque": _Dialect(
        re.compile(r"([0-9]+(?:\[\])?(?:\.\S+)?)()"),
        # Slurm's wrappers complain on standard output.
        re.compile(r"^(qsub: |usage: qsub|Usage:|There was an error running the Slurm sbatch command)", re.MULTILINE),
        re.compile(
            r"cannot connect to server|[Cc]onnection|End of File|[Tt]imed? ?out|Protocol"
            r"|Unable to contact slurm controller|communication"
        ),
    ),
    "sge": _Dialect(
        re.compile(r"(?:Your job(?:-array)? )?([0-9]+)(?:\.([0-9]+-[0-9]+:[0-9]+))?(?: \(.*\) has been submitted)?"),
        re.compile(r"^(Unable to run job: |qsub: |error: )", re.MULTILINE | re.IGNORECASE),
        re.compile(r"commlib|answer list|got no (response|reply)|timeout|unable to (contact|send)", re.IGNORECASE),
    ),
    "lsf": _Dialect(
        re.compile(r"Job <([0-9]+)> is submitted to (?:default )?queue <[^>]*>\.()"),
        re.compile(r"Job not submitted|Request aborted by esub"),
        _NEVER,
    ),
    "htcondor": _Dialect(
        re.compile(r"(?:[0-9]+ job\(s\) submitted to cluster )?([0-9]+)(?:\.|(?:\.[0-9]+ - [0-9]+\.[0-9]+))()"),
        re.compile(r"^ERROR: ", re.MULTILINE),
        re.compile(r"[Cc]ommit|[Tt]imed? ?out|[Dd]isconnect|[Cc]onnection|[Tt]ransaction"),
    ),
}


def submission(system: str, reply: Reply) -> Submission:
    """Return what a submitting command's answer means.

    Args:
        system: `slurm`, `pbs` (OpenPBS), `torque`, `sge`, `lsf` or `htcondor`.
        reply: of the command.
    """
    dialect = _DIALECTS[system]
    found = [match for line in reply.stdout.splitlines() if (match := dialect.accepted.fullmatch(line.strip()))]
    if len(found) == 1:
        return Accepted(found[0][1], found[0][2] or "")
    said = "\n".join(text.strip() for text in (reply.stderr, reply.stdout) if text.strip())
    words = said[:_WORDS] or f"exit status {reply.status}, and no word"
    # 0 and no id, or several: not even the command's own idea of it is known.
    is_refusal = reply.status > 0 and not found and dialect.refused.search(said) and not dialect.lost.search(said)
    return Refused(words) if is_refusal else Lost(words)
