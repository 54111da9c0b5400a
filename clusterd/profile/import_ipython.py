"""An ipyparallel profile directory -> a profile of ours in YAML, and the list of what could not be taken over.

Read are ipcluster_config.py, ipcontroller_config.py, ipengine_config.py and the templates that they name, all as texts: nothing
is run. Each class that traitlets would look at is looked at, the most special first. Whatever is set and has no counterpart
stands in the list; what ipyparallel needed and clusterd does not (signals, poll intervals, log files) stands there with that reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from clusterd.errors import ProfileError
from clusterd.profile.ipython_settings import controller, engine_set
from clusterd.profile.ipython_taken import Taken, needless
from clusterd.profile.output import OneLine
from clusterd.profile.python_config import MAX_TEXT, Assignment, Note, read_config

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILES", "Imported", "import_ipython"]

FILES: Final = ("ipcluster_config.py", "ipcontroller_config.py", "ipengine_config.py")
"""Where two of them set the same, the later one wins."""


class Imported(NamedTuple):
    """A profile that was read.

    Attributes:
        values: as in the YAML.
        text: the YAML, with the notes as comments.
        notes: what could not be taken over, in the order of the files.
    """

    values: dict[str, Any]
    text: str
    notes: tuple[Note, ...]


def import_ipython(directory: Path) -> Imported:
    """Read a directory such as ~/.ipython/profile_pbs.

    Raises:
        ProfileError: it is none, or has none of the files.
    """
    settings: dict[tuple[str, str], Assignment] = {}
    notes: list[Note] = []
    is_found = False
    for name in FILES:
        path = directory / name
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_TEXT + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
        is_found = True
        config = read_config(text, name)
        settings.update(config.settings)
        notes += config.notes
    if not is_found:
        hint = "name the directory of a profile of ipyparallel, such as ~/.ipython/profile_pbs"
        raise ProfileError(f"{directory}: there is no {', '.join(FILES[:-1])} or {FILES[-1]}", hint=hint)
    taken = Taken(settings, directory)
    values: dict[str, Any] = {
        "version": 1,
        "description": f"Imported from {directory.name}",
        # Notebooks find the cluster under the name that they always used.
        "publish": "ipython",
        "controller": controller(taken),
        "engine_sets": {"engines": engine_set(taken)},
    }
    notes += taken.notes
    for key, assignment in settings.items():
        if key not in taken.used:
            reason = needless(key) or "has no counterpart; see whether it is needed"
            notes.append(Note(assignment.source, assignment.line, ".".join(key), reason))
    for path in sorted(directory.glob("*.template")):
        if path.absolute() not in taken.templates:
            notes.append(Note(path.name, 0, "the template", "no setting that was taken over names it"))
    if any(directory.glob("startup/*.py")):
        reason = "engines do not run them; put them into one file and name it under engine_sets.engines.startup.script"
        notes.append(Note("startup", 0, "its Python files", reason))
    notes.sort(
        key=lambda note: (note.source not in FILES, FILES.index(note.source) if note.source in FILES else 0, note.line)
    )
    return Imported(values, _text(values, directory, notes), tuple(notes))


def _text(values: dict[str, Any], directory: Path, notes: list[Note]) -> str:
    lines = [f"# Imported from {_comment(str(directory))}."]
    if notes:
        lines += ["#", "# Not taken over:"]
        lines += [f"#   {_comment(note.rendered())}" for note in notes]
    body = yaml.dump(values, Dumper=_Blocks, width=2**31, allow_unicode=True, sort_keys=False)
    return "\n".join(lines) + "\n" + body


def _comment(text: str) -> str:
    # A file name or a line of code may contain what would end the comment.
    return "".join(character if character.isprintable() else "?" for character in text)


class _Blocks(OneLine):
    """Writes templates as people do: line by line."""

    def represent_block(self, text: str) -> yaml.ScalarNode:
        """Return the node of a text; one of several lines is a block."""
        if "\n" in text:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style="|")
        return self.represent_text(text)


_Blocks.add_representer(str, _Blocks.represent_block)
