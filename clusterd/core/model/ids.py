"""The names of things: slots, launches, engines. Parsing and formatting, nothing else.

`engines/3` is a slot: the operator's stable name of an engine's place. `1f3c9a20-17` is a launch: the cluster's instance
(new when its journal begins) and a number that is never used twice, so that a job or process of an earlier life, whose
journal is gone, is never taken for one of ours. An engine's uuid is 16 bytes; in file names and JSON it is hex.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = [
    "CONTROLLER",
    "DEFAULT_SET",
    "LaunchName",
    "SlotName",
    "engine_hex",
    "engine_uuid",
    "format_launch",
    "format_slot",
    "parse_launch",
    "parse_slot",
]

CONTROLLER: Final = "controller"
"""The unit that every cluster has besides its engine sets; therefore no engine set may be called so."""

DEFAULT_SET: Final = "engines"

_SLOT = re.compile(r"(?:(?P<set>[A-Za-z0-9][A-Za-z0-9._-]*)/)?(?P<number>0|[1-9][0-9]{0,6})")
_LAUNCH = re.compile(r"(?P<instance>[0-9a-f]{8})-(?P<number>0|[1-9][0-9]*)")


class SlotName(NamedTuple):
    """One place for an engine.

    Attributes:
        engine_set: name of the set.
        number: 0, 1, 2 ...
    """

    engine_set: str
    number: int

    def __str__(self) -> str:
        return format_slot(self.engine_set, self.number)


class LaunchName(NamedTuple):
    """One attempt to start engines or a controller.

    Attributes:
        instance: 8 hex digits, chosen when the journal was begun.
        number: counts all launches of the instance, from 0.
    """

    instance: str
    number: int


def format_slot(engine_set: str, number: int) -> str:
    """Return `engines/3`."""
    return f"{engine_set}/{number}"


def parse_slot(text: str) -> SlotName:
    """Understand what people type: `gpu/3`, and for the default set `engines/3`, `engine/3` or `3`.

    Raises:
        ValueError: it is no slot; the text says what one looks like.
    """
    match = _SLOT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no engine: write SET/NUMBER, such as engines/3, or 3 for the default set")
    engine_set = match["set"] or DEFAULT_SET
    return SlotName(DEFAULT_SET if engine_set == "engine" else engine_set, int(match["number"]))


def format_launch(instance: str, number: int) -> str:
    """Return `1f3c9a20-17`: safe in file names, job names (PBS: 15 characters at one time) and shell lines."""
    return f"{instance}-{number}"


def parse_launch(text: str) -> LaunchName | None:
    """Return the parts of a launch id, None when it is not one: other people's jobs have names, too."""
    match = _LAUNCH.fullmatch(text)
    return None if match is None else LaunchName(match["instance"], int(match["number"]))


def engine_hex(uuid: bytes) -> str:
    """Return an engine's uuid as it stands in file names.

    Raises:
        ValueError: it has not 16 bytes.
    """
    if len(uuid) != 16:
        raise ValueError(f"an engine's uuid has 16 bytes, not {len(uuid)}")
    return uuid.hex()


def engine_uuid(text: str) -> bytes:
    """Return the uuid that `engine_hex` wrote.

    Raises:
        ValueError: it is not 32 hex digits.
    """
    uuid = bytes.fromhex(text)
    if len(uuid) != 16:
        raise ValueError(f"{text!r} is no engine's uuid (32 hex digits)")
    return uuid
