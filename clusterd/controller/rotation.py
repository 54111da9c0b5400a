"""Changes the keys of a running controller: new ones into the files, the present ones accepted for a grace, then refused.

No key travels. Native peers are told to attach again, and read their file as at any dial; who holds a copy of the old one goes on until
the grace is over. The secrets file is written first, and a successor accepts what it says; so whenever this controller is killed, the keys
in the connection files and those that peers hold are accepted, or the successor writes the files before it listens to anybody.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.controller import credentials
from clusterd.controller.keys import Key, Ring
from clusterd.controller.peers import Agent, Client, Engine
from clusterd.core.model.secrets import Secrets
from clusterd.errors import ControlError, LaunchError
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterd.controller.compat.front import Front
    from clusterd.controller.connection import Connection
    from clusterd.controller.credentials import ConnectionFiles
    from clusterd.controller.endpoint import Endpoint

log = logging.getLogger(__name__)
SIDES: Final = ("client", "engine")
ANSWER_SECONDS: Final = 0.02
"""Peers are told this long after the change: who asked for it has its answer by then."""
LAST_WORDS_SECONDS: Final = 0.1
"""Who is refused is told, before its connection is cut."""
AT_ONCE: Final = 64
"""So many peers are told in one round: a thousand that attach at the same moment would hold up everybody else."""
_KINDS: Final = {Client: "clients", Engine: "engines", Agent: "agents"}


class Rotation:
    """The keys of one controller over time.

    Args:
        secrets: the controller's; it is changed in place.
        save: writes secrets; None where they are not kept.
        now: monotonic time.

    Attributes:
        rings: the keys of both sides; endpoints share them.
        files: the connection files, once there are any.
        endpoints: all of the controller's.
        front: stock clients and engines, where they are served.
        rebinds: have sockets that are CURVE servers take another secret key.
        shut_down: ends the controller, with the reason.
    """

    def __init__(self, secrets: Secrets, save: Callable[[Secrets], None] | None, now: float) -> None:
        self._secrets = secrets
        self._save = save
        self.rings = {side: _ring_of(secrets, side) for side in SIDES}
        self.files: ConnectionFiles | None = None
        self.endpoints: dict[str, Endpoint] = {}
        self.front: Front | None = None
        self.rebinds: list[Callable[[str], None]] = []
        self.shut_down: Callable[[str], None] = log.error
        # What those sockets have, and when they are to take another (monotonic).
        self._curve_secret = secrets.curve_secret
        self._rebinds_at: float | None = None
        # Connections that are to be made anew, and when that begins.
        self._to_tell: deque[Connection] = deque()
        self._tells_at = 0.0
        # Whose connections were ended for that, and on which endpoint.
        self._told: list[tuple[Any, str]] = []
        # Monotonic time at which the earlier keys are refused; None while there are none that are accepted.
        self._ends_at: float | None = None
        wall = time.time()
        running = secrets.in_grace(wall)
        if running is not None:
            self._ends_at = now + running.until - wall
            for ring in self.rings.values():
                ring.earlier[0].is_accepted = True

    # --- the change ---

    def change(self, grace: float, now: float) -> dict[str, Any]:
        """Have new keys; the present ones are accepted for `grace` seconds more. Without a grace the CURVE pair is another, too.

        Returns:
            As `about`, and `files`: what was written.

        Raises:
            ControlError: an earlier change is not over, and this one has a grace, too; or a file cannot be written: nothing has changed.
        """
        wall = time.time()
        if self._ends_at is not None and grace > 0:
            raise ControlError(
                f"the keys were changed {wall - self._secrets.retired[-1].changed_at:.0f} s ago, and those before them are "
                f"accepted for another {self._ends_at - now:.0f} s",
                hint="Wait until that is over, or change them again with --now: then all earlier keys are refused at once.",
            )
        front = self.front
        candidate = msgspec.json.decode(msgspec.json.encode(self._secrets), type=Secrets)
        engines = None if front is None else sorted(name.decode("ascii") for name in front.engines.names)
        candidate.change(credentials.new_keys(has_curve=grace == 0), wall, grace, engines)
        written = self._write(candidate)
        secrets = self._secrets
        secrets.client_key, secrets.engine_key = candidate.client_key, candidate.engine_key
        secrets.stock_key, secrets.retired = candidate.stock_key, candidate.retired
        secrets.curve_public, secrets.curve_secret = candidate.curve_public, candidate.curve_secret
        for side, ring in self.rings.items():
            ring.change(bytes.fromhex(_of(secrets, side)), wall)
        if front is not None:
            if self._ends_at is not None:
                front.refuse_earlier_key(now)
            front.change_key(secrets.stock_key)
        self._to_tell = deque(self._connections())
        self._tells_at, self._told = now + ANSWER_SECONDS, []
        self._ends_at = now + max(grace, ANSWER_SECONDS)
        log.info("the keys were changed; the earlier ones are accepted for %g s more", grace)
        return {**self.about(now), "files": written}

    def _write(self, candidate: Secrets) -> list[str]:
        files = self.files
        try:
            if self._save is not None:
                self._save(candidate)
            fault.point("controller.rotate.secrets_kept")
            if files is None:
                return []
            files.take_keys(candidate)
            files.write_engine()
            fault.point("controller.rotate.half_written")
            files.write_client()
        except OSError as error:
            log.error("the keys could not be changed: %s", error)  # noqa: TRY400 - no bug of ours
            self._restore()
            raise ControlError(
                f"the keys were not changed: {error.filename or 'the files'} cannot be written: {error.strerror}",
                hint="Free space, or see to the permissions of the profile's security directory, and try again.",
            ) from error
        fault.point("controller.rotate.written")
        return [str(files.engine_path), str(files.client_path)]

    def _restore(self) -> None:
        """Have the files say again what they said; what cannot be written has not been replaced either."""
        steps: list[Callable[[], None]] = []
        if self.files is not None:
            self.files.take_keys(self._secrets)
            steps = [self.files.write_client, self.files.write_engine]
        if self._save is not None:
            save = self._save
            steps.append(lambda: save(self._secrets))
        for step in steps:
            try:
                step()
            except OSError as error:
                log.error("a file with keys is not as it should be, until the next start: %s", error)  # noqa: TRY400

    # --- time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        due = [at for at in (self._ends_at, self._rebinds_at) if at is not None]
        return self._tells_at if self._to_tell else min(due, default=None)

    def tick(self, now: float) -> None:
        """Have peers attach again; refuse the earlier keys when their time is over."""
        if self._rebinds_at is not None and now >= self._rebinds_at:
            self._rebind()
        if self._ends_at is not None and now >= self._ends_at:
            self._end(now)
        elif self._to_tell and now >= self._tells_at:
            for _ in range(min(AT_ONCE, len(self._to_tell))):
                connection = self._to_tell.popleft()
                if not connection.is_gone:
                    self._told.append((connection.owner, connection.endpoint.name))
                    connection.endpoint.have_attach_again(connection, "the key of this cluster was changed", now)

    def _rebind(self) -> None:
        """Cut off whoever knows the CURVE pair before this one: to listen they need no other key."""
        self._rebinds_at, self._curve_secret = None, self._secrets.curve_secret
        try:
            for rebind in self.rebinds:
                rebind(self._curve_secret)
        except LaunchError as error:
            # A successor takes other ports, and says so in the files.
            self.shut_down(error.message)

    def _end(self, now: float) -> None:
        self._ends_at = None
        self._to_tell.clear()
        self._told.clear()
        using = self._using_old(now)
        for ring in self.rings.values():
            ring.refuse_earlier()
        for connection in list(self._connections()):
            if not connection.key.is_accepted:
                connection.endpoint.have_attach_again(connection, connection.key.refusal().message, now)
        if self.front is not None:
            self.front.refuse_earlier_key(now)
        if self.rebinds and self._curve_secret != self._secrets.curve_secret:
            self._rebinds_at = now + LAST_WORDS_SECONDS
        for kind, names in using.items():
            if names:
                log.warning("%s with an earlier key are refused from now on: %s", kind, ", ".join(names))

    # --- what is so ---

    def about(self, now: float) -> dict[str, Any]:
        """For status: when keys were changed last (None: never), until when the earlier ones are accepted, and who uses them.

        `away`: how many connections of peers that were told are not made anew yet.
        """
        retired = self._secrets.retired
        is_running = self._ends_at is not None
        return {
            "changed_at": retired[-1].changed_at if retired else None,
            "until": retired[-1].until if is_running else None,
            "left": None if self._ends_at is None else round(max(0.0, self._ends_at - now), 3),
            "using_old": self._using_old(now) if is_running else {},
            "away": len(self._to_tell) + sum(_is_away(owner, endpoint) for owner, endpoint in self._told),
        }

    def _using_old(self, now: float) -> dict[str, list[str]]:
        names: dict[str, set[str]] = {kind: set() for kind in _KINDS.values()}
        for connection in self._connections():
            if connection.owner is not None and connection.key.changed_at:
                names[_KINDS[type(connection.owner)]].add(connection.owner.name)
        stock = {} if self.front is None else self.front.using_old(now)
        return {**{kind: sorted(found) for kind, found in names.items()}, **stock}

    def _connections(self) -> Iterator[Connection]:
        for endpoint in self.endpoints.values():
            yield from endpoint.connections.values()


def _is_away(owner: Any, endpoint: str) -> bool:
    if isinstance(owner, Client):
        return (owner.data if endpoint.endswith("data") else owner.control) is None
    return owner is not None and owner.connection is None


def _of(keys: Any, side: str) -> str:
    key: str = keys.client_key if side == "client" else keys.engine_key
    return key


def _ring_of(secrets: Secrets, side: str) -> Ring:
    earlier = [
        Key(bytes.fromhex(_of(retired, side)), retired.changed_at, is_accepted=False)
        for retired in reversed(secrets.retired)
    ]
    return Ring(bytes.fromhex(_of(secrets, side)), earlier)
