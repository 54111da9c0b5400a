"""The user directory (NSS), asked without ever holding up the event loop: sssd or FreeIPA may need seconds, or be away.

Each question runs in a thread of its own and has `PATIENCE`; its answer is remembered for a while, so that a busy script asks once a
minute. What cannot be answered is an error with the reason, never an answer. Threads that hang are left behind (daemon threads: they
hold up no end of the process) and there are few of them at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from clusterd.errors import ControlError
from clusterd.system import clock, users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.system.users import Person

__all__ = ["Directory"]

PATIENCE: Final = 3.0
"""Seconds that one command may wait for the directory."""
KEPT: Final = 60.0
"""Seconds for which an answer holds: so long may somebody who left a group still command, and a new member be refused."""
KEPT_UNKNOWN: Final = 10.0
"""The same for "no such name", which is what NSS also says while sssd starts."""
ANSWERS_MAX: Final = 4096
THREADS_MAX: Final = 8

_A = TypeVar("_A", int, tuple[str, ...])
_V = TypeVar("_V")
_Key = tuple[Any, int | tuple[str, ...]]
_Outcome = tuple[Any, "str | None"]


class Directory:
    """Who is who.

    Args:
        person: answers who a uid is; these three may block, and raise OSError.
        uid_of: the uid of a name.
        gid_of: the gid of a group.
        patience: seconds to wait for one answer.
    """

    def __init__(
        self,
        person: Callable[[int], Person] = users.person,
        uid_of: Callable[[str], int | None] = users.uid_of,
        gid_of: Callable[[str], int | None] = users.gid_of,
        patience: float = PATIENCE,
    ) -> None:
        self._person, self._uid_of, self._gid_of = person, uid_of, gid_of
        self._patience = patience
        # Question -> (monotonic time until which it holds, answer), oldest first.
        self._known: dict[_Key, tuple[float, Any]] = {}
        # Questions that a thread is asking now.
        self._asked: dict[_Key, asyncio.Future[_Outcome]] = {}

    async def person(self, uid: int) -> Person:
        """Return name and groups of a uid.

        Raises:
            ControlError: code `denied`: the directory does not answer.
        """
        return await self._ask(self._person, uid)

    async def uids(self, names: Iterable[str]) -> dict[str, int]:
        """Return the uids of users; names that the directory does not know are left out.

        Raises:
            ControlError: as above.
        """
        return await self._ask(self._uids, tuple(sorted(names)))

    async def gids(self, names: Iterable[str]) -> dict[str, int]:
        """Return the gids of groups, likewise."""
        return await self._ask(self._gids, tuple(sorted(names)))

    def forget(self) -> None:
        """Ask anew from now on."""
        self._known.clear()

    def _uids(self, names: tuple[str, ...]) -> dict[str, int]:
        return {name: uid for name in names if (uid := self._uid_of(name)) is not None}

    def _gids(self, names: tuple[str, ...]) -> dict[str, int]:
        return {name: gid for name in names if (gid := self._gid_of(name)) is not None}

    async def _ask(self, question: Callable[[_A], _V], about: _A) -> _V:
        key = (question, about)
        known = self._known.get(key)
        if known is not None and clock.monotonic() < known[0]:
            return cast("_V", known[1])
        future = self._asked.get(key)
        if future is None:
            if len(self._asked) >= THREADS_MAX:
                raise _away(f"{THREADS_MAX} earlier questions are not answered yet")
            future = self._asked[key] = self._begin(key)
        try:
            async with asyncio.timeout(self._patience):
                # Shielded: who asks the same meanwhile waits for the same thread.
                answer, problem = await asyncio.shield(future)
        except TimeoutError:
            raise _away(f"no answer within {self._patience:g} s") from None
        if problem is not None:
            raise _away(problem)
        return cast("_V", answer)

    def _begin(self, key: _Key) -> asyncio.Future[_Outcome]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Outcome] = loop.create_future()
        question, about = key

        def ended(answer: Any, problem: str | None) -> None:
            self._asked.pop(key, None)
            if problem is None:
                self._remember(key, answer)
            if not future.done():
                future.set_result((answer, problem))

        def ask() -> None:
            answer, problem = None, None
            try:
                answer = question(about)
            except Exception as error:  # noqa: BLE001 - whatever a module of NSS does, it is no answer
                problem = f"{type(error).__name__}: {error}"
            # The daemon may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended, answer, problem)

        threading.Thread(target=ask, name="clusterd-nss", daemon=True).start()
        return future

    def _remember(self, key: _Key, answer: Any) -> None:
        _, about = key
        is_known = len(answer) == len(about) if isinstance(about, tuple) else bool(answer.name)
        self._known.pop(key, None)
        while len(self._known) >= ANSWERS_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = (clock.monotonic() + (KEPT if is_known else KEPT_UNKNOWN), answer)


def _away(why: str) -> ControlError:
    return ControlError(f"the user directory (NSS: sssd, LDAP, ...) does not answer: {why}", code="denied")
