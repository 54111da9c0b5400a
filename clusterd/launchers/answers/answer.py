"""What an answer of a batch system comes to: reports of jobs, ids that it does not know, and what could not be read.

The one rule of all parsers lives here: a job is gone only when the system shows it as ended, says that it does not know an id
that it once gave, or when whole answers of queue and accounting both lack it. An answer with a problem proves no absence, and
two reports of one id that differ prove nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from clusterd.launchers.job_state import Ended, JobState, after_silence, after_word, in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.launchers.job_state import Standing

__all__ = ["Answer", "JobReport", "Reading", "Reply", "standing"]

_PROBLEMS: Final = 20
_SHOWN: Final = 200


class Reply(Struct, frozen=True):
    """What a command of the batch system did, as it was captured.

    Attributes:
        stdout: its standard output, decoded with errors="replace": other users' names are in it.
        stderr: likewise.
        status: its exit status; negative for a signal, as subprocess has it.
    """

    stdout: str
    stderr: str = ""
    status: int = 0

    @property
    def first_words(self) -> str:
        """What it complained about, for an error text: the first line of stderr, else of stdout."""
        lines = (line.strip() for text in (self.stderr, self.stdout) for line in text.splitlines())
        return next((line for line in lines if line), "")[:_SHOWN]


class JobReport(Struct, frozen=True, kw_only=True):
    """One job, as an answer shows it.

    Attributes:
        id: the system's; an element of an array has its own.
        state: what it says.
        words: its own word for the state, for people: `PENDING`, `Eqw`, `R/42`.
        name: the job's name, which carries our tag; empty when the format lost it.
        owner: user name, empty when it does not say.
        elements: which elements of an array stand behind this one report: `3-7:2`; empty for a single job.
        starts: how often it was started so far, None when it does not say.
    """

    id: str
    state: JobState
    words: str
    name: str = ""
    owner: str = ""
    elements: str = ""
    starts: int | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """All that one reply says.

    Attributes:
        source: the command, for evidence: `squeue`.
        jobs: at most one report for an id.
        denied: ids that the system says it does not know (any more), with the end that follows from it.
        problems: why it is not whole: errors, and what could not be read (the first few).
        is_list: it was to list all jobs of ours: when it is whole, what it lacks is not in that list.
    """

    source: str
    jobs: tuple[JobReport, ...] = ()
    denied: dict[str, Ended] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    is_list: bool = False

    def job(self, job: str) -> JobReport | None:
        """Return the report of a job."""
        return next((report for report in self.jobs if report.id == job), None)


class Reading:
    """An answer in the making."""

    def __init__(self, source: str, *, is_list: bool = False) -> None:
        self.source = source
        self.is_list = is_list
        self._reports: dict[str, JobReport] = {}
        self._denied: dict[str, Ended] = {}
        self._contradictory: set[str] = set()
        self._problems: list[str] = []

    def add(self, report: JobReport) -> None:
        """Take a report; a second one of the same id that says something else makes both worthless."""
        if self._reports.setdefault(report.id, report) != report:
            self._contradictory.add(report.id)
            self.problem(f"two reports of job {report.id} that differ")

    def deny(self, job: str, end: Ended) -> None:
        """Note that the system does not know a job."""
        self._denied[job] = end

    def problem(self, text: str) -> None:
        """Note what could not be read."""
        if len(self._problems) < _PROBLEMS:
            self._problems.append(" ".join(text.split())[:_SHOWN] or "no words")

    def failed(self, reply: Reply) -> None:
        """Note that the command did not succeed."""
        how = f"exit status {reply.status}" if reply.status >= 0 else f"killed by signal {-reply.status}"
        words = reply.first_words
        self.problem(f"{self.source}: {how}" + (f": {words}" if words else ""))

    def answer(self) -> Answer:
        """Return what has come together."""
        jobs = tuple(report for report in self._reports.values() if report.id not in self._contradictory)
        # What is shown is known, whatever else is said.
        denied = {job: end for job, end in self._denied.items() if job not in self._reports}
        return Answer(
            source=self.source, jobs=jobs, denied=denied, problems=tuple(self._problems), is_list=self.is_list
        )


def standing(
    before: Standing | None,
    job: str,
    answers: Sequence[Answer],
    asked_at: float,
    *,
    vanished: Ended | None = None,
) -> Standing:
    """Return what is known of a job after one round of questions.

    Args:
        before: what was known; None for a job that nothing was asked about.
        job: its id.
        answers: of this round, the queue's first: while it shows the job, an older record of the accounting does not count
            (a requeued job has one for each run).
        asked_at: when the first question of the round was put.
        vanished: the end to believe in when all answers are whole, one is the list of the queue, and none shows the job.
            None: that is no evidence here, because the submission may not have settled, or the accounting lags.
    """
    for answer in answers:
        if report := answer.job(job):
            return after_word(before, report.state, asked_at, f"{answer.source}: {in_words(report.state)}")
    for answer in answers:
        if end := answer.denied.get(job):
            return after_word(before, end, asked_at, f"{answer.source}: {end.reason}")
    problems = [problem for answer in answers for problem in answer.problems]
    sources = " and ".join(answer.source for answer in answers) or "nobody"
    if problems:
        return after_silence(before, asked_at, problems[0])
    if vanished is not None and any(answer.is_list for answer in answers):
        return after_word(before, vanished, asked_at, f"{sources}: no record of it")
    return after_silence(before, asked_at, f"{sources}: no word of it")
