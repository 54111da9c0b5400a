"""What requests may hold: bodies and query parameters as structs, and messages that name the field that is wrong.

Unknown fields are refused, not ignored: a misspelt `drian_timeout` must not be taken for the default.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from clusterd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BODY_MAX",
    "Drain",
    "Empty",
    "Events",
    "Explain",
    "Logs",
    "Restart",
    "Resume",
    "RotateKey",
    "Scale",
    "Start",
    "StatusQuery",
    "Stop",
    "Strays",
    "Targets",
    "TasksPurge",
    "TasksQuery",
    "decode_body",
    "decode_query",
]

BODY_MAX = 256 * 1024
"""Bytes: the largest is a list of 65,536 engines."""

_Count = Annotated[int, Meta(ge=0, le=65_536)]
_Seconds = Annotated[float, Meta(ge=0, le=604_800)]
_Cursor = Annotated[str, Meta(pattern=r"^[0-9]{1,18}:[0-9]{1,18}$")]


class _Request(Struct, forbid_unknown_fields=True):
    pass


class Empty(_Request):
    """Nothing."""


class StatusQuery(_Request):
    """GET cluster, at once or as a long poll of at most `timeout` seconds.

    `wait=converged` answers when the wish has come true, or cannot; `wait=change` when anything happened after event
    number `since` (the `seq` of the status that the caller has).
    """

    wait: str | None = None
    since: Annotated[int, Meta(ge=0)] = 0
    timeout: _Seconds = 60.0

    def __post_init__(self) -> None:
        if self.wait not in (None, "converged", "change"):
            raise ValueError("`wait` is `converged` or `change`")


class Start(_Request):
    """POST start: run the cluster; `n` engines in the default set, by default as wanted last, or as the profile says."""

    n: _Count | None = None


class Stop(_Request):
    """POST stop: end engines and controller. `timeout`: seconds before what is left is killed.

    `daemon`: end the daemon too; null means: if `clusterctl start` began it. `plan`: change nothing, and tell what would be touched.
    """

    timeout: _Seconds | None = None
    daemon: bool | None = None
    plan: bool = False


class Restart(_Request):
    """POST restart: `all`, `controller`, or the name of an engine set. `plan` as in Stop."""

    what: str = "all"
    plan: bool = False


class Scale(_Request):
    """PUT set: `n` engines. `drain_timeout`: seconds for tasks on engines that go; by default what the profile says. `plan` as in Stop."""

    n: _Count
    drain_timeout: _Seconds | None = None
    plan: bool = False


class Drain(_Request):
    """POST drain: these engines (as in Targets) get no new tasks, and end when they have none left, or after `drain_timeout`.

    The set's number goes down by as many; with `replace` each gets a successor in its place. `plan` as in Stop.
    """

    targets: Annotated[list[int | str], Meta(min_length=1)]
    replace: bool = False
    drain_timeout: _Seconds | None = None
    plan: bool = False


class Resume(_Request):
    """POST resume: end the crash loop of these slots, or of all."""

    slots: list[_Count] | None = None


class RotateKey(_Request):
    """POST rotate-key: new keys; the present ones are accepted for `grace` seconds more (0: they are refused at once)."""

    grace: _Seconds = 60.0


class Targets(_Request):
    """POST engines: `engines/3`, `engines` (the whole set), `3` (slot 3 of the default set), `id:7` (wire id)."""

    targets: Annotated[list[int | str], Meta(min_length=1)]


class Logs(_Request):
    """GET logs. `source` is one of, or a comma separated list of, engines/3, controller, daemon, agent.

    `after`: a wall time. Lines that say that they are older are left out, and files that were not written since.
    """

    source: str | None = None
    follow: bool = False
    tail: Annotated[int, Meta(ge=0, le=100_000)] = 20
    after: float | None = None


class Events(_Request):
    """GET events. `since`: the `seq` of the last event already seen; `after`: a wall time, of which only later ones are told."""

    follow: bool = False
    since: Annotated[int, Meta(ge=0)] = 0
    after: float | None = None


class Strays(_Request):
    """POST gc: end these, of those that GET orphans has listed."""

    names: Annotated[list[str], Meta(min_length=1)]


class Explain(_Request):
    """GET explain. `subject`: `engines/3`, `3`, `id:7`, a set, `agent`, `agent/SET` or `controller`."""

    subject: Annotated[str, Meta(min_length=1, max_length=200)]


class _TaskFilter(_Request, kw_only=True):
    """Which tasks: `since` and `before` are seconds since the epoch between which they were submitted; see `Selection`."""

    state: str | None = None
    label: str | None = None
    name: str | None = None
    engine: str | None = None
    client: str | None = None
    since: float | None = None
    before: float | None = None
    cursor: _Cursor | None = None


class TasksQuery(_TaskFilter, kw_only=True):
    """GET tasks: a page of at most `limit`, from where `next` of the page before says (`cursor`). `full`: with output and traceback."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    oldest_first: bool = False
    full: bool = False


class TasksPurge(_TaskFilter, kw_only=True):
    """POST tasks/purge: these tasks, or those that ended before a time and are as the rest says; from `next` of the answer before on."""

    tasks: Annotated[list[str], Meta(min_length=1, max_length=1000)] | None = None
    ended_before: float | None = None

    def __post_init__(self) -> None:
        given = [field for field in self.__struct_fields__ if field != "cursor" and getattr(self, field) is not None]
        if not given:
            raise ValueError("it is not said which tasks: give `tasks`, `ended_before`, `state`, ...")
        if self.tasks is not None and len(given) > 1:
            raise ValueError("`tasks` stands alone: what is named is purged")


_T = TypeVar("_T", bound=_Request)


def decode_body(kind: type[_T], data: bytes) -> _T:
    """Return the body as a struct; an empty body is an empty object.

    Raises:
        ControlError: code `bad_request`; the text names the field.
    """
    try:
        return msgspec.json.decode(data.strip() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _bad(kind, str(error), "field") from None
    except msgspec.DecodeError as error:
        raise ControlError(f"the body is not JSON: {error}", code="bad_request") from None


def decode_query(kind: type[_T], parameters: Mapping[str, str]) -> _T:
    """Return the query parameters as a struct; raises as `decode_body` does."""
    # `follow=` and `follow=yes` are what people type; msgspec takes true, false, 0 and 1.
    words = {"yes": "true", "no": "false", "on": "true", "off": "false"}
    given = {name: words.get(value.lower(), value) for name, value in parameters.items()}
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _bad(kind, str(error), "parameter") from None


def _bad(kind: type[_Request], text: str, noun: str) -> ControlError:
    names = [field.name for field in msgspec.structs.fields(kind)]
    known = f"known here: {', '.join(names)}" if names else f"no {noun} is taken here"
    message, _, place = text.partition(" - at `$.")
    message = message.replace("`", "")
    if unknown := re.search(r"unknown field (\S+)", message):
        near = difflib.get_close_matches(unknown[1], names, n=1)
        hint = f"did you mean `{near[0]}`? {known}" if near else known
        return ControlError(f"unknown {noun} `{unknown[1]}`", code="bad_request", hint=hint)
    if missing := re.search(r"missing required field (\S+)", message):
        return ControlError(f"{noun} `{missing[1]}` is missing", code="bad_request", hint=known)
    name = re.split(r"[\[.`]", place)[0]
    where = f"{noun} `{name}`: " if name else ""
    return ControlError(f"{where}{_sentence(message)}", code="bad_request", hint=known)


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:]


def answer(**content: Any) -> dict[str, Any]:
    """Return an answer in the versioned shape."""
    return {"version": 1, **content}
