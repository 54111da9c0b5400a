"""YAML text -> `clusterd.core.model.profile.Profile`: every mistake with file, line and column, all of them at once.

`find` a name, `read` its file, `parse` a text, list `names`; `diff` for reload, `json_schema` for editors, `create`
for a first file, `doubts` and `unknown_names` for what is only doubtful on this host. Never loads YAML into objects, never guesses.
"""

from __future__ import annotations

from clusterd.profile.differences import Change, diff
from clusterd.profile.host import doubts, unknown_names
from clusterd.profile.lookup import Listed, check_name, find, listing, names, search_path, writable_directory
from clusterd.profile.mistakes import InvalidProfile, Mistake
from clusterd.profile.output import as_builtins, effective_yaml
from clusterd.profile.reading import expanded, home_of, parse, read
from clusterd.profile.schema import json_schema
from clusterd.profile.template import create

__all__ = [
    "Change",
    "InvalidProfile",
    "Listed",
    "Mistake",
    "as_builtins",
    "check_name",
    "create",
    "diff",
    "doubts",
    "effective_yaml",
    "expanded",
    "find",
    "home_of",
    "json_schema",
    "listing",
    "names",
    "parse",
    "read",
    "search_path",
    "unknown_names",
    "writable_directory",
]
