"""The magics of one shell: where cells run, how they are waited for, and %autopx."""

from __future__ import annotations

import functools
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from clusterd.client.client import Client
from clusterd.client.magics.arguments import Settings, UsageError, read
from clusterd.client.magics.show import show
from clusterd.client.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.client.aggregate import AggregateFuture
    from clusterd.client.direct import DirectView

# Makes the client of a user who has none.
find: Callable[[], Client] = Client
# An engine that does not heed an interrupt within this is in C code, or catches KeyboardInterrupt.
INTERRUPT_SECONDS: Final = 5.0
# Between two looks at how many engines are done.
_TICK: Final = 0.1
_OWN: Final = re.compile(r"\s*%%?(auto)?px")
_SWITCH: Final = re.compile(r"\s*%autopx")


class Magics:
    """The magics with one suffix.

    Args:
        shell: the user's IPython.
        suffix: of their names.
    """

    def __init__(self, shell: Any, suffix: str) -> None:
        self._shell = shell
        self._suffix = suffix
        # Where cells run; None until one is activated or found.
        self.view: DirectView | None = None
        self._settings = Settings()
        # Of the last cell.
        self._last: AggregateFuture | None = None
        self._is_auto = False
        # True while a cell runs in this process by our order: it must not be sent to the engines.
        self._is_local = False
        self._is_retired = False

        def transform(lines: list[str]) -> list[str]:
            return self._send_cell(lines)

        # IPython's mark: not to be used when it asks whether what is typed is complete.
        transform.has_side_effects = True  # type: ignore[attr-defined]
        self._transform = transform

    def register(self) -> None:
        """Put them in force: whatever had these names has not any more."""
        self._is_retired = False
        kinds: dict[str, tuple[str, Callable[..., Any]]] = {
            "px": ("line_cell", self.px),
            "autopx": ("line", self.autopx),
            "pxresult": ("line", self.pxresult),
            "pxconfig": ("line", self.pxconfig),
        }
        for name, (kind, function) in kinds.items():
            self._shell.register_magic_function(
                _unexpanded(function), magic_kind=kind, magic_name=f"{name}{self._suffix}"
            )

    def retire(self) -> None:
        """Let go of everything."""
        self._is_retired = True
        self.view = self._last = None
        if self._is_auto:
            self._switch_auto()

    # --- the magics ---

    def px(self, line: str, cell: str | None = None) -> Any:
        """Run a line, or (%%px) a cell, on the engines.

        %%px [-t ENGINES] [-b | -a] [--local] [-g type|engine|order] [-o NAME] [--progress-after SECONDS]

        -t, --targets ENGINES: all, 0, -1, 1:3, 0,2,5, or a variable that holds such a choice; default: the active view's.
        -b, --block: wait, and show the output. -a, --noblock: give a future at once; %pxresult shows the output.
        --local: run it here too. -o, --name NAME: a variable for the future.
        -g, --group-outputs: all that was printed and then all that was displayed, engine by engine, or first pieces first.
        --progress-after SECONDS: when a bar is shown.

        Ctrl-C interrupts the engines that run it. Nothing in the line is expanded ($name, {expression}): it is the engines' code.
        """
        if cell is None:
            if not line.strip():
                raise UsageError("%px: a line of Python is missing")
            return self._run(line, self._settings)
        settings = read("%%px", line, self._settings, self._shell.user_ns)
        if not cell.strip():
            raise UsageError("%%px: the cell is empty")
        return self._run(cell, settings)

    def autopx(self, line: str = "") -> None:
        """Run every cell on the engines from now on, as %%px does; said again: here."""
        if line.strip():
            raise UsageError("%autopx takes no arguments; %pxconfig says on which engines, and how")
        self._check()
        if not self._is_auto:
            self._active_view()
        self._switch_auto()
        sys.stdout.write(f"%autopx{self._suffix} is {'on' if self._is_auto else 'off'}\n")

    def pxresult(self, line: str = "") -> None:
        """Show the output of the last cell again; waits for it.

        %pxresult [-g type|engine|order] [-o NAME]
        """
        self._check()
        if self._last is None:
            raise UsageError("%pxresult: nothing was run by %px yet")
        settings = read("%pxresult", line, self._settings, self._shell.user_ns)
        self._keep(self._last, settings)
        self._finish(self._last, settings)

    def pxconfig(self, line: str = "") -> None:
        """Set what holds for all cells that do not say otherwise, or (without options) show it.

        %pxconfig [-t ENGINES] [-b | -a] [--local | --remote] [-g type|engine|order] [--progress-after SECONDS]
        """
        self._check()
        self._settings = read("%pxconfig", line, self._settings, self._shell.user_ns)
        if not line.strip():
            targets, is_waiting, is_local, group, seconds, _ = self._settings
            where = "the view's" if targets is None else targets
            sys.stdout.write(
                f"--targets {where} {'--block' if is_waiting else '--noblock'} {'--local' if is_local else '--remote'} "
                f"--group-outputs {group} --progress-after {seconds:g}\n"
            )

    # --- running ---

    def _run(self, code: str, settings: Settings) -> Any:
        self._check()
        view = self._active_view()
        targets = view.targets if settings.targets is None else settings.targets
        client = view.client
        # A list, also of one: a cell has one future whose parts are the engines.
        chosen = client.direct_view(targets).targets
        there = client.direct_view(chosen, timeout=view.timeout, label=view.label)
        future: AggregateFuture = there.execute(code, block=False)
        self._last = future
        self._keep(future, settings)
        if settings.is_local:
            self._is_local = True
            try:
                self._shell.run_cell(code)
            finally:
                self._is_local = False
        if not settings.is_waiting:
            return future
        self._finish(future, settings)
        return None

    def _keep(self, future: AggregateFuture, settings: Settings) -> None:
        if settings.name:
            self._shell.user_ns[settings.name] = future

    def _finish(self, future: AggregateFuture, settings: Settings) -> None:
        try:
            self._wait(future, settings.progress_after)
        except KeyboardInterrupt:
            self._interrupt(future)
        show(self._shell, future, settings.group)

    def _wait(self, future: AggregateFuture, progress_after: float) -> None:
        if future.wait(progress_after):
            return
        with Progress(f"%px{self._suffix}", len(future.tasks), unit="engines done") as bar:
            while not future.wait(_TICK):
                bar.show(future.progress)
            bar.show(len(future.tasks))

    def _interrupt(self, future: AggregateFuture) -> None:
        """Give up what has not begun, and interrupt the engines that run it; a second Ctrl-C leaves them alone."""
        future.cancel()
        running = [engine for engine, task in zip(future.targets, future.tasks, strict=True) if not task.done()]
        if running and self.view is not None:
            self.view.client.interrupt([engine for engine in running if engine in self.view.client.ids])
        if not future.wait(INTERRUPT_SECONDS):
            left = [engine for engine, task in zip(future.targets, future.tasks, strict=True) if not task.done()]
            sys.stderr.write(
                f"engines {', '.join(map(str, left))} go on in spite of the interrupt; %pxresult{self._suffix} waits for them, "
                "client.kill(...) ends them\n"
            )
            raise KeyboardInterrupt

    # --- where ---

    def _check(self) -> None:
        if self._is_retired:
            raise UsageError("the extension clusterd was unloaded: %load_ext clusterd brings its magics back")

    def _active_view(self) -> DirectView:
        if self.view is not None and self.view.client.closed:
            self.view = None
        if self.view is None:
            self.view = self._client().direct_view()
        return self.view

    def _client(self) -> Client:
        """The one that the user has, else one of the only running cluster."""
        values = list(self._shell.user_ns.values())
        clients = {id(value): value for value in values if isinstance(value, Client) and not value.closed}
        if len(clients) > 1:
            raise UsageError("there are several clients: say which one's engines are meant, as in `client.activate()`")
        if clients:
            return next(iter(clients.values()))
        client = find()
        client.wait_for_engines(1, timeout=30, progress=False)
        sys.stdout.write(f"%px{self._suffix} runs on the engines of {client.cluster!r}\n")
        return client

    # --- %autopx ---

    def _switch_auto(self) -> None:
        transforms = self._shell.input_transformers_cleanup
        if self._is_auto:
            transforms.remove(self._transform)
        else:
            transforms.insert(0, self._transform)
        self._is_auto = not self._is_auto

    def _send_cell(self, lines: list[str]) -> list[str]:
        """The cell as %%px; ours stay what they are, and so does one that runs here by our order."""
        if self._is_local or not "".join(lines).strip():
            return lines
        if _OWN.match(lines[0]) or any(_SWITCH.match(line) for line in lines):
            return lines
        return [f"%%px{self._suffix}\n", *lines]


def _unexpanded(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with IPython's mark: without it {'a': 1} in a line of code would be taken for a template and become `a`."""

    @functools.wraps(method)
    def magic(line: str = "", *cell: str) -> Any:
        return method(line, *cell)

    magic._ipython_magic_no_var_expand = True  # type: ignore[attr-defined]  # noqa: SLF001
    return magic
