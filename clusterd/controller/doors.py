"""What the controller asks of peers that speak another protocol than ours: stock ipyparallel clients and engines.

A `Client` or `Engine` with a door has no connection; whatever is decided about its work is told to the door. Doors bring news the
same way as connections do: through `Tasks`, `Hub` and `Watch`. The cores do not know that they exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.peers import Client, Engine
    from clusterd.controller.submits import Payload
    from clusterd.core.scheduler import actions
    from clusterd.core.wire.messages import Result


class ClientDoor(Protocol):
    """Takes the outcome of tasks to a client. Exactly one of these is called for each task that was accepted, once."""

    def deliver(
        self,
        client: Client,
        payload: Payload,
        action: actions.Deliver,
        result: Result,
        frames: Sequence[Any],
        digests: Sequence[bytes],
        now: float,
    ) -> None:
        """A task has a result. `digests` of the frames where the engine's link has them (they are to be checked), else empty."""

    def fail(self, client: Client, payload: Payload, action: actions.Fail, now: float) -> None:
        """A task has none."""


class EngineDoor(Protocol):
    """Takes work to an engine. What comes of it is told to `Tasks.receive_engine` as a native Result or NotRun."""

    def dispatch(self, engine: Engine, action: actions.Dispatch, payload: Payload, now: float) -> None:
        """Run a task: of kind STOCK, or a native one."""

    def ask(self, engine: Engine, held: tuple[tuple[bytes, int], ...], now: float) -> None:
        """Find out whether it still has what an earlier controller gave it: (task, attempt). What it has not is told as NotRun."""

    def command(self, engine: Engine, command: str, number: int) -> str:
        """Carry out interrupt, stop, kill or signal (with its number); why it cannot be done, empty where it was."""

    def lost(self, engine: Engine, now: float) -> None:
        """The hub has it no more."""
