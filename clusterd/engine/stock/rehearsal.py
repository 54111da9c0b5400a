"""Requests of a stock client, run before the fork: what they touch stays shared among the engines."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from clusterd.engine.executor import Executor
from clusterd.engine.namespace import Namespace
from clusterd.engine.output import Output
from clusterd.engine.stock.library import SERIALIZE
from clusterd.engine.stock.runner import StockRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterd.engine.shell import EngineShell

# A cell takes a hundred times as long as a call.
_CALLS = 20
_CELLS = 5
_HEADER = b'{"msg_id":"m","msg_type":"%s_request","session":"s","version":"5.3"}'


class _Nowhere:
    """A link that takes everything."""

    is_attached = is_clear = True
    is_sending = False
    welcome = None

    def send(self, messages: Sequence[Any], payload: Sequence[Any] = ()) -> None:
        """Forget it."""

    def receive(self) -> list[Any]:
        """Nothing."""
        return []


def rehearse(shell: EngineShell) -> None:
    """Run calls and cells, some of which fail, and forget them."""
    link: Any = _Nowhere()
    # Not installed: the zygote's own streams stay what they are.
    runner = StockRunner(Executor(Namespace(shell), Output(), "rehearsal"), link, bytes(16))
    for body, frames in _requests():
        runner.run(m.Dispatch(b"rehearsal", 0, 1, m.STOCK, b"", b""), 0, body, frames)
    shell.reset(new_session=True)
    shell.displayhook.forget()


def _requests() -> Iterator[tuple[bytes, Sequence[Any]]]:
    pack = importlib.import_module(SERIALIZE).pack_apply_message
    for number in range(_CALLS):
        for function, argument in ((lambda value: value + 1, number), (abs, number), (len, b"x" * 2000)):
            yield _request(b"apply", {}), [bytearray(frame) for frame in pack(function, (argument,), {})]
    for _ in range(_CELLS):
        for code in ("display('x')\n1 + 1", "1 / 0"):
            yield _request(b"execute", {"code": code, "silent": False, "user_expressions": {}}), ()


def _request(kind: bytes, content: dict[str, Any]) -> bytes:
    return jupyter.pack_request(jupyter.Request(_HEADER % kind, b"{}", b'{"label":null}', jupyter.json_of(content)))
