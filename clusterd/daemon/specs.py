"""Profile -> what a launch is told: its spec, and the program that a launcher is to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd import __version__
from clusterd.core.model.connection import ENGINE_FILE
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.launch import AgentSpec, ControllerSpec
from clusterd.core.supervisor.settings import AGENT_MARGIN
from clusterd.launchers.base import Program

if TYPE_CHECKING:
    from clusterd.core.model.profile import Profile
    from clusterd.daemon.places import Places

__all__ = ["agent_spec", "controller_spec", "kind_of", "program"]


def kind_of(unit: str) -> str:
    """Return which of our programs runs a unit: `controller` or `agent`."""
    return "controller" if unit == CONTROLLER else "agent"


def controller_spec(profile: Profile, places: Places, launch: str) -> ControllerSpec:
    """Return what a launch of the controller is told."""
    section = profile.controller
    return ControllerSpec(
        launch=launch,
        cluster=places.name,
        profile_dir=str(places.state),
        runtime_dir=str(places.runtime),
        log_dir=str(places.logs),
        ip=section.ip,
        location=section.location,
        transport=section.transport,
        reuse=section.reuse,
        ports=section.ports,
        database=section.database,
        durable=section.durable,
        records=section.records,
        sqlite=section.sqlite,
        mongodb=section.mongodb,
        client_credit=section.client_credit,
        max_message=section.max_message,
        stock=_stock(profile, places),
        task_scheme=section.task_scheme,
        ping=section.ping,
        software=f"clusterd {__version__}",
    )


def _stock(profile: Profile, places: Places) -> str:
    section = profile.controller
    return section.stock or ("curve" if places.is_service or not _is_loopback(section.ip) else "on")


def _is_loopback(ip: str) -> bool:
    return ip in {"localhost", "::1"} or ip.startswith("127.")


def agent_spec(
    profile: Profile,
    places: Places,
    launch: str,
    unit: str,
    slots: tuple[int, ...],
    generation: int,
    *,
    has_journal: bool = False,
) -> AgentSpec:
    """Return what a launch of an engine set is told."""
    section = profile.engine_sets[unit]
    return AgentSpec(
        launch=launch,
        cluster=places.name,
        engine_set=unit,
        profile_dir=str(places.state),
        runtime_dir=str(places.runtime),
        log_dir=str(places.logs),
        connection_file=str(places.security / ENGINE_FILE),
        slots=slots,
        generation=generation,
        env=section.env,
        preload=section.preload,
        work_dir=section.work_dir,
        startup=section.startup,
        cpus_per_engine=section.cpus_per_engine,
        gpus_per_engine=section.gpus_per_engine,
        bind=section.bind,
        restart=section.restart,
        start_timeout=section.start_timeout,
        stop_timeout=section.stop_timeout,
        orphan_timeout=section.orphan_timeout,
        stock=_stock(profile, places) != "off",
        journal=has_journal,
        software=f"clusterd {__version__}",
    )


def program(profile: Profile, places: Places, launch: str, unit: str) -> Program:
    """Return the program of a launch; its spec file is to be written first."""
    log, spec = str(places.log_file(unit)), str(places.spec_file(launch))
    if unit == CONTROLLER:
        controller = profile.controller
        title = f"the controller of {places.name}"
        return Program(
            launch=launch,
            title=title,
            word="controller",
            spec=spec,
            log=log,
            python=controller.python,
            env=controller.env,
            cluster=places.name,
            unit=unit,
            limits=controller.limits,
            stop_timeout=controller.stop_timeout,
        )
    section = profile.engine_sets[unit]
    # The set's own variables are for its engines: the zygote sets them, with the placeholders of each slot.
    title = f"the agent of {places.name}/{unit}"
    return Program(
        launch=launch,
        title=title,
        word="agent",
        spec=spec,
        log=log,
        python=section.python,
        setup=section.setup,
        cluster=places.name,
        unit=unit,
        limits=section.limits,
        stop_timeout=section.stop_timeout + AGENT_MARGIN,
    )
