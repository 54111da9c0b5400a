"""Writes RESULTS.md: the machine, the peers side by side, each asked-for figure with what was measured, and the causes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from benchmarks.harness import Results, Series
    from benchmarks.targets import Target

CAUSES = Path(__file__).with_name("causes.toml")

# figure: (what a reader calls it, unit)
FIGURES = {
    "ready_s": ("4 workers ready, from nothing", "s"),
    "one_by_one_per_s": ("no-op tasks, one by one", "/s"),
    "round_trip_p50_ms": ("lone round trip, median", "ms"),
    "map_10_per_s": ("map, chunks of 10", "/s"),
    "map_100_per_s": ("map, chunks of 100", "/s"),
    "map_default_per_s": ("map, the default", "/s"),
    "cpu_us_total": ("CPU a task, one by one, all processes", "us"),
    "map_100_cpu_us": ("CPU an item, chunks of 100", "us"),
    "stop_s": ("stop", "s"),
}


def number(value: float, unit: str) -> str:
    """Return the value with three digits that mean something, and its unit."""
    if unit == "/s":
        return f"{value:,.0f}/s"
    return (f"{value:,.0f} {unit}" if unit == "tasks" or abs(value) >= 100 else f"{value:.3g} {unit}").rstrip()


def spread(series: Series, figure: str, unit: str) -> str:
    """Return "median (lowest to highest)", or a dash."""
    values = series.values(figure)
    median = series.median(figure)
    if median is None:
        return "-"
    text = number(median, unit)
    if len(values) > 1:
        text += f" ({number(min(values), unit).rsplit(' ', 1)[0]} to {number(max(values), unit).rsplit(' ', 1)[0]})"
    return text


def limit_of(target: Target, results: Results) -> float | None:
    """Return the limit in the target's unit; None when the figure it is a factor of was not measured."""
    if not target.of:
        return target.limit
    other = results.median(target.of)
    return None if other is None else target.limit * other


def measured(target: Target, results: Results) -> float | None:
    """Return the figure, with what belongs to its sum; None when a part was not measured."""
    values = [results.median(path) for path in (target.figure, *target.also)]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def verdict(target: Target, results: Results) -> tuple[str, str, str]:
    """Return (limit, measured, verdict) as text; a miss says by how much."""
    limit, value = limit_of(target, results), measured(target, results)
    sign = "at most" if target.better == "lower" else "at least"
    asked = (
        f"{sign} {number(limit, target.unit)}" if limit is not None else f"{sign} {target.limit:g} times {target.of}"
    )
    shown = ("-" if value is None else number(value, target.unit)) + beside_it(target, results)
    if value is None or limit is None:
        reasons = {results.why_missing(path) for path in (target.figure, *target.also, *filter(None, [target.of]))}
        return asked, shown, ": ".join(["not measured", *sorted(filter(None, reasons))])
    is_met = value <= limit if target.better == "lower" else value >= limit
    if is_met:
        return asked, shown, "ok"
    ratio = value / limit if target.better == "lower" else limit / max(value, 1e-9)
    return asked, shown, f"**missed** by a factor of {ratio:.2f}"


def beside_it(target: Target, results: Results) -> str:
    """Return the figures without a limit that belong to a target's, in brackets."""
    known = [(text, results.median(path), unit) for text, path, unit in target.beside]
    parts = [f"{text}: {number(value, unit)}" for text, value, unit in known if value is not None]
    return f" ({'; '.join(parts)})" if parts else ""


def render(results: Results) -> str:
    """Return RESULTS.md."""
    lines = ["# Measured", ""]
    rounds = max((len(series.rounds) for series in results.peers.values()), default=0)
    lines += [
        f"Made on {results.day} by `{results.command}`, which runs peers in turns, each in a process of its own; a figure is the median",
        f"of its rounds ({rounds} for the peers), with the lowest and the highest. The figures of every round: `benchmarks/results.json`.",
        "",
    ]
    if results.is_short:
        lines += ["**A short run, to see that the harness works: its figures are no basis for a claim.**", ""]
    lines += ["| machine | |", "|---|---|", *(f"| {key} | {value} |" for key, value in results.machine.items()), ""]
    lines += ["## Asked for", "", "| what | asked | measured | |", "|---|---|---|---|"]
    verdicts = {key: verdict(target, results) for key, target in TARGETS.items()}
    lines += [f"| {TARGETS[key].text} | {asked} | {value} | {word} |" for key, (asked, value, word) in verdicts.items()]
    lines += ["", *causes(verdicts), *beside(results), *scenarios(results), *failures(results)]
    return "\n".join(lines).rstrip() + "\n"


def causes(verdicts: dict[str, tuple[str, str, str]]) -> list[str]:
    """Return the cause of each miss, as somebody who looked into a profile wrote it down in causes.toml."""
    missed = [key for key, (_, _, word) in verdicts.items() if word.startswith("**missed")]
    if not missed:
        return []
    known = tomllib.loads(CAUSES.read_text()) if CAUSES.exists() else {}
    lines = ["## Why figures were missed", ""]
    lines += [f"* {TARGETS[key].text}: {known.get(key, 'not looked into yet.').strip()}" for key in missed]
    return [*lines, ""]


def beside(results: Results) -> list[str]:
    """Return the table of the peers and that of CPU time by role."""
    names = [name for name in peers.NAMES if name in results.peers and results.peers[name].rounds]
    if not names:
        return []
    lines = [
        "## Beside its peers",
        "",
        "4 workers; no-op tasks; CPU time from /proc over the whole tree of processes.",
        "",
    ]
    lines += ["| | " + " | ".join(peers.TITLES[name] for name in names) + " |", "|---|" + "---|" * len(names)]
    for figure, (text, unit) in FIGURES.items():
        lines.append(f"| {text} | " + " | ".join(spread(results.peers[name], figure, unit) for name in names) + " |")
    lines += ["", "CPU a task by role, one by one:", ""]
    for name in names:
        figures = results.peers[name].rounds[0]
        roles = [key.removeprefix("cpu_us_") for key in figures if key.startswith("cpu_us_") and key != "cpu_us_total"]
        parts = [
            f"{role} {number(results.peers[name].median(f'cpu_us_{role}') or 0.0, 'us')}" for role in sorted(roles)
        ]
        lines.append(f"* {peers.TITLES[name]}: {', '.join(parts)}")
    return [*lines, ""]


def scenarios(results: Results) -> list[str]:
    """Return every figure of the scenarios."""
    lines = []
    for name, series in results.scenarios.items():
        if series.rounds:
            lines += [f"## {name.capitalize()}", "", "| figure | |", "|---|---|"]
            lines += [f"| {figure} | {spread(series, figure, unit_of(figure))} |" for figure in series.rounds[0]]
            lines.append("")
    return lines


def unit_of(figure: str) -> str:
    """Return the unit that ends a figure's name."""
    return (
        {"s": "s", "ms": "ms", "us": "us", "mb": "MB", "done": "tasks"}.get(figure.rpartition("_")[2], "")
        if "per_s" not in figure
        else "/s"
    )


def failures(results: Results) -> list[str]:
    """Return what could not be measured, and why."""
    found = [
        f"* {name}: {reason}"
        for series in (results.peers, results.scenarios)
        for name, one in series.items()
        for reason in one.failures
    ]
    for series in (results.peers, results.scenarios):
        for name, one in series.items():
            found += [f"* {name}, {figure}: {reason}" for figure, reason in one.missing.items()]
    return ["## Not measured", "", *found, ""] if found else []
