"""Takes secrets out of text, before it is given to others: those that are known, however they are written, and what looks like one.

Known are the keys of the cluster and the password of its database; unknown ones (an engine's log, a variable of the profile) are
recognised by the names that stand before them. Rather too much is removed than too little.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["REMOVED", "Redactor", "credentials_of", "secrets_in"]

REMOVED: Final = "[removed]"
SHORTEST: Final = 4
"""Characters: what is shorter would be found everywhere, and protects nothing."""

_SECRET_NAME: Final = re.compile(r"key|secret|token|curve|password|cookie", re.IGNORECASE)
# Bounded, here and below: a log may have a line of a megabyte, and any of its characters may begin a match.
_NAMES: Final = r"(?:passw(?:or)?d|passphrase|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|cookie)[\w.-]{0,64}"
_LOOKS_LIKE_ONE: Final = (
    # user:password@ in any URI
    (re.compile(r"(?P<kept>://)[^\s/@'\"]{1,512}(?=@)"), rf"\g<kept>{REMOVED}"),
    # NAME_TOKEN=..., "api_key": "...", password: ...; a value in quotes to its end
    (
        re.compile(rf"(?P<kept>{_NAMES}[\"']?\s*[:=]\s*)(?P<quote>[\"'])[^\n]*?(?P=quote)", re.IGNORECASE),
        rf"\g<kept>\g<quote>{REMOVED}\g<quote>",
    ),
    (re.compile(rf"(?P<kept>{_NAMES}\s*[:=]\s*)[^\s\"',;}}\]]+", re.IGNORECASE), rf"\g<kept>{REMOVED}"),
    (re.compile(r"(?P<kept>\b(?:Bearer|Basic)\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE), rf"\g<kept>{REMOVED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REMOVED),
    # 32 bytes in hex: the size of every key of ours; ids of tasks and engines have 16.
    (re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64,}(?![0-9A-Fa-f])"), REMOVED),
)


class Redactor:
    """Removes secrets from text.

    Args:
        secrets: the known ones, as text.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
        # The longest first: one may be the beginning of another.
        listed = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, listed)), re.IGNORECASE) if listed else None

    def clean(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        for pattern, replacement in _LOOKS_LIKE_ONE:
            text = pattern.sub(replacement, text)
        return text


def secrets_in(directory: Path) -> set[str]:
    """Return what is secret in the JSON files of a `security` directory: connection files, and what the controller keeps."""
    found: set[str] = set()
    for path in sorted(directory.glob("*.json")):
        found.update(_texts(json.loads(path.read_bytes()), is_secret=False))
    return found


def credentials_of(profile: str) -> set[str]:
    """Return the database password that a profile's text refers to by a file; nothing where it cannot be read."""
    found: set[str] = set()
    for name in re.findall(r"credentials:\s*[\"']?([^\s\"',}]+)", profile):
        try:
            text = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError, RuntimeError):
            continue
        for line in filter(None, map(str.strip, text.splitlines())):
            found |= {line, line.partition(":")[2]}
    return found


def _texts(content: Any, *, is_secret: bool) -> Iterator[str]:
    if isinstance(content, str) and is_secret:
        yield content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _texts(value, is_secret=is_secret or _SECRET_NAME.search(name) is not None)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, is_secret=is_secret)


def _forms(secret: str) -> Iterator[str]:
    """Yield the ways in which a secret may be written: as text, escaped, in hex and in base64; of hex also the bytes."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    contents = [secret.encode()]
    with contextlib.suppress(ValueError):
        contents.append(bytes.fromhex(secret))
    for content in contents:
        yield content.hex()
        yield repr(content)[2:-1]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(content).decode()
            yield encode(content).decode().rstrip("=")
