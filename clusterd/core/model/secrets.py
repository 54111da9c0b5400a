"""What a controller keeps secret over its restarts: keys, present and earlier, and what must not change while peers hold copies.

Made of what others draw: nothing here is random, and no clock is asked. Invariant: of the earlier keys the last at most is still
accepted, and only until its time; the others serve to tell who comes with one what has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRETS_FILE: Final = "controller-secrets.json"
MAX_RETIRED: Final = 8
"""Earlier keys that are remembered. Who comes with one before these gets no answer, as anybody who has no key."""


class Keys(NamedTuple):
    """The keys that connection files hold: native ones in hex, 32 bytes; the stock one is any text.

    Attributes:
        curve: (public, secret) in Z85; None: that pair stays.
    """

    client: str
    engine: str
    stock: str
    curve: tuple[str, str] | None = None


class Retired(Struct):
    """Keys that others have taken the place of.

    Attributes:
        changed_at: wall time of that.
        until: wall time until which they are accepted nevertheless.
        stock_engines: names of stock engines that have the stock key of these: they read their file once.
    """

    client_key: str
    engine_key: str
    stock_key: str
    changed_at: float
    until: float
    stock_engines: list[str] = []


class Secrets(Struct):
    """What outlives a controller with `reuse`. Keys in hex; `next_engine_id` because wire ids are never used twice.

    `places`: where there are agents, for the successor of a controller that was killed; None where nobody has written it.
    `stock_engines`: ids of stock engines by their names: these do not register again, they just go on beating.
    `retired`: earlier keys, oldest first.
    """

    client_key: str
    engine_key: str
    token_secret: str
    curve_public: str
    curve_secret: str
    ports: dict[str, int] = {}
    next_engine_id: int = 0
    places: list[str] | None = None
    stock_engines: dict[str, int] = {}
    stock_key: str = ""
    retired: list[Retired] = []

    @property
    def token_secret_bytes(self) -> bytes:
        """The token secret as bytes."""
        return bytes.fromhex(self.token_secret)

    def in_grace(self, now: float) -> Retired | None:
        """The earlier keys that are accepted at this wall time, if any are."""
        last = self.retired[-1] if self.retired else None
        return last if last is not None and last.changed_at <= now < last.until else None

    def engines_to_expect(self, now: float) -> dict[str, int]:
        """Stock engines that a controller which starts at this wall time may hear of; not those with a key that is refused by now."""
        running = self.in_grace(now)
        refused = {name for retired in self.retired if retired is not running for name in retired.stock_engines}
        return {name: wire_id for name, wire_id in self.stock_engines.items() if name not in refused}

    def change(self, keys: Keys, now: float, grace: float, stock_engines: Iterable[str] | None = None) -> Retired:
        """Take other keys. The present ones are accepted for `grace` seconds more, those before them no longer.

        Args:
            keys: the new ones.
            now: wall time.
            grace: seconds.
            stock_engines: those that have the present stock key; None: all that are known.

        Returns:
            The present ones, as they are kept.
        """
        for earlier in self.retired:
            earlier.until = min(earlier.until, now)
        engines = [*(self.stock_engines if stock_engines is None else stock_engines)]
        retired = Retired(self.client_key, self.engine_key, self.stock_key, now, now + grace, engines)
        self.retired = [*self.retired, retired][-MAX_RETIRED:]
        self.client_key, self.engine_key, self.stock_key = keys[:3]
        if keys.curve is not None:
            self.curve_public, self.curve_secret = keys.curve
        return retired


def secrets_name(cluster_id: str = "") -> str:
    """The name of the file: those of each cluster id apart, as its connection files are."""
    return f"controller-secrets-{cluster_id}.json" if cluster_id else SECRETS_FILE
