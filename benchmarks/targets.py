"""The figures that were asked for, as a table; each names the measurement it is compared with.

A limit is a number, or a factor of a peer's figure from the same run: the machine's speed then cancels out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

POOL = "peers.process_pool"


@dataclass(frozen=True)
class Target:
    """One asked-for figure.

    Attributes:
        text: what is measured, for a reader.
        figure: where it stands in the results: `peers.NAME.FIGURE` or `scenarios.NAME.FIGURE`.
        better: which side of the limit is good.
        limit: the number, or the factor where `of` names another figure.
        of: the figure that the factor applies to, or an empty string.
        unit: of figure and limit.
        also: figures added to `figure`, for sums.
        beside: figures that are shown with it, without a limit: what a reader calls each, where it stands, and its unit.
    """

    text: str
    figure: str
    better: Literal["lower", "higher"]
    limit: float
    unit: str
    of: str = ""
    also: tuple[str, ...] = ()
    beside: tuple[tuple[str, str, str], ...] = ()


def _ours(figure: str) -> str:
    return f"peers.ours.{figure}"


def _as_theirs(text: str, ours: str, theirs: str) -> Target:
    """Ours with a store, beside ipcontroller with the same one; what an unchanged ipyparallel Client gets of ours stands beside it."""
    stores = "scenarios.stores"
    stock = ("with an unchanged ipyparallel Client", f"{stores}.{ours}_stock_per_s", "/s")
    words = f"{text}: no fewer than ipcontroller with `--{theirs}`"
    return Target(
        words, f"{stores}.{ours}_per_s", "higher", 1.0, "/s", f"{stores}.theirs_{theirs}_per_s", beside=(stock,)
    )


def _flat(text: str, figure: str, beside: str) -> Target:
    shown = (("PSS", f"scenarios.records.{beside}", "MB"),)
    return Target(text, f"scenarios.records.{figure}", "lower", 1.1, "times", beside=shown)


def _served(text: str, figure: str) -> Target:
    return Target(text, f"scenarios.recovery.{figure}", "lower", 2.0, "s")


TARGETS: dict[str, Target] = {
    "start": Target("`clusterctl start -n 4`, from nothing", "scenarios.start.start_4_s", "lower", 1.0, "s"),
    "scale": Target("`scale engines 128`, from 4", "scenarios.start.scale_128_s", "lower", 1.5, "s"),
    "status": Target("`clusterctl status`", "scenarios.start.status_ms", "lower", 120, "ms"),
    "engine-idle": Target(
        "an engine of 128, idle (PSS; of 4: see Memory)", "scenarios.memory.engine_idle_mb", "lower", 4, "MB"
    ),
    "engine-cells": Target(
        "an engine of 128 after 50 cells (PSS; of 4: see Memory)",
        "scenarios.memory.engine_50_cells_mb",
        "lower",
        8,
        "MB",
    ),
    "controller": Target("the controller (RSS)", "scenarios.memory.controller_mb", "lower", 60, "MB"),
    "one-by-one": Target(
        "no-op tasks one by one: 1.2 times ProcessPoolExecutor",
        _ours("one_by_one_per_s"),
        "higher",
        1.2,
        "/s",
        f"{POOL}.one_by_one_per_s",
    ),
    "map-10": Target(
        "map in chunks of 10: as many as ProcessPoolExecutor",
        _ours("map_10_per_s"),
        "higher",
        1.0,
        "/s",
        f"{POOL}.map_10_per_s",
    ),
    "map-100": Target(
        "map in chunks of 100: as many as ProcessPoolExecutor",
        _ours("map_100_per_s"),
        "higher",
        1.0,
        "/s",
        f"{POOL}.map_100_per_s",
    ),
    "map-default": Target("map with automatic chunks", _ours("map_default_per_s"), "higher", 200_000, "/s"),
    "round-trip": Target(
        "lone round trip, median: twice ProcessPoolExecutor's",
        _ours("round_trip_p50_ms"),
        "lower",
        2.0,
        "ms",
        f"{POOL}.round_trip_p50_ms",
    ),
    "cpu-controller": Target("controller CPU a task, in numbers", _ours("cpu_us_controller"), "lower", 50, "us"),
    "cpu-task": Target(
        "client + controller + engine CPU a task",
        _ours("cpu_us_client"),
        "lower",
        130,
        "us",
        also=(_ours("cpu_us_controller"), _ours("cpu_us_engine")),
    ),
    "fleet-start": Target(
        "1,000 simulated engines: `clusterctl start -n 1000 --wait`",
        "scenarios.fleet.fleet_1000_start_s",
        "lower",
        10,
        "s",
    ),
    "fleet-status": Target(
        "the same: `status` on the control socket, p95", "scenarios.fleet.fleet_1000_status_p95_ms", "lower", 100, "ms"
    ),
    "fleet-idle": Target(
        "the same: the daemon, idle, of a core", "scenarios.fleet.fleet_1000_idle_percent", "lower", 1, "%"
    ),
    "flood-tasks": Target("flood: tasks of 10 kB done", "scenarios.flood.flood_done", "higher", 1_000_000, "tasks"),
    "flood-memory": Target("flood: controller's peak", "scenarios.flood.controller_peak_mb", "lower", 512, "MB"),
    "flood-p95": Target("flood: a third client's p95", "scenarios.flood.third_p95_ms", "lower", 20, "ms"),
    "long-task": Target(
        "a 10 s task delays a short one by", "scenarios.neighbours.short_task_delay_ms", "lower", 100, "ms"
    ),
    "outlier": Target(
        "the same, where its function is short otherwise", "scenarios.neighbours.outlier_delay_ms", "lower", 100, "ms"
    ),
    "push": Target(
        "a 200 MB push delays a control request by", "scenarios.neighbours.control_delay_ms", "lower", 50, "ms"
    ),
    "stock-cpu": Target(
        "an unchanged ipyparallel Client: controller + engine CPU a balanced no-op task",
        "scenarios.stock.ours_balanced_cpu_ms",
        "lower",
        0.3,
        "ms",
    ),
    "stock-rate": Target(
        "the same: tasks a second, 3 times ipcontroller's",
        "scenarios.stock.ours_balanced_per_s",
        "higher",
        3.0,
        "/s",
        "scenarios.stock.theirs_balanced_per_s",
    ),
    "stock-round-trip": Target(
        "the same: a direct round trip, median, a third of ipcontroller's",
        "scenarios.stock.ours_round_trip_p50_ms",
        "lower",
        1 / 3,
        "ms",
        "scenarios.stock.theirs_round_trip_p50_ms",
    ),
    "stock-apply-all": Target(
        "the same: `apply` to all of 64 engines, no slower than ipcontroller with those that came up",
        "scenarios.stock.ours_apply_all_ms",
        "lower",
        1.0,
        "ms",
        "scenarios.stock.theirs_apply_all_ms",
    ),
    "stock-broadcast": Target(
        "the same: a 2 MB array broadcast to 64 engines, no slower than ipcontroller with those that came up",
        "scenarios.stock.ours_broadcast_2mb_ms",
        "lower",
        1.0,
        "ms",
        "scenarios.stock.theirs_broadcast_2mb_ms",
    ),
    "store-sqlite": Target(
        "`database: sqlite`: no-op tasks one by one, at least 80 % of `memory`",
        "scenarios.stores.sqlite_per_s",
        "higher",
        0.8,
        "/s",
        "scenarios.stores.memory_per_s",
    ),
    "store-process": Target(
        "the same with `durable: process`", "scenarios.stores.sqlite_process_per_s", "higher", 5_000, "/s"
    ),
    "store-disk": Target("the same with `durable: disk`", "scenarios.stores.sqlite_disk_per_s", "higher", 3_000, "/s"),
    "theirs-none": _as_theirs("`database: none`", "none", "nodb"),
    "theirs-memory": _as_theirs("`database: memory`", "memory", "dictdb"),
    "theirs-sqlite": _as_theirs("`database: sqlite`", "sqlite", "sqlitedb"),
    "theirs-sqlite-disk": _as_theirs("the same with `durable: disk`", "sqlite_disk", "sqlitedb"),
    "theirs-mongodb": _as_theirs("`database: mongodb`", "mongodb", "mongodb"),
    "disk-fsyncs": Target(
        "`durable: disk`: fsyncs in a lone round trip",
        "scenarios.durable.sqlite_disk_fsyncs",
        "lower",
        3,
        "",
        beside=(
            ("the trip's median", "scenarios.durable.sqlite_disk_round_trip_p50_ms", "ms"),
            ("the machine's own fsync, median", "scenarios.durable.machine_fsync_p50_ms", "ms"),
        ),
    ),
    "records-memory": _flat(
        "controller after 1,000,000 no-op tasks, against 100,000", "memory_tasks_growth", "memory_tasks_mb"
    ),
    "records-sqlite": _flat("the same with `database: sqlite`", "sqlite_tasks_growth", "sqlite_tasks_mb"),
    "results-memory": _flat(
        "controller after 1,500 results of 100 kB under a bound of 64 MB, against 750",
        "memory_results_growth",
        "memory_results_mb",
    ),
    "results-sqlite": _flat("the same with `database: sqlite`", "sqlite_results_growth", "sqlite_results_mb"),
    "results-held": Target(
        "what these results add to the controller at the most: the bound and 10 %",
        "scenarios.records.memory_results_held_mb",
        "lower",
        70.4,
        "MB",
        beside=(("with `database: sqlite`", "scenarios.records.sqlite_results_held_mb", "MB"),),
    ),
    "recovery-attached": _served(
        "128 engines, kill -9 of the controller: until a client that was there is served", "memory_attached_s"
    ),
    "recovery-new": _served("the same: until a new client is served", "memory_new_s"),
    "recovery-disk-attached": _served(
        "the same with `durable: disk`: a client that was there", "sqlite_disk_attached_s"
    ),
    "recovery-disk-new": _served("the same with `durable: disk`: a new client", "sqlite_disk_new_s"),
}
