"""What is wrong with a profile: each mistake with its place, all of them in one error.

Collected while a file is read and bounded, since a file that is no profile at all could have one on every line.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, NamedTuple

from clusterd.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["InvalidProfile", "Mistake", "Mistakes", "Place", "TooManyMistakes", "dotted", "nearest", "shown"]

# Nobody reads more; and it bounds the work of searching a near word for each.
LIMIT = 100


class Mistake(NamedTuple):
    """One thing that is wrong, and where; line and column count from 1, columns in characters."""

    line: int
    column: int
    path: str
    """Setting it is about, `engine_sets.engines.n`; empty when it is about the text itself."""
    message: str
    hint: str = ""
    """What to write instead; empty when that is plain from the message."""

    def rendered(self, source: str) -> str:
        """Return `FILE:LINE:COLUMN: message (hint)`, which editors and terminals turn into a link."""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{source}:{self.line}:{self.column}: {self.message}{hint}"


class InvalidProfile(ProfileError):
    """A profile was read and has mistakes.

    Attributes:
        source: the file, as it is named in messages.
        mistakes: all of them (the first hundred), in the order of the text.
    """

    def __init__(self, source: str, mistakes: Iterable[Mistake], *, is_cut: bool = False) -> None:
        self.source = source
        self.mistakes = tuple(sorted(mistakes))
        lines = [mistake.rendered(source) for mistake in self.mistakes]
        if is_cut:
            lines.append(f"{source}: more than {LIMIT} mistakes; the rest is not shown")
        super().__init__("\n".join(lines))


class Place(NamedTuple):
    """A position in the text, counted from 1."""

    line: int
    column: int


class TooManyMistakes(Exception):
    """The limit is reached: reading on would only cost time."""


class Mistakes:
    """Collects the mistakes of one text."""

    def __init__(self) -> None:
        self.found: list[Mistake] = []
        # Settings that have a mistake: nothing that follows from their values is worth reporting.
        self.paths: set[tuple[str | int, ...]] = set()

    def add(self, place: Place, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        """Note a mistake.

        Raises:
            TooManyMistakes: that was the last one taken.
        """
        if len(self.found) >= LIMIT:
            raise TooManyMistakes
        self.found.append(Mistake(place.line, place.column, dotted(path), message, hint))
        if path:
            self.paths.add(path)


def dotted(path: tuple[str | int, ...]) -> str:
    """Return a path the way people write it: `engine_sets.engines.setup[1]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            # A name of the file, which may be anything: what is no word is shown as the text it is.
            word = step if re.fullmatch(r"[\w.-]{1,64}", step) else shown(step)
            text += f".{word}" if text else word
    return text


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """Return the valid word that was most probably meant, None when none is near."""
    # No word of ours is longer; a long one costs difflib time for nothing.
    if len(word) > 64:
        return None
    # "N", "OnFailure" and "max-message" differ from the valid word in writing only; difflib takes them for far.
    folded = {candidate.replace("-", "_").lower(): candidate for candidate in valid}
    matches = difflib.get_close_matches(word.replace("-", "_").lower(), sorted(folded), n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def shown(text: str) -> str:
    """Return a word of the file for a message: quoted, escaped (it may aim at the terminal), cut."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
