"""The direct view: named engines, each call on all of them, and their namespaces as one dict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterd.client.aggregate import AggregateFuture
from clusterd.client.arguments import pack_call, pack_names, pack_plain
from clusterd.client.cells import CellResult
from clusterd.client.options import Options, check_label, check_timeout
from clusterd.client.partition import join, split
from clusterd.client.view import View, result_or_abort
from clusterd.core.wire.messages import APPLY, CLEAR, EXECUTE, PULL, PUSH

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from clusterd.client.arguments import Packed
    from clusterd.client.book import Target
    from clusterd.client.client import Client
    from clusterd.client.functions import PackedFunction
    from clusterd.client.future import LightFuture
    from clusterd.client.task import TaskFuture

_NONE: Packed = pack_plain(None)


class DirectView(View):
    """Engines chosen by id. Over one engine (`client[0]`) calls give its value, over several a list in the order of the engines.

    Attributes:
        timeout: seconds that a task may run, None for no limit.
        label: text that goes with each task into the history (`client.task_records`).
    """

    _FLAGS = frozenset({"block", "timeout", "label"})

    def __init__(
        self, client: Client, targets: Any, *, block: bool = False, timeout: float | None = None, label: str = ""
    ) -> None:
        super().__init__(client, block=block)
        # "all" means those that there are at each call; a choice is a choice for good.
        self._is_all = isinstance(targets, str) and targets == "all"
        self._ids, self._is_single = client._select(targets)  # noqa: SLF001
        # Who they are: after a new start of the cluster a number may be another engine's.
        self._uuids = {} if self._is_all else client._connection.engines.uuids(self._ids)  # noqa: SLF001
        self.timeout = check_timeout(timeout)
        self.label = check_label(label)

    @property
    def targets(self) -> list[int]:
        """Wire ids of its engines."""
        if self._is_all:
            return self.client._select("all")[0]  # noqa: SLF001
        self.client._connection.engines.check_same(self._uuids)  # noqa: SLF001
        return list(self._ids)

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"<DirectView of {'all engines' if self._is_all else f'engines {self._ids}'}>"

    # --- how things are sent ---

    def _target(self) -> Target:
        ids = self.targets
        return ids[0] if len(ids) == 1 else ids

    def _width(self) -> int:
        return len(self.targets)

    def _options(self) -> Options:
        return Options(timeout=check_timeout(self.timeout), label=self.label)

    def _send(
        self,
        kind: int,
        function: PackedFunction | None,
        packed: Packed | Sequence[Packed],
        *,
        convert: Callable[[TaskFuture, Any], Any] | None = None,
        gather: Callable[[list[Any]], Any] | None = None,
    ) -> LightFuture:
        """One task on each engine: the same for all (one pair), or a list with each one's own."""
        ids, options = self.targets, self._options().message()
        connection = self.client._connection  # noqa: SLF001
        if self._is_single:
            part = packed[0] if isinstance(packed, list) else packed
            return connection.tasks.submit(kind, function, ids[0], part, options, convert=convert)  # type: ignore[arg-type]
        together = AggregateFuture(connection, ids, gather)
        if isinstance(packed, list):
            for engine, part in zip(ids, packed, strict=True):
                together._add(  # noqa: SLF001
                    connection.tasks.submit(kind, function, engine, part, options, parent=together, convert=convert)
                )
        else:
            together.tasks = connection.tasks.broadcast(
                kind,
                function,
                ids,
                packed,  # type: ignore[arg-type]
                options,
                parent=together,
                convert=convert,
            )
        together._complete()  # noqa: SLF001
        return together

    def _apply(self, function: Callable[..., Any], args: Any, kwargs: Any, *, is_attended: bool) -> LightFuture:
        packed = self.client._pack_function(function)  # noqa: SLF001
        call = pack_call(args, kwargs, name=packed.message.name, is_copying=not is_attended)
        return self._send(APPLY, packed, call)

    def _finish(self, future: LightFuture, block: bool | None) -> Any:  # noqa: FBT001
        return result_or_abort(future) if (self.block if block is None else block) else future

    # --- cells ---

    def execute(self, code: str, *, block: bool | None = None) -> Any:
        """Run text as an IPython cell in the engines' namespaces.

        Args:
            code: Python, with IPython's syntax (`%magic`, `!command`).
            block: wait for the CellResult (a list of them over several engines), else a future; default: the view's.
        """
        if not isinstance(code, str):
            raise TypeError(f"code is text, not {type(code).__name__}; a function goes to apply()")
        return self._finish(self._send(EXECUTE, None, pack_plain(code), convert=CellResult), block)

    def run(self, file: str | os.PathLike[str], *, block: bool | None = None) -> Any:
        """Run a local file as a cell.

        Raises:
            OSError: it cannot be read.
        """
        return self.execute(Path(file).expanduser().read_text(encoding="utf-8"), block=block)

    def activate(self, *, suffix: str = "") -> None:
        """Have `%px` and its family (in IPython and Jupyter) run on these engines; see `Client.activate`."""
        # Only who works in IPython needs it.
        from clusterd.client import magics  # noqa: PLC0415

        magics.activate(self, suffix)

    # --- names ---

    def push(self, names: Mapping[str, Any], *, block: bool | None = None) -> Any:
        """Set names on each engine.

        Raises:
            TaskNotSendable: a value cannot be pickled; says which.
        """
        checked = {_check_name(name): value for name, value in dict(names).items()}
        is_waiting = self.block if block is None else block
        return self._finish(self._send(PUSH, None, pack_names(checked, is_copying=not is_waiting)), block)

    def pull(self, names: str | Sequence[str], *, block: bool | None = None) -> Any:
        """Get names from each engine: a value for a name, a list for several; a list of these over several engines.

        Its result raises NameError where an engine has no such name.
        """
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            _check_name(name)
        convert = _first if isinstance(names, str) else None
        return self._finish(self._send(PULL, None, pack_plain(wanted), convert=convert), block)

    def scatter(self, name: str, sequence: Sequence[Any], *, flatten: bool = False, block: bool | None = None) -> Any:
        """Split a sequence (or an array, along its first axis) into one part for each engine, and push them under a name.

        Args:
            name: under which.
            sequence: list, tuple, range, array or anything that can be sliced.
            flatten: push the item itself where a part has exactly one.
            block: wait; default: the view's.
        """
        _check_name(name)
        parts = split(sequence, len(self.targets))
        if flatten:
            parts = [part[0] if len(part) == 1 else part for part in parts]
        return self._finish(self._send(PUSH, None, [pack_names({name: part}) for part in parts]), block)

    def gather(self, name: str, *, block: bool | None = None) -> Any:
        """The opposite of `scatter`: pull the parts and put them together, in the order of the engines."""
        convert = _first
        if self._is_single:
            return self.pull(name, block=block)
        return self._finish(
            self._send(PULL, None, pack_plain([_check_name(name)]), convert=convert, gather=join), block
        )

    def clear(self, *, block: bool | None = None) -> Any:
        """Forget all names of the engines; their start-up script and command run again."""
        return self._finish(self._send(CLEAR, None, _NONE), block)

    def get(self, name: str) -> Any:
        """`pull`, waiting for the value."""
        return self.pull(name, block=True)

    def update(self, names: Mapping[str, Any]) -> Any:
        """`push`, as a dict has it."""
        return self.push(names)

    def __setitem__(self, name: str, value: Any) -> None:
        self.push({name: value}, block=True)

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str):
            raise TypeError(f"a view is asked for names ({name!r} is none); engines are chosen by client[{name!r}]")
        return self.pull(name, block=True)

    # --- the engines themselves ---

    def abort(self, futures: Iterable[Any] | None = None) -> int:
        """End what waits for these engines and has not begun (or of `futures`); how many that is."""
        return self.client.abort(futures, targets=None if futures is not None else self.targets)

    def queue_status(self) -> dict[str, Any]:
        """As `Client.queue_status`, for these engines."""
        return self.client.queue_status(self.targets)

    def interrupt(self) -> list[int]:
        """Raise KeyboardInterrupt in what they run; their ids."""
        return self.client.interrupt(self.targets)


def _first(_future: TaskFuture, values: list[Any]) -> Any:
    return values[0]


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name!r} is not the name of a variable")
    return name
