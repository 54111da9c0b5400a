"""What `status` tells: desired, observed, how old the observation is, and why the two differ. A pure function of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from clusterd.core.model.ids import CONTROLLER, format_slot
from clusterd.core.supervisor.phases import Phase

if TYPE_CHECKING:
    from clusterd.core.supervisor.machine import Supervisor

__all__ = ["ClusterView", "LaunchView", "UnitView", "view"]

ClusterState: TypeAlias = Literal["stopped", "starting", "running", "degraded", "stopping"]


class LaunchView(Struct, frozen=True):
    """One launch.

    Attributes:
        id: of the launch.
        state: requested, unknown, queued, starting, ready, unreachable or stopping.
        pid: of its process, 0 when it is a job or not known.
        host: id of the process's host, likewise empty.
        job: the batch system's id, likewise.
        slots: that it holds.
        unknown_for: seconds for which nobody could say whether it runs; None while somebody can.
        evidence: how its state is known.
        reason: why it is being stopped.
    """

    id: str
    state: str
    pid: int
    host: str
    job: str
    slots: tuple[int, ...]
    unknown_for: float | None
    evidence: str
    reason: str


class UnitView(Struct, frozen=True):
    """The controller or an engine set.

    Attributes:
        unit: its name.
        desired: how many engines are wanted (a controller: 0 or 1).
        observed: how many are registered (ready).
        observed_age: seconds since that was asked; None when it never was.
        is_converged: what is wanted is so, and nothing else is.
        generation: of the wish.
        reason: why not, in a sentence; empty when it is.
        hint: what to do, where anything can be done.
        retry_in: seconds until the next launch is tried; None when none waits.
        draining: slots that are being given up.
        last_end: why its last launch ended unasked, since somebody resumed it; empty when none did.
        launches: all that may run.
    """

    unit: str
    desired: int
    observed: int
    observed_age: float | None
    is_converged: bool
    generation: int
    reason: str
    hint: str
    retry_in: float | None
    draining: tuple[int, ...]
    launches: tuple[LaunchView, ...]
    last_end: str = ""


class ClusterView(Struct, frozen=True):
    """The cluster.

    Attributes:
        name: of the cluster.
        state: in a word.
        is_converged: every unit is.
        controller: the controller.
        sets: the engine sets.
    """

    name: str
    state: ClusterState
    is_converged: bool
    controller: UnitView
    sets: tuple[UnitView, ...]


def view(supervisor: Supervisor, now: float) -> ClusterView:
    """Return how things stand at `now`, on the clock of `handle`."""
    state = supervisor.state
    controller = _controller_view(supervisor, now)
    sets = tuple(
        _set_view(supervisor, unit, now)
        for unit in supervisor.sets()
        if unit in supervisor.settings.sets or state.of_unit(unit) or unit in state.orphaned
    )
    units = (controller, *sets)
    is_converged = all(unit.is_converged for unit in units)
    word: ClusterState
    if not state.is_wanted:
        word = "stopped" if is_converged else "stopping"
    elif is_converged:
        word = "running"
    elif any(unit.unit in state.halted for unit in units):
        word = "degraded"
    else:
        word = "starting"
    return ClusterView(supervisor.name, word, is_converged, controller, sets)


def _controller_view(supervisor: Supervisor, now: float) -> UnitView:
    launches = _launch_views(supervisor, CONTROLLER, now)
    desired = int(supervisor.state.is_wanted)
    ready = sum(launch.state == "ready" for launch in launches)
    is_converged = ready == desired == len(launches)
    reason, hint = ("", "") if is_converged else _reason(supervisor, CONTROLLER, launches, now)
    return UnitView(
        unit=CONTROLLER,
        desired=desired,
        observed=ready,
        observed_age=0.0 if launches else None,
        is_converged=is_converged,
        generation=0,
        reason=reason,
        hint=hint,
        retry_in=_retry_in(supervisor, CONTROLLER, now),
        draining=(),
        launches=launches,
        last_end=_last_end(supervisor, CONTROLLER),
    )


def _set_view(supervisor: Supervisor, unit: str, now: float) -> UnitView:
    state, watch = supervisor.state, supervisor.units.get(unit)
    wish = state.desired.get(unit)
    slots = wish.slots if state.is_wanted and wish is not None else ()
    seen = watch.engines if watch is not None else None
    engines = set(seen.value) if seen is not None else set[int]()
    launches = _launch_views(supervisor, unit, now)
    draining = tuple(sorted(state.draining.get(unit, {})))
    is_converged = (
        engines == set(slots)
        and not draining
        and all(launch.state == "ready" for launch in launches)
        and {slot for launch in launches for slot in launch.slots} == set(slots)
        and not (unit in state.orphaned and not slots)
    )
    reason, hint = ("", "") if is_converged else _reason(supervisor, unit, launches, now)
    if not is_converged and not reason:
        reason = _slot_reason(supervisor, unit, set(slots), engines, draining)
    return UnitView(
        unit=unit,
        desired=len(slots),
        observed=len(engines),
        observed_age=None if seen is None else seen.age(now),
        is_converged=is_converged,
        generation=wish.generation if wish is not None else 0,
        reason=reason,
        hint=hint,
        retry_in=_retry_in(supervisor, unit, now),
        draining=draining,
        launches=launches,
        last_end=_last_end(supervisor, unit),
    )


def _launch_views(supervisor: Supervisor, unit: str, now: float) -> tuple[LaunchView, ...]:
    views = []
    for launch in supervisor.state.of_unit(unit):
        watch = supervisor.launches.get(launch.id)
        identity = launch.identity
        views.append(
            LaunchView(
                id=launch.id,
                state=_launch_state(supervisor, launch.id),
                pid=0 if identity is None else identity.pid,
                host="" if identity is None else identity.host,
                job=launch.job,
                slots=launch.slots,
                unknown_for=None if watch is None or watch.unknown_since is None else now - watch.unknown_since,
                evidence="" if watch is None else watch.evidence,
                reason=launch.stop_reason,
            )
        )
    return tuple(views)


def _launch_state(supervisor: Supervisor, launch_id: str) -> str:
    launch, watch = supervisor.state.launches[launch_id], supervisor.launches.get(launch_id)
    if watch is None or watch.phase is Phase.UNRESOLVED:
        return "unknown"
    if launch.is_stopping:
        return "stopping"
    if watch.phase is Phase.REQUESTED:
        return "requested"
    if watch.ready_since is not None:
        return "unreachable" if watch.reachable_since is None else "ready"
    # An adopted one was ready once and has not spoken to this daemon yet.
    return "queued" if watch.running_since is None else "starting"


def _reason(  # noqa: C901, PLR0911, PLR0912 - the list of reasons, most telling first
    supervisor: Supervisor, unit: str, launches: tuple[LaunchView, ...], now: float
) -> tuple[str, str]:
    """Return the most telling reason why a unit is not as wanted, and what to do."""
    state, watch = supervisor.state, supervisor.units.get(unit)
    if state.is_wanted and unit in state.halted:
        return state.halted[unit], f"when the cause is repaired: clusterctl -p {supervisor.name} restart"
    if watch is not None and watch.failing_since is not None:
        return f"the batch system has not answered for {now - watch.failing_since:.0f} s: {watch.failure}", ""
    for launch in launches:
        if launch.state == "unknown":
            return f"nobody knows whether launch {launch.id} runs: {launch.evidence}", ""
    for launch in launches:
        if launch.state == "stopping":
            return f"launch {launch.id} is being stopped: {launch.reason}", ""
        if launch.state == "unreachable":
            return f"launch {launch.id} runs but cannot be reached: {launch.evidence}", ""
        if launch.state == "queued":
            return f"job {launch.job} waits: {launch.evidence}", ""
        if launch.state in ("requested", "starting"):
            return ("the controller is starting" if unit == CONTROLLER else "its agent is starting"), ""
    if watch is not None and (watch.is_reaping or watch.reap_at is not None):
        error = "" if watch.reap_at is None else f": {watch.last_end}"
        return f"engines without an agent are being ended{error}", ""
    if not launches and watch is not None and watch.retry_at is not None:
        return f"restarts in {max(0.0, watch.retry_at - now):.1f} s: {watch.last_end}", ""
    if not launches and unit != CONTROLLER:
        controllers = state.of_unit(CONTROLLER)
        if not controllers:
            return "there is no controller", ""
        if controllers[-1].is_stopping:
            return "the controller must end before engines are started", ""
    return "", ""


def _slot_reason(
    supervisor: Supervisor, unit: str, slots: set[int], engines: set[int], draining: tuple[int, ...]
) -> str:
    """Return what the agents say of the slots that are not as wanted."""
    reports = [
        report.value
        for launch in supervisor.state.of_unit(unit)
        if (report := supervisor.launches[launch.id].report) is not None
    ]
    troubled = [slot for report in reports for slot in report if slot.reason and slot.slot in slots - engines]
    if troubled:
        worst = min(troubled, key=lambda slot: (slot.state != "crash-loop", slot.slot))
        more = f" (and {len(troubled) - 1} more)" if len(troubled) > 1 else ""
        return f"{format_slot(unit, worst.slot)} {worst.state}: {worst.reason}{more}"
    if draining:
        return f"{len(draining)} engines finish their tasks before they go"
    if missing := len(slots - engines):
        return f"{missing} engines have not registered yet"
    surplus = len(engines - slots)
    return f"{surplus} engines have not left yet" if surplus else ""


def _last_end(supervisor: Supervisor, unit: str) -> str:
    failed = supervisor.state.failures.get(unit)
    return "" if failed is None else failed.reason


def _retry_in(supervisor: Supervisor, unit: str, now: float) -> float | None:
    watch = supervisor.units.get(unit)
    return None if watch is None or watch.retry_at is None else max(0.0, watch.retry_at - now)
