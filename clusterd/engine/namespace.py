"""The engine's namespace: push, pull, clear, the start-up script and command, and the names that functions share with it."""

from __future__ import annotations

import contextlib
import gc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterd.engine.sources import register_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from clusterd.engine.links import Link
    from clusterd.engine.shell import EngineShell


class Startup:
    """What runs when the engine starts, and again after each `clear`.

    Args:
        script: path of a Python file, empty for none.
        command: Python text (IPython syntax allowed), empty for none; runs after the script.
    """

    def __init__(self, script: str = "", command: str = "") -> None:
        self.script = script
        self.command = command

    def run(self, shell: EngineShell) -> None:
        """Run both.

        Raises:
            BaseException: whatever they raise; OSError when the script cannot be read.
        """
        if self.script:
            path = Path(self.script).expanduser()
            text = path.read_text(encoding="utf-8")
            # A file named .ipy has IPython syntax, as for `%run`.
            if path.suffix == ".ipy":
                self._run_cell(shell, text)
            else:
                code = compile(text, str(path), "exec", dont_inherit=True)
                register_source(str(path), 1, text)
                exec(code, shell.user_ns)  # noqa: S102 - the user's own script
        if self.command:
            self._run_cell(shell, self.command)

    @staticmethod
    def _run_cell(shell: EngineShell, text: str) -> None:
        _, error = shell.run_text(text)
        shell.take_displayed()
        if error is not None:
            raise error


class Namespace:
    """The dict in which cells run and to which push and pull apply.

    Args:
        shell: its owner.
        startup: see there.
    """

    def __init__(self, shell: EngineShell, startup: Startup | None = None) -> None:
        self.shell = shell
        self.startup = startup or Startup()
        # Links of functions that came as arguments or by push, as long as one of these functions lives (the link keeps the
        # dict of globals, the functions keep the link).
        self._kept: weakref.WeakSet[Link] = weakref.WeakSet()
        # Not empty while there are functions in the namespace, or were not long ago, that share names with it: the references of
        # `_kept`, because asking that itself costs three calls, in each task.
        self.kept: Collection[Any] = self._kept.data  # type: ignore[attr-defined] # typeshed leaves it out

    @property
    def names(self) -> dict[str, Any]:
        """The dict itself."""
        names: dict[str, Any] = self.shell.user_ns
        return names

    def push(self, values: dict[str, Any]) -> None:
        """Set names."""
        self.names.update(values)

    def pull(self, names: Sequence[str]) -> list[Any]:
        """The values of names, in order.

        Raises:
            NameError: one of them is not there.
        """
        found = self.names
        try:
            return [found[name] for name in names]
        except KeyError as error:
            raise NameError(f"name {error.args[0]!r} is not defined", name=error.args[0]) from None

    def clear(self) -> None:
        """Forget all names, then run the start-up script and command again.

        Raises:
            BaseException: what they raise; the names are forgotten all the same.
        """
        self.shell.reset(new_session=False)
        self.shell.displayhook.forget()
        # What was held in cycles goes now: a user clears to get memory back.
        gc.collect()
        self.startup.run(self.shell)

    def keep(self, links: Sequence[Link]) -> None:
        """Tie functions that may outlive the task they came with."""
        for link in links:
            # The dict of globals is what all functions of the link hold on to: it holds the link, and the set does not.
            link.globals["__clusterd_link__"] = link
            self._kept.add(link)

    @contextlib.contextmanager
    def linked(self, links: Sequence[Link]) -> Iterator[None]:
        """Give functions the names that they share with the namespace, and take back what they assign."""
        names = self.names
        # A list: a destructor that runs in between may take members out of the set.
        entered = [*links, *self._kept]
        for link in entered:
            link.enter(names)
        try:
            yield
        finally:
            for link in entered:
                link.leave(names)
