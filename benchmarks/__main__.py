"""`make bench`: measure, then write results.json and RESULTS.md beside this file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import harness, peers, report, scenarios

HERE = Path(__file__).parent


def main(argv: list[str]) -> int:
    """Return 0 when something was measured, even if some of it failed: the report says what."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure clusterd beside its peers.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each peer (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measure (default: 2)")
    parser.add_argument(
        "--short", action="store_true", help="one round of half a second, small scenarios: to see that it works"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"some of: {', '.join((*peers.NAMES, *scenarios.NAMES))}"
    )
    parser.add_argument("--to", type=Path, default=HERE, metavar="DIR", help="where RESULTS.md and results.json go")
    parser.add_argument(
        "--report", action="store_true", help="write RESULTS.md again from results.json, measure nothing"
    )
    parser.add_argument(
        "--add", action="store_true", help="keep what results.json has of peers and scenarios that this run leaves out"
    )
    arguments = parser.parse_args(argv)

    known = (*peers.NAMES, *scenarios.NAMES)
    if unknown := sorted(set(arguments.only or ()) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if arguments.report:
        results = harness.Results.from_json((arguments.to / "results.json").read_text())
    else:
        results = harness.run(
            list(arguments.only or known),
            rounds=1 if arguments.short else arguments.rounds,
            seconds=0.5 if arguments.short else arguments.seconds,
            is_short=arguments.short,
            command=f'make bench ARGS="{" ".join(argv)}"' if argv else "make bench",
        )
        if not any(series.rounds for series in (*results.peers.values(), *results.scenarios.values())):
            print("Nothing could be measured: see above.", file=sys.stderr)
            return 1
        if arguments.add:
            earlier = harness.Results.from_json((arguments.to / "results.json").read_text())
            results = results.added_to(earlier)
        (arguments.to / "results.json").write_text(results.to_json())
    (arguments.to / "RESULTS.md").write_text(report.render(results))
    print(f"written: {arguments.to / 'RESULTS.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
