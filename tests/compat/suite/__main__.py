"""`python -m tests.compat.suite`: run ipyparallel's own tests against pairs of controller and engine; tests/compat/RESULTS.md.

The pairs run beside each other, each in a process of its own: most stock tests wait most of the time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.compat.suite import report, run
from tests.compat.suite.pairs import PAIRS
from tests.compat.suite.run import BAD, MODULE_LIMIT, MODULES, PYTHON, ModuleRun

RESULTS = run.HERE.parent / "RESULTS.md"
PACKAGES = ("ipyparallel", "ipykernel", "jupyter_client", "ipython", "pyzmq")


def main(argv: list[str]) -> int:
    """Return 0 when no test failed with one of our pairs, except those that causes.toml explains."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat.suite", description="Run ipyparallel's own tests.")
    add = parser.add_argument
    pairs = f"some of {', '.join(PAIRS)} (default: ours ours-stock)"
    add("--pairs", nargs="+", choices=PAIRS, default=["ours", "ours-stock"], metavar="PAIR", help=pairs)
    add("--modules", nargs="+", choices=MODULES, metavar="MODULE", help="some of the stock modules (default: all)")
    add("--only", nargs="+", default=[], metavar="TEST", help="some tests, as test_x.py::TestX::test_y")
    add("--limit", type=float, default=MODULE_LIMIT, metavar="SECONDS", help="for each module (default: %(default)g)")
    add("--out", type=Path, metavar="DIR", help="where logs and results go (default: a temporary one)")
    add("--write-results", action="store_true", help=f"write {RESULTS.relative_to(run.ROOT)}")
    add("--report", action="store_true", help="run nothing: report on the results in the --out directory")
    add("--run-only", action="store_true", help="keep the results in the --out directory, report nothing")
    arguments = parser.parse_args(argv)
    if not PYTHON.exists():
        print(f"{PYTHON} does not exist: `make test-compat` makes it", file=sys.stderr)
        return 2
    out = (arguments.out or Path(tempfile.mkdtemp(prefix="clusterd-compat-"))).absolute()
    named = {name.partition(".py::")[0] for name in arguments.only}
    modules = arguments.modules or [module for module in MODULES if module in named or not named]
    if arguments.run_only:
        for pair in arguments.pairs:
            one_pair(pair, modules, out, arguments.limit, arguments.only)
        return 0
    if not arguments.report:
        run_pairs(arguments, modules, out)
    results = {
        pair: [ModuleRun.from_json((out / pair / f"{module}.json").read_text()) for module in modules]
        for pair in arguments.pairs
    }
    for pair, runs in results.items():
        print(f"\n{PAIRS[pair].title}\n" + "\n".join([*report.table(runs), *report.not_passed(pair, runs)]))
    if arguments.write_results:
        asked = " ".join(["--pairs", *arguments.pairs, "--write-results"])
        command = f'make test-compat ARGS="{asked}"'
        facts = {"day": time.strftime("%Y-%m-%d", time.gmtime()), "command": command, "packages": packages()}
        RESULTS.write_text(report.render(results, facts))
        print(f"written: {RESULTS}")
    wrong = report.unexplained({pair: runs for pair, runs in results.items() if pair != "stock"})
    if wrong:
        print("\nNot explained:\n" + "\n".join(wrong) + f"\nLogs: {out}", file=sys.stderr)
    elif arguments.out is None:
        shutil.rmtree(out)
    return 1 if wrong else 0


def run_pairs(arguments: argparse.Namespace, modules: list[str], out: Path) -> None:
    """Run the pairs beside each other.

    Raises:
        subprocess.CalledProcessError: the run of one has failed, whatever came of its tests.
    """
    words = ["--run-only", "--modules", *modules, "--limit", str(arguments.limit), "--out", str(out)]
    words += ["--only", *arguments.only] if arguments.only else []
    commands = [[sys.executable, "-m", "tests.compat.suite", "--pairs", pair, *words] for pair in arguments.pairs]
    running = [subprocess.Popen(command, cwd=run.ROOT) for command in commands]
    for process in running:
        if status := process.wait():
            raise subprocess.CalledProcessError(status, process.args)


def one_pair(pair: str, modules: list[str], out: Path, limit: float, only: list[str]) -> None:
    """Run the modules one after the other; each one's results are kept at once."""
    for module in modules:
        found = run.run_module(module, PAIRS[pair], out / pair, limit=limit, only=only)
        (out / pair / f"{module}.json").write_text(found.to_json())
        words = ", ".join(f"{count} {name}" for name, count in report.counts([found]).items())
        print(f"{pair}: {module}: {words}; {found.seconds} s", flush=True)
        for name, test in found.tests.items():
            if test.outcome in BAD:
                print(f"    {test.final}: {name}: {(test.message.splitlines() or [''])[0]}", flush=True)


def packages() -> str:
    """Return the versions that were tried."""
    code = f"import importlib.metadata as m; print(', '.join(p + ' ' + m.version(p) for p in {PACKAGES!r}))"
    versions = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return f"Python {sys.version.split()[0]}, {versions}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
