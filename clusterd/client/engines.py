"""The engines that the controller tells of: a list that is kept up to date by notices, and the wait for more of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.client.gate import Gate
from clusterd.core.wire.messages import EngineInfo
from clusterd.errors import EngineLost, NoEngines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clusterd.core.wire.messages import EnginesChanged

# A wait ends by notice; this limit lets it see that the client was closed.
_LOOK_AGAIN = 1.0


class EngineBook:
    """The registered engines."""

    def __init__(self) -> None:
        self._changed = Gate()
        # By wire id.
        self._engines: dict[int, EngineInfo] = {}
        # Their ids in order; replaced, never changed.
        self._ids: tuple[int, ...] = ()
        # Of engines that have gone: how, by wire id; the last few hundred.
        self._causes: dict[int, str] = {}
        self.is_known = False

    @property
    def ids(self) -> tuple[int, ...]:
        """Wire ids, in order."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def infos(self) -> list[EngineInfo]:
        """What is known of each, in the order of their ids."""
        engines = self._engines
        return [engines[engine] for engine in self._ids if engine in engines]

    def uuids(self, engines: Iterable[int]) -> dict[int, bytes]:
        """Who has these ids now."""
        known = self._engines
        return {engine: known[engine].uuid for engine in engines if engine in known}

    def check_same(self, uuids: dict[int, bytes]) -> None:
        """Refuse ids that have come to mean another engine: a cluster that was stopped and started counts from 0 again.

        Raises:
            EngineLost: `client[3]` of before would now be somebody with an empty namespace.
        """
        known = self._engines
        for engine, uuid in uuids.items():
            now = known.get(engine)
            if now is not None and now.uuid != uuid:
                raise EngineLost(
                    f"engine {engine} of this view is gone: the cluster was stopped and started again since",
                    hint=f"Another engine has its number now; make a new view: client[{engine}].",
                )

    # --- the I/O thread ---

    def replace(self, reply: Any) -> None:
        """The answer to ListEngines: all there are."""
        infos = msgspec.convert(reply, list[EngineInfo])
        self._set({info.id: info for info in infos})

    def change(self, notice: EnginesChanged) -> None:
        """Engines came, changed or went."""
        engines = dict(self._engines)
        for gone in notice.removed:
            engines.pop(gone.id, None)
            self._causes[gone.id] = gone.cause
            if len(self._causes) > 500:
                del self._causes[next(iter(self._causes))]
        engines.update({info.id: info for info in notice.added})
        self._set(engines)

    def _set(self, engines: dict[int, EngineInfo]) -> None:
        with self._changed.lock:
            self._engines = engines
            self._ids = tuple(sorted(engines))
            self.is_known = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._changed.lock:
            self._changed.notify_all()

    # --- users' threads ---

    def wait(self, count: int, timeout: float | None, check: Callable[[], None], tell: Callable[[int], None]) -> bool:
        """Wait until there are `count` engines; False after `timeout` seconds.

        Args:
            count: how many.
            timeout: seconds, None without limit.
            check: raises when there is nothing to wait for any more.
            tell: called with the number there is, at each change.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed.lock:
            while True:
                check()
                tell(len(self._ids))
                if len(self._ids) >= count:
                    return True
                left = _LOOK_AGAIN if deadline is None else min(_LOOK_AGAIN, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._changed.wait(left)

    def select(self, targets: Any) -> tuple[list[int], bool]:
        """(wire ids, is a single one) of what stands in `client[...]`.

        An int is a wire id, a negative one counts from the end; a slice is of the list of ids; "all" is all of them.

        Raises:
            NoEngines: there are none.
            IndexError: no engine has this id; says which there are.
            TypeError: it is none of these.
        """
        ids = self._ids
        if isinstance(targets, str) and targets == "all":
            targets = slice(None)
        if isinstance(targets, slice):
            chosen = list(ids[targets])
            if not chosen:
                raise self._none(f"{_slice_text(targets)} selects none" if ids else "a view needs engines")
            return chosen, False
        if isinstance(targets, int) and not isinstance(targets, bool):
            return [self._one(targets, ids)], True
        if isinstance(targets, (list, tuple, set, frozenset, range)) or _is_integer_array(targets):
            chosen = [self._one(_integer(target), ids) for target in targets]
            if not chosen:
                raise self._none("an empty list selects none")
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"an engine is named twice in {chosen}")
            return chosen, False
        if hasattr(targets, "__index__") and not isinstance(targets, bool):
            return [self._one(targets.__index__(), ids)], True
        raise TypeError(f'engines are chosen by id, slice, list of ids or "all", not by {targets!r}')

    def _one(self, target: int, ids: Sequence[int]) -> int:
        if not ids:
            raise self._none(f"engine {target} was asked for")
        if target < 0 and -target <= len(ids):
            return ids[target]
        if target not in self._engines:
            cause = self._causes.get(target)
            why = f" any more ({cause})" if cause else ""
            raise IndexError(f"there is no engine {target}{why}; the engines are {id_text(ids)}")
        return target

    def _none(self, what: str) -> NoEngines:
        if self._ids:
            return NoEngines(f"{what}: the engines are {id_text(self._ids)}")
        return NoEngines(
            f"{what}: no engine is registered",
            hint="Start some with `clusterctl scale engines N`, and wait for them with client.wait_for_engines(N).",
        )


def id_text(ids: Iterable[int]) -> str:
    """Ids for people: `0-3, 7`."""
    parts: list[str] = []
    first = last = None
    for engine in [*ids, None]:
        if first is not None and (engine is None or engine != last + 1):  # type: ignore[operator]
            parts.append(str(first) if first == last else f"{first}-{last}")
            first = None
        if first is None:
            first = engine
        last = engine
    return ", ".join(parts)


def _slice_text(chosen: slice) -> str:
    parts = ["" if part is None else str(part) for part in (chosen.start, chosen.stop)]
    return f"[{':'.join(parts)}{'' if chosen.step is None else f':{chosen.step}'}]"


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"an engine's id is an integer, not {value!r}")
    return int(value.__index__())


def _is_integer_array(value: Any) -> bool:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return kind in ("i", "u") and hasattr(value, "__iter__") and bool(getattr(value, "shape", ()))
