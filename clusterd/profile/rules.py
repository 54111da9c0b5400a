"""DECIDES what depends on more than one setting, or on the inside of a text; `values` has looked at each one alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clusterd.core.model import placeholder
from clusterd.core.model.database import DURABLE_DATABASES
from clusterd.core.model.profile import (
    OTHER_SET_NAMES,
    RESERVED_SET_NAMES,
    ControllerSection,
    EngineSet,
    Profile,
    RestartPolicy,
    port_range,
)
from clusterd.profile.mistakes import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Breach", "breaches"]

# Two connections, data and control, for clients and for engines each.
_PORTS_NEEDED = 4
# What ipyparallel's connection files have ports for, seven for clients and seven for engines.
_STOCK_PORTS = 14

_Path = tuple[str | int, ...]


class Breach(NamedTuple):
    """A rule that a profile breaks."""

    path: _Path
    """The setting that is to be changed."""
    message: str
    hint: str = ""
    others: tuple[_Path, ...] = ()
    """Settings it depends on: when one of them is wrong itself, this is not worth saying."""


def breaches(profile: Profile) -> Iterator[Breach]:
    """Yield every rule that `profile` breaks."""
    controller = profile.controller
    ports = port_range(controller.ports)
    if ports is not None:
        first, last = ports
        path: _Path = ("controller", "ports")
        if not 1 <= first <= last <= 65535:
            yield Breach(
                path, f"{controller.ports} is not a range of ports", "ports are 1 to 65535, the lower one first"
            )
        elif last - first + 1 < (needed := _PORTS_NEEDED + (_STOCK_PORTS if controller.stock != "off" else 0)):
            hint = f"a controller needs {needed}"
            if controller.stock != "off":
                hint += f", or {_PORTS_NEEDED} with stock: off"
            yield Breach(path, f"{controller.ports} has too few ports", hint, others=(("controller", "stock"),))
    if profile.publish is not None and controller.stock == "off":
        message = "its clients are not served: controller.stock is off"
        yield Breach(("publish",), message, "set that to on or curve", others=(("controller", "stock"),))
    if "@" in controller.mongodb.uri:
        message = "user and password do not belong here"
        yield Breach(("controller", "mongodb", "uri"), message, "write them into a file named by credentials")
    yield from _durable(controller)
    yield from _backoff(("controller", "restart"), controller.restart)
    for name, engine_set in profile.engine_sets.items():
        yield from _engine_set(("engine_sets", name), name, engine_set)


def _durable(controller: ControllerSection) -> Iterator[Breach]:
    if controller.durable != "off":
        path: _Path = ("controller", "durable")
        if controller.database not in DURABLE_DATABASES:
            message = f"{controller.durable} needs a database that outlives the controller, not {controller.database}"
            yield Breach(path, message, "set database to sqlite or mongodb", others=(("controller", "database"),))
        if not controller.reuse:
            message = f"{controller.durable} needs keys and ports that outlive the controller"
            yield Breach(path, message, "set reuse: true", others=(("controller", "reuse"),))


def _engine_set(path: _Path, name: str, engine_set: EngineSet) -> Iterator[Breach]:
    if name in RESERVED_SET_NAMES:
        yield Breach(path, f"an engine set cannot be called {name}", "`clusterctl logs` means the process by it")
    if name in OTHER_SET_NAMES:
        yield Breach(path, f"an engine set cannot be called {name}", "engines that are in no set are listed under it")
    if engine_set.n > engine_set.max:
        message = f"{engine_set.n} engines are more than max, {engine_set.max}"
        yield Breach((*path, "n"), message, "lower n or raise max", others=((*path, "max"),))
    yield from _backoff((*path, "restart"), engine_set.restart)
    for variable, value in engine_set.env.items():
        for what, part in placeholder.mistakes(value):
            known = " ".join(f"{{{word}}}" for word in placeholder.PLACEHOLDERS)
            hint = f"known: {known}; a brace is written twice: {{{{ or }}}}"
            yield Breach((*path, "env", variable), f"{what} {shown(part)}", hint)


def _backoff(path: _Path, restart: RestartPolicy) -> Iterator[Breach]:
    if restart.initial_backoff > restart.max_backoff:
        message = f"{restart.initial_backoff:g} is more than max_backoff, {restart.max_backoff:g}"
        yield Breach((*path, "initial_backoff"), message, others=((*path, "max_backoff"),))
