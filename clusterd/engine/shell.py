"""The IPython shell of an engine: no terminal, no history, no thread, nothing printed that the task did not print.

Built once in the zygote, before the fork. What a cell displays is collected for its result; its error is left to the
executor. Bounded: no `Out` cache, and the text of the last thousand cells only. Works with IPython 8.20 and later.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
from IPython.core import interactiveshell
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from clusterd.engine import sources

if TYPE_CHECKING:
    from clusterd.engine.stock.live import Live

MAX_DISPLAY_BYTES = 8 * 1024 * 1024
"""Rich output of one task beyond this is replaced by a note: it travels in a message header (16 MiB at most)."""


class EngineDisplayHook(DisplayHook):  # type: ignore[misc]
    """Collects the value of a cell's last expression."""

    shell: EngineShell
    # The last value that was displayed: what `_` is, unless the user assigned it.
    _shown: Any = ""

    def quiet(self) -> bool:
        """True when the cell ends in `;`."""
        cell = self.shell.cell
        return ";" in cell and bool(self.semicolon_at_end_of_expression(cell))

    def write_output_prompt(self) -> None:
        """There is nobody to prompt."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Collect."""
        self.shell.last_text = format_dict.get("text/plain")
        if self.shell.live is not None:
            count = self.shell.execution_count
            content = {"data": format_dict, "metadata": md_dict or {}, "execution_count": count}
            self.shell.live.publish("execute_result", content)
        else:
            self.shell.collect("execute_result", format_dict, md_dict)

    def update_user_ns(self, result: Any) -> None:
        """Keep `_`, and no more: an engine that holds its last results for ever runs out of memory."""
        namespace = self.shell.user_ns
        # A `_` that the user assigned stays.
        if namespace.get("_", self._shown) is self._shown:
            self._shown = namespace["_"] = result

    def forget(self) -> None:
        """Let go of the last value."""
        self._shown = ""

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """No history."""

    def finish_displayhook(self) -> None:
        """Print no newline."""
        self._is_active = False


class EngineDisplayPublisher(DisplayPublisher):  # type: ignore[misc]
    """Collects what `display()` is given."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *_: Any,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **__: Any,
    ) -> None:
        """Collect, or show at once."""
        kind = "update_display_data" if update else "display_data"
        if self.shell.live is not None:
            self.shell.live.publish(kind, {"data": data, "metadata": metadata or {}, "transient": transient or {}})
        else:
            self.shell.collect(kind, data, metadata)

    def clear_output(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - IPython's signature
        """Forget what was displayed."""
        if self.shell.live is not None:
            self.shell.live.publish("clear_output", {"wait": wait})
        self.shell.displayed.clear()


class EngineCompiler(CachingCompiler):  # type: ignore[misc]
    """Names cells, and lets go of the text of old ones."""

    def cache(self, *args: Any, **kwargs: Any) -> str:
        """Put the cell's text where tracebacks find it."""
        name: str = super().cache(*args, **kwargs)
        sources.keep(name)
        if len(self._filename_map) > 2 * sources.MAX_SOURCES:
            self._filename_map.clear()  # only labels of IPython's own tracebacks
        return name


class EngineShell(InteractiveShell):  # type: ignore[misc]
    """See the head of this module.

    Attributes:
        cell: the text of the running cell.
        displayed: rich output of the running task.
        last_text: text/plain of the last expression's value, None where it has none.
        live: where rich output goes at once, while a task of a stock client runs; else None.
    """

    displayhook_class = Type(EngineDisplayHook)
    display_pub_class = Type(EngineDisplayPublisher)
    compiler_class = Type(EngineCompiler)
    # In place of the trait: IPython 8 reads the location while the shell is built.
    profile_dir = SimpleNamespace(location="")

    def __init__(self, **kwargs: Any) -> None:
        self.cell = ""
        self.displayed: list[dict[str, Any]] = []
        self.last_text: str | None = None
        self.live: Live | None = None
        self._displayed_bytes = 0
        super().__init__(**kwargs)

    # Nothing is read from or written to ~/.ipython: homes of compute nodes are slow, shared, full or absent.
    def init_ipython_dir(self, ipython_dir: str) -> None:
        """None."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """None."""

    def init_history(self) -> None:
        """A history that keeps nothing: no SQLite, no thread that saves it."""
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False, hist_file=":memory:")
        self.configurables.append(self.history_manager)

    def init_completer(self) -> None:
        """Nobody presses Tab."""
        self.Completer = None

    def init_virtualenv(self) -> None:
        """The interpreter was chosen by the profile; $VIRTUAL_ENV of the daemon must not change the path."""

    def enable_gui(self, gui: str | None = None) -> None:
        """No event loop runs beside tasks; `%matplotlib inline` asks for none."""
        if gui not in (None, "inline", "none"):
            raise UsageError(f"an engine has no screen: there is no event loop of {gui!r} here")

    def _tee(self, channel: str) -> Any:  # noqa: ARG002 - IPython's signature
        # IPython 9 keeps a copy of all that cells print, for ever.
        return contextlib.nullcontext()

    def ask_exit(self) -> None:
        """`exit` in a cell ends the cell."""
        raise SystemExit(0)

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> bool:
        """Run compiled code; the error is noted, not shown."""
        try:
            if async_:
                await eval(code_obj, self.user_global_ns, self.user_ns)  # noqa: S307 - the user's cell
            else:
                exec(code_obj, self.user_global_ns, self.user_ns)  # noqa: S102
        except BaseException as error:
            if result is None:
                raise
            result.error_in_exec = error
            return True
        return False

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Errors of cells are in their result. Others (`%run script.py`, event callbacks) are printed, in brief."""
        if args or kwargs.get("running_compiled_code"):
            return
        traceback.print_exc(file=sys.stderr)

    def showsyntaxerror(self, filename: str | None = None, running_compiled_code: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Likewise."""
        if filename is not None:
            traceback.print_exc(limit=0, file=sys.stderr)

    def collect(self, kind: str, data: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        """Add one piece of rich output; what MessagePack cannot carry is reduced to its text."""
        entry = {"kind": kind, "data": data, "metadata": metadata or {}}
        try:
            size = len(msgspec.msgpack.encode(entry))
        except (TypeError, ValueError, OverflowError):
            entry = {"kind": kind, "data": {"text/plain": str(data.get("text/plain", ""))}, "metadata": {}}
            size = len(msgspec.msgpack.encode(entry))
        if self._displayed_bytes + size > MAX_DISPLAY_BYTES:
            entry = {"kind": kind, "data": {"text/plain": f"... {size} bytes of rich output dropped"}, "metadata": {}}
            size = 0
        self._displayed_bytes += size
        self.displayed.append(entry)

    def take_displayed(self) -> list[dict[str, Any]] | None:
        """Rich output since the last call; None where there is none."""
        if not self.displayed:
            return None
        displayed, self.displayed = self.displayed, []
        self._displayed_bytes = 0
        return displayed

    def run_text(self, text: str) -> tuple[str | None, BaseException | None]:
        """Run a cell; (text/plain of its last expression, its error)."""
        self.last_text = None
        self.execution_count += 1
        error = self.run_request(text)
        return self.last_text, error

    def run_request(self, text: str, *, is_silent: bool = False) -> BaseException | None:
        """Run a cell; its error. A silent one shows no value."""
        self.cell = text
        try:
            result = self.run_cell(text, store_history=False, silent=is_silent)
        finally:
            self.cell = ""
        # The result holds the value and the error, the shell would hold the result until the next cell.
        self.last_execution_result = None
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        return error


def build_shell() -> EngineShell:
    """The one shell of this process; `__main__` is its namespace from now on."""
    config = Config()
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.cache_size = 0
    config.InteractiveShell.enable_html_pager = False
    # IPython 8 makes a directory for %store while it is built; ours keeps that in memory, as all else.
    made_for_store = getattr(interactiveshell, "PickleShareDB", None)
    interactiveshell.PickleShareDB = lambda _path: {}
    try:
        shell: EngineShell = EngineShell.instance(config=config)
    finally:
        if made_for_store is None:
            del interactiveshell.PickleShareDB
        else:
            interactiveshell.PickleShareDB = made_for_store
    shell.db = {}
    # get_ipython and exit are to be found by applied functions too, not only by cells; entered once, the trap is a
    # counter for each cell.
    shell.builtin_trap.__enter__()
    return shell
