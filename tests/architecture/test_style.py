"""What every source file shows: an opening docstring that says its job, one job's worth of lines, a name that means something."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess

import pytest

from tests.architecture.sources import ROOT, modules

EVERY_MODULE = sorted(modules())
LONGEST_DOCSTRING = 12
LONGEST_FILE = 400
AIM = 300

EXEMPT: dict[str, str] = {
    # path: the reason why it is longer. A reason that no longer holds is a line to delete.
    "clusterd/core/wire/messages.py": "the whole grammar of the wire, one struct after the other, read beside PROTOCOL.md",
}
"""Files that may be longer than LONGEST_FILE."""

EMPTY_NAMES = {"util", "utils", "common", "helper", "helpers", "misc", "stuff", "base_utils"}


@pytest.mark.parametrize("name", EVERY_MODULE)
def test_a_module_opens_with_a_docstring_of_at_most_twelve_lines(name):
    module = modules()[name]
    docstring = ast.get_docstring(module.tree)
    assert docstring, f"{module.where} has no docstring: say what it decides or performs, and what it must never do"
    # errors.py draws the whole tree of exceptions in its docstring: that is its job.
    if name != "clusterd.errors":
        assert len(docstring.splitlines()) <= LONGEST_DOCSTRING, f"{module.where}: the rest belongs to ARCHITECTURE.md"


def test_no_module_has_a_name_that_says_nothing():
    assert [name for name in EVERY_MODULE if name.rpartition(".")[2] in EMPTY_NAMES] == []


def test_every_package_is_a_package():
    folders = {path.parent for path in (ROOT / "clusterd").rglob("*.py")} | {
        path.parent for path in (ROOT / "clusterctl").rglob("*.py")
    }
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_file_is_longer_than_one_job():
    lengths = {module.where: len(module.text.splitlines()) for module in modules().values()}
    too_long = {where: lines for where, lines in lengths.items() if lines > LONGEST_FILE and where not in EXEMPT}
    assert too_long == {}, "split them by job, or say in EXEMPT why not"
    assert [where for where in EXEMPT if lengths.get(where, 0) <= LONGEST_FILE] == [], "exempt without need"


def test_the_files_above_the_aim_are_listed(record_property, request):
    above = sorted(
        (len(module.text.splitlines()), module.where)
        for module in modules().values()
        if len(module.text.splitlines()) > AIM
    )
    for lines, where in above:
        record_property("long file", f"{where}: {lines} lines")
    # Too many exceptions are a rule that nobody keeps.
    assert len(above) <= max(3, len(EVERY_MODULE) // 4), above


def test_no_marks_of_unfinished_work():
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
    found = [
        f"{module.where}:{number}"
        for module in modules().values()
        for number, line in enumerate(module.text.splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


# Spelled in pieces, so that this file does not find itself.
WORKPLACE = re.compile(
    "|".join(
        [
            r"(?<![\w~.$}/-])/wo" + r"rk/",
            r"\.\./sha" + r"red",
            r"/opt/whe" + r"els",
            r"/opt/py" + r"pi",
            r"\bfa" + r"rm\b",
            r"\biss" + r"ue #?[0-9]+\b",
            r"\bbr" + r"ief\b(?= says)",
        ]
    ),
    re.IGNORECASE,
)


def _tracked() -> list[str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return [
            str(path.relative_to(ROOT))
            for package in ("clusterd", "clusterctl", "tests")
            for path in (ROOT / package).rglob("*.py")
        ]
    listed = subprocess.run([git, "-C", ROOT, "ls-files", "-z"], stdout=subprocess.PIPE, check=True).stdout
    return [name for name in listed.decode().split("\0") if name]


def test_nothing_names_the_place_where_it_was_written():
    found = []
    for name in _tracked():
        path = ROOT / name
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        found += [
            f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in WORKPLACE.finditer(text)
        ]
    assert found == []
