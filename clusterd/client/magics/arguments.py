"""The lines of magics: options, and how engines are named in text. Pure."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUPS: Final = ("type", "engine", "order")
"""How output is put in order: all that was printed, then all that was displayed; engine by engine; or first pieces first."""
_SLICE: Final = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?")
_LIST: Final = re.compile(r"\[?\s*-?\d+(\s*,\s*-?\d+)*\s*,?\s*\]?")


class UsageError(ClusterdError):
    """A magic was written wrongly; IPython shows the sentence alone."""

    code = "usage"

    def _render_traceback_(self) -> list[str]:
        return [f"UsageError: {self}"]


class Settings(NamedTuple):
    """What a cell is run with.

    Attributes:
        targets: as in `client[...]`; None: the engines of the active view.
        is_waiting: show the output before the next cell; else the cell gives a future.
        is_local: run it in this process too.
        group: one of GROUPS.
        progress_after: seconds after which a bar is shown.
        name: of a variable for the future; empty: none.
    """

    targets: Any = None
    is_waiting: bool = True
    is_local: bool = False
    group: str = "type"
    progress_after: float = 2.0
    name: str = ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise where argparse would end the process."""
        raise UsageError(f"{self.prog}: {message}", hint=self.format_usage().strip())


def read(magic: str, line: str, settings: Settings, names: Mapping[str, Any]) -> Settings:
    """The settings that a line changes.

    Args:
        magic: `%%px`, `%pxresult` or `%pxconfig`; each has some of the options.
        line: what stands behind it.
        settings: what holds otherwise.
        names: the user's variables: one may name the engines.

    Raises:
        UsageError: an option is unknown, or its value is none.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{magic}: {error}") from error
    found = vars(_parser(magic).parse_args(words))
    if found.get("targets") is not None:
        found["targets"] = targets(found["targets"], names)
    if not found.get("name", "").isidentifier() and found.get("name"):
        raise UsageError(f"{magic}: {found['name']!r} is not the name of a variable")
    return settings._replace(**found)


def _parser(magic: str) -> _Parser:
    # Absent options are absent from the result: the defaults are the settings that hold.
    parser = _Parser(prog=magic, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("-g", "--group-outputs", dest="group", choices=GROUPS)
    if magic != "%pxconfig":
        parser.add_argument("-o", "--name", "--out", dest="name", metavar="NAME")
    if magic != "%pxresult":
        parser.add_argument("-t", "--targets", metavar="ENGINES")
        parser.add_argument("-b", "--block", dest="is_waiting", action="store_true")
        parser.add_argument("-a", "--noblock", dest="is_waiting", action="store_false")
        parser.add_argument("--local", dest="is_local", action="store_true")
        parser.add_argument("--remote", dest="is_local", action="store_false")
        parser.add_argument("--progress-after", type=_seconds, metavar="SECONDS")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError("it is a number of seconds from 0")
    return seconds


def targets(text: str, names: Mapping[str, Any]) -> Any:
    """What engines a text names: `all`, `0`, `-1`, `1:3`, `0,2,5`, or a variable that holds such a choice or a view.

    Raises:
        UsageError: it names none.
    """
    if text == "all":
        return "all"
    if _LIST.fullmatch(text):
        numbers = [int(number) for number in text.strip("[], ").split(",")]
        return numbers[0] if len(numbers) == 1 and not text.startswith("[") else numbers
    bounds = _SLICE.fullmatch(text)
    if bounds is not None:
        return slice(*(int(bound) if bound else None for bound in bounds.groups()))
    if text in names:
        chosen = names[text]
        return getattr(chosen, "targets", chosen)
    raise UsageError(
        f"--targets {text}: engines are named as all, 0, -1, 1:3, 0,2,5, or by a variable that holds such a choice"
    )
