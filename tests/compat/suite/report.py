"""Writes RESULTS.md: a table for each pair, a row for each stock module, and a line with the cause for each test that did not pass."""

from __future__ import annotations

import fnmatch
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.compat.suite.pairs import PAIRS

if TYPE_CHECKING:
    from tests.compat.suite.run import ModuleRun

CAUSES = Path(__file__).with_name("causes.toml")
UNKNOWN = "not looked into yet"
COLUMNS = ("passed", "flaky", "failed", "error", "skipped", "xfailed")


def counts(runs: list[ModuleRun]) -> Counter[str]:
    """Return how many tests came to which end."""
    return Counter(test.final for run in runs for test in run.tests.values())


def table(runs: list[ModuleRun]) -> list[str]:
    """Return a row for each module, and the total."""
    head = ["module", "tests", *COLUMNS, "left behind", "seconds"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for run in runs:
        found = counts([run])
        title = run.module + (" (ended at its limit)" if run.is_timed_out else "")
        cells = [title, len(run.tests), *(found[name] for name in COLUMNS), len(run.left), run.seconds]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    found = counts(runs)
    left, seconds = sum(len(run.left) for run in runs), round(sum(run.seconds for run in runs))
    cells = ["**total**", found.total(), *(found[name] for name in COLUMNS), left, seconds]
    return [*lines, "| " + " | ".join(map(str, cells)) + " |"]


def cause_of(pair: str, name: str, causes: dict[str, dict[str, str]]) -> str:
    """Return what somebody who looked into it wrote into causes.toml."""
    plain = name.replace("[", "(").replace("]", ")")
    for section in (pair, "all"):
        for pattern, text in causes.get(section, {}).items():
            if fnmatch.fnmatchcase(plain, pattern.replace("[", "(").replace("]", ")")):
                return text.strip()
    return UNKNOWN


def not_passed(pair: str, runs: list[ModuleRun]) -> list[str]:
    """Return a line for each test that did not simply pass, with its cause."""
    causes = tomllib.loads(CAUSES.read_text())
    lines = []
    for run in runs:
        for name, test in run.tests.items():
            if test.final != "passed":
                lines.append(f"* {test.final}: `{name}`: {cause_of(pair, name, causes)}")
        lines += [f"* left behind by {run.module}: `{line}`" for line in run.left]
    return lines


def unexplained(results: dict[str, list[ModuleRun]]) -> list[str]:
    """Return what failed, or was left behind, without a cause in causes.toml; and modules that ran no test."""
    causes = tomllib.loads(CAUSES.read_text())
    lines = []
    for pair, runs in results.items():
        for run in runs:
            if run.is_timed_out or not run.tests:
                lines.append(f"{pair}: {run.module} {'was ended at its limit' if run.is_timed_out else 'ran no test'}")
            for name, test in run.tests.items():
                if test.final in {"failed", "error"} and cause_of(pair, name, causes) == UNKNOWN:
                    lines.append(f"{pair}: {name}: {(test.message.splitlines() or [''])[0]}")
            lines += [f"{pair}: {run.module} left behind: {line}" for line in run.left]
    return lines


def render(results: dict[str, list[ModuleRun]], facts: dict[str, str]) -> str:
    """Return RESULTS.md of runs by pair."""
    lines = [
        "# ipyparallel's own tests, against our controller and our engines",
        "",
        f"Made on {facts['day']} by `{facts['command']}`: {facts['packages']}.",
        "",
        "The tests are those of ipyparallel's wheel, unchanged; those that apply to a foreign controller and engine are chosen in",
        "`tests/compat/suite/classes.tsv`. *flaky*: failed, and passed when it was run again, alone. *left behind*: processes, threads and",
        "directories that were still there ten seconds after a module.",
    ]
    lines += ["", "| pair | tests | passed | flaky | failed | skipped | expected failures |", "|---|" + "---:|" * 6]
    for pair, runs in results.items():
        found = counts(runs)
        cells = [
            found.total(),
            found["passed"],
            found["flaky"],
            found["failed"] + found["error"],
            found["skipped"],
            found["xfailed"],
        ]
        lines.append(f"| {PAIRS[pair].title} | " + " | ".join(map(str, cells)) + " |")
    for pair, runs in results.items():
        lines += ["", f"## Pair `{pair}`: {PAIRS[pair].title}", "", *table(runs)]
        if others := not_passed(pair, runs):
            lines += ["", *others]
    return "\n".join(lines) + "\n"
