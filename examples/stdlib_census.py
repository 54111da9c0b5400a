"""Count Python's own standard library on the engines of a cluster: real input that every machine has.

    clusterctl -p local start
    python examples/stdlib_census.py local

Each engine parses files with `ast` and sends back what it counted; the same is then done in this one process, to compare
the results (they must be equal) and the times. The functions below live in this script and nowhere else: the client sends
them to the engines by value.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PARTS = 10
"""Off a terminal, progress is told this many times."""


def census_of(name: str) -> dict[str, Any]:
    """Count one file of the standard library; `name` is its path below the library's folder, which may differ by host."""
    source = (Path(sysconfig.get_path("stdlib")) / name).read_bytes()
    counts: dict[str, Any] = {
        "lines": source.count(b"\n"),
        "functions": 0,
        "classes": 0,
        "longest": (0, ""),
        "imports": set(),
    }
    try:
        with warnings.catch_warnings():
            # Some test files hold invalid escapes on purpose.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Wrong on purpose: input of the tests of parser, tokenizer and lib2to3.
        return {"unparsable": name}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            counts["functions"] += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            counts["longest"] = max(counts["longest"], (length, f"{node.name} in {name}:{node.lineno}"))
        elif isinstance(node, ast.ClassDef):
            counts["classes"] += 1
        elif isinstance(node, ast.Import):
            counts["imports"].update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            counts["imports"].add(node.module.partition(".")[0])
    return counts


def total(censuses: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Add up the counts of files, which may come in any order."""
    result: dict[str, Any] = {
        "files": 0,
        "lines": 0,
        "functions": 0,
        "classes": 0,
        "longest": (0, ""),
        "unparsable": [],
    }
    imports: Counter[str] = Counter()
    for census in censuses:
        if "unparsable" in census:
            result["unparsable"].append(census["unparsable"])
            continue
        result["files"] += 1
        for key in ("lines", "functions", "classes"):
            result[key] += census[key]
        result["longest"] = max(result["longest"], census["longest"])
        imports.update(census["imports"])
    result["unparsable"].sort()
    result["imports"] = dict(sorted(imports.items()))
    return result


def standard_library() -> list[str]:
    """Return the paths of all its sources, the largest first: a long one that came last would be waited for alone."""
    root = Path(sysconfig.get_path("stdlib"))
    sizes = {
        str(path.relative_to(root)): path.stat().st_size
        for path in root.rglob("*.py")
        if "site-packages" not in path.parts and "dist-packages" not in path.parts and path.is_file()
    }
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def with_progress(results: Iterable[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Yield the results and show how many there are: a bar on a terminal, else a few lines of text."""
    if sys.stdout.isatty():
        from rich.progress import track  # noqa: PLC0415 - only on a terminal

        yield from track(results, total=count, description="parsing")
        return
    for number, result in enumerate(results, 1):
        if number == count or number % max(1, count // PARTS) == 0:
            print(f"  {number:6,} of {count:,} files", flush=True)
        yield result


def table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    length, where = result["longest"]
    most = sorted(result["imports"].items(), key=lambda item: (-item[1], item[0]))[:8]
    return "\n".join(
        [
            f"  files             {result['files']:>10,}",
            f"  lines             {result['lines']:>10,}",
            f"  functions         {result['functions']:>10,}",
            f"  classes           {result['classes']:>10,}",
            f"  longest function  {length:>10,} lines: {where}",
            f"  most imported     {', '.join(f'{name} ({count})' for name, count in most)}",
            f"  not parsable      {len(result['unparsable']):>10,} (on purpose: test data)",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the census on a cluster and in this process; 0 when both give the same."""
    parser = argparse.ArgumentParser(description="Count Python's standard library on the engines of a cluster.")
    parser.add_argument("profile", nargs="?", default="local", help="profile or connection file (default: local)")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only the N largest files")
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds to wait for the first engine (default: 30)"
    )
    arguments = parser.parse_args(argv)

    import clusterd  # noqa: PLC0415 - the engines that get the functions above need not import it

    names = standard_library()[: arguments.limit]
    print(f"Python {sys.version.split()[0]}'s standard library: {len(names):,} files")
    # Read once, so that both ways find every file in the system's cache.
    for name in names:
        (Path(sysconfig.get_path("stdlib")) / name).read_bytes()

    with clusterd.Client(arguments.profile) as client:
        client.wait_for_engines(1, timeout=arguments.timeout)
        engines = len(client.ids)
        view = client.load_balanced_view()
        started = time.perf_counter()
        result = total(with_progress(view.map(census_of, names, ordered=False), len(names)))
        together = time.perf_counter() - started

    started = time.perf_counter()
    alone_result = total(map(census_of, names))
    alone = time.perf_counter() - started

    print(table(result))
    print(f"  time taken        {together:>10.2f} s on {engines} engine{'s' if engines != 1 else ''}")
    print(f"  one process takes {alone:>10.2f} s ({alone / together:.1f} times as long)")
    if result != alone_result:
        different = [key for key in result if result[key] != alone_result[key]]
        print(f"The engines counted something else than this process: {', '.join(different)}.", file=sys.stderr)
        print("Do they run the same release of Python?", file=sys.stderr)
        return 1
    print("  the engines and this process counted the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
