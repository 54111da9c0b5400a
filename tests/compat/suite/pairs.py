"""The pairs of controller and engine that are tried, and the commands that start their halves.

A half that is None stays ipyparallel's own program.
"""

from __future__ import annotations

from dataclasses import dataclass

OUR_CONTROLLER = (
    "{python} -m clusterd controller --profile-dir={profile_dir} --cluster-id={cluster_id} --ip={ip} --location={location}"
    " --ping={ping_ms} --database={database}"
)
OUR_ENGINE = "{python} -m clusterd engine --file={connection_file}"


@dataclass(frozen=True)
class Pair:
    """A controller and the engines that it is tried with."""

    title: str
    controller: str | None
    engine: str | None

    def environment(self) -> dict[str, str]:
        """Return what tells the plugin."""
        halves = {"COMPAT_CONTROLLER": self.controller, "COMPAT_ENGINE": self.engine}
        return {name: command for name, command in halves.items() if command}


PAIRS = {
    "ours": Pair("our controller, our engines", OUR_CONTROLLER, OUR_ENGINE),
    "ours-stock": Pair("our controller, ipengine", OUR_CONTROLLER, None),
    "stock": Pair("ipcontroller, ipengine (the baseline)", None, None),
}
