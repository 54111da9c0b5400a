"""Runs peers and scenarios, each in a process with a time limit, in turns; keeps every round's figures.

A round that fails is kept with its reason: the others go on, and the report says what is missing and why.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, peers, processes, scenarios

PEER_LIMIT = 180.0
ROOT = Path(__file__).parents[1]


@dataclass
class Series:
    """The rounds of one peer or scenario: a dict of figures each, and the reasons of those that failed.

    Attributes:
        missing: figures that this machine cannot give, with the reason.
    """

    rounds: list[dict[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, figures: dict[str, float | str]) -> None:
        """Take the figures of a round; where a reason stands instead of one it is missing."""
        self.rounds.append({name: value for name, value in figures.items() if not isinstance(value, str)})
        self.missing.update({name: value for name, value in figures.items() if isinstance(value, str)})

    def values(self, figure: str) -> list[float]:
        return [figures[figure] for figures in self.rounds if figure in figures]

    def median(self, figure: str) -> float | None:
        values = self.values(figure)
        return statistics.median(values) if values else None


@dataclass
class Results:
    """A run: the machine, how it was called, and what was measured, by peer and by scenario."""

    machine: dict[str, str]
    command: str
    day: str
    is_short: bool
    peers: dict[str, Series] = field(default_factory=dict)
    scenarios: dict[str, Series] = field(default_factory=dict)

    def series(self, path: str) -> tuple[Series | None, str]:
        """Return the series and the figure's name for `peers.NAME.FIGURE`."""
        kind, name, figure = path.split(".")
        return getattr(self, kind).get(name), figure

    def median(self, path: str) -> float | None:
        series, figure = self.series(path)
        return series.median(figure) if series else None

    def why_missing(self, path: str) -> str:
        """Return the reason why the figure could not be measured on this machine, or an empty string."""
        series, figure = self.series(path)
        return series.missing.get(figure, "") if series else ""

    def added_to(self, earlier: Results) -> Results:
        """Return an earlier run with what this one has measured in the place of what that had; the report names both commands."""
        names = ", ".join((*self.peers, *self.scenarios))
        return Results(
            self.machine,
            f"{earlier.command}` and ({names}) `{self.command}",
            self.day,
            earlier.is_short or self.is_short,
            earlier.peers | self.peers,
            earlier.scenarios | self.scenarios,
        )

    def to_json(self) -> str:
        def plain(series: dict[str, Series]) -> dict[str, Any]:
            return {
                name: {"rounds": one.rounds, "failures": one.failures}
                | ({"missing": one.missing} if one.missing else {})
                for name, one in series.items()
            }

        facts = {"command": self.command, "day": self.day, "is_short": self.is_short, "machine": self.machine}
        return json.dumps({**facts, "peers": plain(self.peers), "scenarios": plain(self.scenarios)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        data = json.loads(text)
        results = cls(data["machine"], data["command"], data["day"], data["is_short"])
        for kind in ("peers", "scenarios"):
            getattr(results, kind).update(
                {
                    name: Series(one["rounds"], one["failures"], one.get("missing", {}))
                    for name, one in data[kind].items()
                }
            )
        return results


def run(names: list[str], *, rounds: int, seconds: float, is_short: bool, command: str) -> Results:
    """Measure peers and scenarios by name.

    Args:
        names: of `peers.NAMES` and `scenarios.NAMES`.
        rounds: of each peer; scenarios have a number of their own, which this one bounds.
        seconds: length of one measure of a peer.
        is_short: smaller scenarios, one round.
        command: what makes this run again, for the report.
    """
    processes.become_reaper()
    results = Results(machine.describe(), command, time.strftime("%Y-%m-%d", time.gmtime()), is_short)
    systems = [name for name in peers.NAMES if name in names]
    for name in systems:
        results.peers[name] = Series()
    for number in range(rounds):
        # Each round begins with another peer: what one leaves behind for the next (a warm cache, a busy kernel) goes round.
        first = number % max(1, len(systems))
        for name in systems[first:] + systems[:first]:
            argv = ["benchmarks.peers.measure", name, "--seconds", str(seconds)]
            one_round(f"{name}, round {number + 1}", results.peers[name], argv, PEER_LIMIT)
    for name in scenarios.NAMES:
        if name not in names:
            continue
        series = results.scenarios[name] = Series()
        for number in range(1 if is_short else min(rounds, scenarios.ROUNDS.get(name, 1))):
            argv = ["benchmarks.scenarios", name, *(["--short"] if is_short else [])]
            one_round(f"{name}, round {number + 1}", series, argv, scenarios.LIMITS[name])
            if series.failures and not series.rounds:
                break
    return results


def one_round(title: str, series: Series, argv: list[str], limit: float) -> None:
    """Run one measuring program; add its figures, or why there are none."""
    print(f"{title} ...", end=" ", flush=True)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("CLUSTERD_", "PYTHONDONTWRITEBYTECODE"))
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, open(Path(directory, "said"), "w+b") as said:  # noqa: PTH123
        output = Path(directory, "figures.json")
        process = subprocess.Popen(
            [sys.executable, "-m", *argv, "--output", output],
            cwd=ROOT,
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait(limit)
            reason = f"ended with {status}"
        except subprocess.TimeoutExpired:
            reason = f"did not finish in {limit:.0f} s"
            process.kill()
            process.wait()
        # Whatever the program started and lost is ours now (PR_SET_CHILD_SUBREAPER) and would disturb the next round.
        processes.end_descendants(os.getpid())
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
        if output.exists():
            series.add(json.loads(output.read_text()))
            print(
                f"{time.perf_counter() - started:.0f} s" + (f"  ({words.splitlines()[-1]})" if words else ""),
                flush=True,
            )
        else:
            last = words.splitlines()[-1] if words else "it said nothing"
            series.failures.append(f"{reason}: {last}")
            print(f"FAILED, {reason}:\n{words}", flush=True)
