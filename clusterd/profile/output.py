"""A profile as other programs and people read it back: plain values, and YAML with every setting in effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import yaml

if TYPE_CHECKING:
    from clusterd.core.model.profile import Profile

__all__ = ["OneLine", "as_builtins", "as_yaml", "effective_yaml"]


def as_builtins(profile: Profile) -> dict[str, Any]:
    """Return a profile as dicts, lists, text and numbers, for JSON."""
    plain: dict[str, Any] = msgspec.to_builtins(profile)
    return plain


def effective_yaml(profile: Profile) -> str:
    """Return YAML with every setting of a profile; reading it gives the same profile."""
    return yaml.dump(as_builtins(profile), Dumper=OneLine, width=2**31, allow_unicode=True, sort_keys=False)


def as_yaml(value: Any) -> str:
    """Return a value in YAML on a single line."""
    text = yaml.dump(value, Dumper=OneLine, default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


class OneLine(yaml.SafeDumper):
    """Writes each text on one line: a line break in it becomes an escape; no anchors."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Return the node of a text."""
        style = '"' if text.splitlines() not in ([], [text]) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Return that equal parts are written out each time."""
        return True


OneLine.add_representer(str, OneLine.represent_text)
