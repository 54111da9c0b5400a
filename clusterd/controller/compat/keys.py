"""The keys of stock clients and engines: a peer has the one that its file said when it started, and is answered with that one.

Stock peers read their file once, so after a change two keys are in use until its grace is over. Who has which is told by what they
sign; an engine is remembered by name, a client by its session.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from clusterd.core.wire.jupyter import Message, Replayed, Signer
from clusterd.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.model.secrets import Secrets

MARK_SIZE: Final = 4


class OldKey(AuthenticationError):
    """A message that is signed with a key that is not accepted any more."""


class StockKeys:
    """All keys of the edge.

    Args:
        present: the present key.
        earlier: the key before it, while that is accepted.
        refused: keys before these.
        engines: names of engines that have the earlier key.

    Attributes:
        present, earlier: as signers.
        engines: names of engines that have the earlier key.
        is_inherited: a predecessor has changed it; who has which is not known before they speak.
    """

    def __init__(
        self, present: str, earlier: str | None = None, refused: Iterable[str] = (), engines: Iterable[str] = ()
    ) -> None:
        self._marks: dict[bytes, Signer] = {}
        self.present = self._signer(present)
        self.earlier = None if earlier is None else self._signer(earlier)
        self._refused = [Signer(key.encode()) for key in refused]
        self.is_inherited = earlier is not None
        self.engines = {name.encode("ascii") for name in engines} if earlier is not None else set()

    def _signer(self, key: str) -> Signer:
        signer = Signer(key.encode())
        self._marks[hashlib.sha256(key.encode()).digest()[:MARK_SIZE]] = signer
        return signer

    @property
    def has_changed(self) -> bool:
        """True once there was another key."""
        return self.earlier is not None or bool(self._refused)

    def check(self, message: Message) -> Signer:
        """Let a message pass once; whose key it is signed with.

        Raises:
            AuthenticationError: with none that is accepted, or it was taken before.
        """
        try:
            self.present.check(message)
        except Replayed:
            raise
        except AuthenticationError as error:
            if self.earlier is not None and self.earlier.has_signed(message):
                self.earlier.check(message)
                return self.earlier
            if any(signer.has_signed(message) for signer in self._refused):
                raise OldKey("a message that is signed with a key from before the last change") from error
            raise
        return self.present

    def is_accepted(self, signer: Signer) -> bool:
        """Whether who has this key is listened to, and answered."""
        return signer is self.present or signer is self.earlier

    def of_engine(self, name: bytes) -> Signer:
        """The key that an engine has."""
        return self.earlier if self.earlier is not None and name in self.engines else self.present

    def mark_of(self, signer: Signer) -> bytes:
        """A few bytes that mean this key, also to a successor."""
        return next(mark for mark, other in self._marks.items() if other is signer)

    def marked(self, mark: bytes) -> Signer | None:
        """The key that they mean; None where it is not accepted any more."""
        return self._marks.get(mark)

    def change(self, key: str, engines: Iterable[bytes]) -> None:
        """Have another key; these engines have the one that was the present one until now."""
        self.refuse_earlier()
        self.earlier, self.present = self.present, self._signer(key)
        self.engines, self.is_inherited = set(engines), False

    def refuse_earlier(self) -> set[bytes]:
        """Accept the present key alone; the engines that have another."""
        if self.earlier is not None:
            self._refused = [self.earlier, *self._refused][:8]
            del self._marks[self.mark_of(self.earlier)]
        refused, self.engines, self.earlier = self.engines, set(), None
        return refused


def stock_keys(secrets: Secrets, now: float) -> StockKeys:
    """Those that are kept, at this wall time."""
    running = secrets.in_grace(now)
    refused = [retired.stock_key for retired in reversed(secrets.retired) if retired is not running]
    if running is None:
        return StockKeys(secrets.stock_key, None, refused)
    return StockKeys(secrets.stock_key, running.stock_key, refused, running.stock_engines)
