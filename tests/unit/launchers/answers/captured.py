"""Reads the captures under tests/golden/openpbs: command, and what it said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from clusterd.launchers.answers.answer import Reply

OPENPBS = Path(__file__).parents[3] / "golden" / "openpbs"


class Capture(NamedTuple):
    """One file; `reply` is None for a time line or a list of the recorder's."""

    name: str
    command: str
    reply: Reply | None


def capture(name: str) -> Capture:
    text = (OPENPBS / name).read_bytes().decode(errors="replace")
    head, mark, rest = text.partition("\n--- stdout\n")
    command = re.sub(r"\A# ?", "", head.splitlines()[0] if head else "")
    if not mark:
        return Capture(name, command, None)
    stdout, _, stderr = rest.rpartition("--- stderr\n") if "--- stderr\n" in rest else (rest, "", "")
    # Only the first of them belongs to the first command.
    stdout, _, _ = stdout.partition("\n--- stdout\n")
    status = re.search(r"^rc: (-?[0-9]+)$", head, re.MULTILINE)
    return Capture(name, command, Reply(stdout, stderr, int(status[1]) if status else 0))


def names() -> list[str]:
    return sorted(str(path.relative_to(OPENPBS)) for path in OPENPBS.rglob("*.txt"))
