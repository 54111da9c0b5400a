"""The table of settings as a JSON Schema (draft 2020-12), for editors and for other programs that write profiles.

Derived from the model; adds what the reader does beyond it: it takes a section with nothing written in it, and
refuses settings that it does not know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from clusterd.core.model.profile import Profile

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """Return the schema of a profile."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clusterd profile",
        **msgspec.json.schema(Profile),
    }
    for section in schema["$defs"].values():
        section["additionalProperties"] = False
        for name, setting in section["properties"].items():
            section["properties"][name] = _or_text(_or_nothing(setting))
    return schema


def _or_text(setting: dict[str, Any]) -> dict[str, Any]:
    """Let a size be a text (64 MiB): a number with a pattern. msgspec does not let the model say a type of its own."""
    if setting.get("type") == "integer" and "pattern" in setting:
        return {**setting, "type": ["integer", "string"]}
    return setting


def _or_nothing(setting: dict[str, Any]) -> dict[str, Any]:
    """Let null stand for a section, list or mapping, as `controller:` does when everything in it is commented out."""
    if setting.get("minProperties"):
        return setting
    if setting.get("type") in ("object", "array"):
        return {**setting, "type": [setting["type"], "null"]}
    if "$ref" in setting:
        rest = {key: value for key, value in setting.items() if key != "$ref"}
        return {**rest, "anyOf": [{"$ref": setting["$ref"]}, {"type": "null"}]}
    return setting
