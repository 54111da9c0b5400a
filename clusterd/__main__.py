"""The command `clusterd`: a table of words, each a program of its own with `main(argv) -> exit code`.

Imports nothing but what the word needs: agent and engine run in the users' environment, where little is installed, and the daemon's
first act is to start others. Exit code 2: usage.
"""

from __future__ import annotations

import importlib
import sys

WORDS = {
    "serve": ("clusterd.daemon.main", "the daemon: starts and watches what a profile describes"),
    "controller": ("clusterd.controller.main", "the controller of one cluster: queues tasks, hands them to engines"),
    "agent": ("clusterd.agent.main", "the supervisor of the engines on one node (started by a launcher)"),
    "engine": ("clusterd.engine.main", "a single engine, by hand, in the foreground"),
}

USAGE = (
    "usage: clusterd WORD [OPTION ...]     (clusterd WORD --help for the options; to command a daemon: clusterctl)\n"
)


def main(argv: list[str] | None = None) -> int:
    """Run one of the programs; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    word = arguments[0] if arguments else "--help"
    if word in WORDS:
        module = importlib.import_module(WORDS[word][0])
        return int(module.main(arguments[1:]))
    if word in {"-h", "--help", "help"}:
        width = max(map(len, WORDS))
        lines = [f"  {name:{width}}  {what}" for name, (_, what) in WORDS.items()]
        sys.stdout.write("\n".join([USAGE, *lines]) + "\n")
        return 0 if arguments else 2
    if word in {"-V", "--version"}:
        import clusterd  # noqa: PLC0415 - the package's own name, needed here only

        sys.stdout.write(f"clusterd {clusterd.__version__}\n")
        return 0
    return _unknown(word)


def _unknown(word: str) -> int:
    import difflib  # noqa: PLC0415 - 3 ms that only a typing error costs

    near = difflib.get_close_matches(word, WORDS, 1)
    guess = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(WORDS)}"
    sys.stderr.write(f"clusterd: unknown word {word!r}{guess}\n{USAGE}")
    return 2


if __name__ == "__main__":
    sys.exit(main())
