"""Runs a native task on a stock engine. The controller sends the text of this file there, where clusterd is not installed.

It needs Python 3.8, IPython, which every stock engine has, and cloudpickle for what travels by value. Values, namespace and failures
are those of `clusterd.engine`, in so far as they can be had there. What `run` returns is described in `errand`, which reads it.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import dis
import gc
import io
import json
import linecache
import pickle
import sys
import time
import traceback
import weakref
from collections import OrderedDict
from types import CodeType, FunctionType
from typing import Any

from IPython import get_ipython
from IPython.core.displaypub import CapturingDisplayPublisher

try:
    import cloudpickle
except ImportError:
    cloudpickle = None

MIN_BYTES = 1025
"""Smaller results would travel inside of a pickle, and the controller opens none."""
OUT_OF_BAND_BYTES = 16 * 1024
MAX_FRAMES, MAX_FUNCTIONS = 200, 1024
MAX_OUTPUT, MAX_TRACEBACK, MAX_DISPLAY = 1024 * 1024, 64 * 1024, 8 * 1024 * 1024
_MARK, _RELEASE = b"\0py", bytes(sys.version_info[:2])
_ABSENT = object()
_functions: OrderedDict[str, Any] = OrderedDict()
_links: Any = weakref.WeakSet()


class Unsendable(Exception):
    """Code that cannot come here, or go back."""

    hint = ""


class Unknown(Exception):
    """A function that is not here (any more)."""


class Link:
    """The globals of functions that came by value, and the names in them that belong to the engine's namespace."""

    def __init__(self, names: dict[str, Any], missing: set[str], stores: set[str]) -> None:
        self.globals = names
        self.names = missing | stores
        self.stores = stores
        self.initial = {name: names[name] for name in stores if name in names}
        self.entered: dict[str, Any] = {}

    def enter(self, namespace: dict[str, Any]) -> None:
        """Before a call: give the functions what the engine has."""
        for name in self.names:
            if name in namespace:
                self.globals[name] = namespace[name]
        self.entered = {name: self.globals.get(name, _ABSENT) for name in self.stores}

    def leave(self, namespace: dict[str, Any]) -> None:
        """After it: take what they assigned, and what was given."""
        for name, before in self.entered.items():
            after = self.globals.get(name, _ABSENT)
            if after is _ABSENT:
                namespace.pop(name, None)
            elif after is not before:
                namespace[name] = after
        self.entered = {}
        for name in self.names:
            self.globals.pop(name, None)
        self.globals.update(self.initial)


class Loader(pickle.Unpickler):
    """Notes the functions that cloudpickle builds."""

    def __init__(self, body: Any, frames: Any) -> None:
        super().__init__(io.BytesIO(body), buffers=frames)
        self.functions: list[FunctionType] = []

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler`."""
        if cloudpickle is None and module.partition(".")[0] == "cloudpickle":
            error = Unsendable(
                "this stock engine has no cloudpickle, by which functions and classes travel that are in no module"
            )
            error.hint = (
                "Install cloudpickle where ipengine runs, or put the function into a module that both sides import."
            )
            raise error
        found = super().find_class(module, name)
        if name != "_make_function" or not module.startswith("cloudpickle"):
            return found

        def make(*arguments: Any) -> Any:
            function = found(*arguments)
            self.functions.append(function)
            return function

        return make


def _global_names(code: CodeType) -> tuple[set[str], set[str]]:
    loads: set[str] = set()
    stores: set[str] = set()
    pending = [code]
    while pending:
        current = pending.pop()
        for step in dis.get_instructions(current):
            if step.opname in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}:
                loads.add(step.argval)
            elif step.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
                stores.add(step.argval)
        pending += [constant for constant in current.co_consts if isinstance(constant, CodeType)]
    return loads, stores


def _load(body: Any, frames: Any) -> tuple[Any, list[Link]]:
    """A value, and the links of the functions in it."""
    tail = bytes(body[-5:])
    if tail[:3] == _MARK and tail[3:] != _RELEASE:
        there, here = (f"{major}.{minor}" for major, minor in (tail[3:], _RELEASE))
        error = Unsendable(f"code by value from Python {there} cannot run on Python {here}")
        error.hint = (
            "Use the same minor release on both sides, or put the function into a module that both sides import."
        )
        raise error
    loader = Loader(body, [bytearray(frame) for frame in frames])
    value = loader.load()
    found: dict[int, tuple[dict[str, Any], set[str], set[str]]] = {}
    for function in loader.functions:
        loads, stores = _global_names(function.__code__)
        names = function.__globals__
        missing = {name for name in loads if name not in names and not hasattr(builtins, name)}
        if missing or stores:
            _, all_missing, all_stores = found.setdefault(id(names), (names, set(), set()))
            all_missing |= missing
            all_stores |= stores
    return value, [Link(*entry) for entry in found.values()]


def _keep(links: list[Link]) -> None:
    for link in links:
        link.globals["__clusterd_link__"] = link
        _links.add(link)


@contextlib.contextmanager
def _linked(links: list[Link], namespace: dict[str, Any]) -> Any:
    entered = [*links, *_links]
    for link in entered:
        link.enter(namespace)
    try:
        yield
    finally:
        for link in entered:
            link.leave(namespace)


def _dump(value: Any) -> tuple[bytes, list[Any]]:
    frames: list[Any] = []

    def is_in_band(buffer: Any) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_BYTES or len(frames) == MAX_FRAMES:
            return True
        frames.append(raw)
        return False

    try:
        body = (cloudpickle or pickle).dumps(value, protocol=5, buffer_callback=is_in_band)
    except Exception as error:
        raise Unsendable(f"the result cannot be pickled: {type(error).__name__}: {error}") from error
    if b"cloudpickle.cloudpickle" in body:
        body += _MARK + _RELEASE
    return body, frames


class Task:
    """One task.

    Args:
        order: what the controller says of it.
        blobs: its buffers, then those of its function.
    """

    def __init__(self, order: dict[str, Any], blobs: list[Any]) -> None:
        self.order = order
        self.frames = blobs[: order["frames"]]
        self.function_frames = blobs[order["frames"] :]
        self.body = order["body"]
        if not self.body and self.frames:
            self.body, self.frames = self.frames[0], self.frames[1:]
        self.shell = get_ipython()
        self.namespace = self.shell.user_ns
        self.display: list[dict[str, Any]] = []
        self.index = -1

    def run(self) -> Any:
        """Run it; its value."""
        return getattr(self, "do_" + self.order["kind"])()

    def _function(self) -> tuple[Any, list[Link]]:
        digest, body = self.order["function"], self.order["code"]
        known: tuple[Any, list[Link]] | None = _functions.get(digest)
        if known is None:
            if body is None:
                raise Unknown
            frames = self.function_frames
            if not body:
                body, frames = frames[0], frames[1:]
            (call, sources), links = _load(body, frames)
            for name, (first, text) in sources.items():
                lines = ["\n"] * (first - 1) + [line + "\n" for line in text.splitlines()]
                linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
            known = _functions[digest] = (call, links)
            while len(_functions) > MAX_FUNCTIONS:
                _functions.popitem(last=False)
        _functions.move_to_end(digest)
        return known

    def _arguments(self) -> Any:
        value, links = _load(self.body, self.frames)
        _keep(links)
        return value

    def do_apply(self) -> Any:
        """One call."""
        call, links = self._function()
        args, kwargs = self._arguments()
        with _linked(links, self.namespace):
            return call(*args, **kwargs)

    def do_map(self) -> Any:
        """A call for each item of a chunk."""
        call, links = self._function()
        columns = self._arguments()
        values: list[Any] = []
        with _linked(links, self.namespace):
            try:
                for items in zip(*columns):  # noqa: B905 - strict is of 3.10
                    values.append(call(*items))  # noqa: PERF401 - how many there are is needed when one fails
            except BaseException:
                self.index = len(values)
                raise
        return values

    def do_push(self) -> None:
        """Set names."""
        self.namespace.update(self._arguments())

    def do_pull(self) -> list[Any]:
        """The values of names."""
        names = _load(self.body, self.frames)[0]
        for name in names:
            if name not in self.namespace:
                raise NameError(f"name {name!r} is not defined")
        return [self.namespace[name] for name in names]

    def do_clear(self) -> None:
        """Forget all names."""
        # The engine is in the middle of a call, whose own names it is going to look for.
        mark = self.order["message"].replace("-", "")
        kept = {name: value for name, value in self.namespace.items() if mark in name}
        self.shell.reset(new_session=False)
        self.namespace.update(kept)
        gc.collect()

    def do_execute(self) -> Any:
        """Run a cell; the text of its last value."""
        text = _load(self.body, self.frames)[0]
        shell, shown = self.shell, []

        def show(value: Any) -> None:
            if value is None or text.rstrip().endswith(";"):
                return
            data, metadata = shell.display_formatter.format(value)
            shown.append(data.get("text/plain"))
            outputs.append({"kind": "execute_result", "data": data, "metadata": metadata})

        publisher, shell.display_pub = shell.display_pub, CapturingDisplayPublisher()
        outputs = shell.display_pub.outputs
        try:
            with _linked([], self.namespace), shell.display_trap:
                sys.displayhook = show
                result = shell.run_cell(text, store_history=False)
        finally:
            shell.display_pub = publisher
            self.display = [_rich(output) for output in outputs]
        shell.last_execution_result = None
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            raise error
        return shown[-1] if shown else None


def _rich(output: dict[str, Any]) -> dict[str, Any]:
    kind = output.get("kind") or ("update_display_data" if output.get("update") else "display_data")
    data = {
        mime: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for mime, value in (output.get("data") or {}).items()
    }
    try:
        size = len(json.dumps([data, output.get("metadata")]))
    except (TypeError, ValueError):
        return {"kind": kind, "data": {"text/plain": str(data.get("text/plain", ""))}, "metadata": {}}
    if size > MAX_DISPLAY:
        data = {"text/plain": f"... {size} bytes of rich output dropped"}
    return {"kind": kind, "data": data, "metadata": output.get("metadata") or {}}


def _pickled(error: BaseException) -> bytes:
    """A pickle of an exception that was proved to unpickle, or nothing."""
    try:
        body: bytes = (cloudpickle or pickle).dumps(error, protocol=5)
        copy = pickle.loads(body)  # noqa: S301 - on the engine, whose own exception it is
        if type(copy).__name__ == type(error).__name__ and str(copy) == str(error):
            return body + _MARK + _RELEASE if b"cloudpickle.cloudpickle" in body else body
    except Exception:  # noqa: BLE001 - user code
        return b""
    return b""


def _failure(error: BaseException, task: Task) -> tuple[dict[str, Any], bytes]:
    head: dict[str, Any] = {"status": 1, "index": task.index, "error": "", "hint": ""}
    if isinstance(error, Unsendable):
        head["error"], head["hint"] = "TaskNotSendable", error.hint
    elif isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        head["error"] = "TaskError"
        error = RuntimeError(f"the task called sys.exit({code})").with_traceback(error.__traceback__)
    try:
        head["message"] = str(error)
    except Exception as problem:  # noqa: BLE001 - user code
        head["message"] = f"(its text cannot be had: {type(problem).__name__})"
    head["name"] = head["error"] or type(error).__qualname__
    try:
        trace = error.__traceback__
        while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception as problem:  # noqa: BLE001 - user code
        text = f"{head['name']} (its traceback cannot be shown: {type(problem).__name__})\n"
    if len(text) > MAX_TRACEBACK:
        text = f"{text[: MAX_TRACEBACK // 2]}\n... characters dropped ...\n{text[-MAX_TRACEBACK // 2 :]}"
    item = f", item {task.index} of the chunk" if task.index >= 0 else ""
    head["traceback"] = f"On engine {task.order['engine']}{item}:\n{text}"
    body = b"" if head["error"] else _pickled(error)
    error.__traceback__ = None
    return head, body


def _is_ours(name: str) -> bool:
    runners = ("IPython/core/interactiveshell.py", "IPython/core/async_helpers.py")
    return name == "<clusterd>" or name.replace("\\", "/").endswith(runners)


def run(given: dict[str, Any]) -> bytes:
    """Run one task; all that there is to say about it."""
    order: dict[str, Any] = given["order"]
    blobs = [memoryview(given[f"b{index:03}"]) for index in range(order["blobs"])]
    if order["lengths"] is not None:
        whole, blobs, at = blobs[0], [], 0
        for length in order["lengths"]:
            blobs.append(whole[at : at + length])
            at += length
    started, clock = time.time(), time.perf_counter()
    out, err = io.StringIO(), io.StringIO()
    head: dict[str, Any] = {"status": 0}
    body: bytes = b""
    frames: list[Any] = []
    task = Task(order, blobs)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            body, frames = _dump(task.run())
    except Unknown:
        head = {"status": 0, "needs": True}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the task's
        head, body = _failure(error, task)
    head["started"], head["finished"] = started, started + (time.perf_counter() - clock)
    head["stdout"], head["stderr"] = out.getvalue()[-MAX_OUTPUT:], err.getvalue()[-MAX_OUTPUT:]
    head["display"] = task.display or None
    head["body"], head["frames"] = len(body), [len(frame) for frame in frames]
    about = json.dumps(head).encode()
    result = b"".join([len(about).to_bytes(4, "big"), about, body, *frames])
    return result + bytes(max(0, MIN_BYTES - len(result)))
