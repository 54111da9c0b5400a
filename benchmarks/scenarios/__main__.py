"""Run one round of one scenario and write its figures as JSON: `python -m benchmarks.scenarios start --output FILE`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks import processes, scenarios


def main() -> int:
    """Measure, write the figures, and leave no process behind."""
    parser = argparse.ArgumentParser(description="Measure one scenario once.")
    parser.add_argument("scenario", choices=scenarios.NAMES)
    parser.add_argument("--output", required=True, help="file for the figures")
    parser.add_argument("--short", action="store_true", help="smaller numbers, to see that it works")
    arguments = parser.parse_args()
    processes.become_reaper()
    try:
        figures = importlib.import_module(f"benchmarks.scenarios.{arguments.scenario}").measure(
            is_short=arguments.short
        )
        Path(arguments.output).write_text(json.dumps(figures))
    finally:
        left = processes.end_descendants(os.getpid())
    if left := [command for command in left if "resource_tracker" not in command]:
        print(f"{arguments.scenario} left {len(left)} processes: {', '.join(sorted(set(left)))}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
