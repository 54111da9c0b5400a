"""What the hub tells the keeper of the tasks, `tasks.Tasks`: who comes and goes, and what that means for work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from clusterd.controller.peers import Client, Engine, Loss
    from clusterd.core.wire.messages import AttachEngine, EngineState


class Work(Protocol):
    """The keeper of the tasks, as the hub sees it."""

    def client_attached(self, client: Client, now: float) -> None:
        """A client, new or back, has a data connection."""

    def client_disconnected(self, client: Client, now: float) -> None:
        """It lost its data connection."""

    def client_gone(self, client: Client, reason: str, now: float) -> None:
        """It will not come back: its tasks are of no use to anybody."""

    def keeps(self, client: Client) -> bool:
        """Say whether its tasks go on though it is not there, and may never come back."""

    def engine_attached(self, engine: Engine, message: AttachEngine, *, is_new: bool, now: float) -> None:
        """An engine has a connection; `message.held` is what it holds."""

    def engine_admitted(self, engine: Engine, now: float) -> None:
        """An engine has come through a door, holding nothing."""

    def engine_expected(self, engine: Engine, state: EngineState, now: float) -> None:
        """An engine of an earlier controller lives, and `state` is what it does; it has no connection yet."""

    def engine_suspect(self, engine: Engine, now: float) -> None:
        """Nobody knows whether it lives."""

    def engine_returned(self, engine: Engine, now: float) -> None:
        """It is well again."""

    def engine_lost(self, engine: Engine, end: Loss, now: float) -> None:
        """It is dead."""

    def agent_reported(self, place: str) -> None:
        """The agent of `place` has said what its engines do, and which have died."""

    def is_busy(self, engine: Engine) -> bool:
        """It holds work."""
