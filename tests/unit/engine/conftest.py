"""An engine's inside without its wire: shell, namespace, executor, and functions as a client's `__main__` would send them."""

from __future__ import annotations

import sys
import types

import cloudpickle
import pytest

from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.engine import shell as shell_module
from clusterd.engine.executor import Executor
from clusterd.engine.functions import Functions
from clusterd.engine.namespace import Namespace, Startup
from clusterd.engine.output import Output


@pytest.fixture(scope="package")
def _built():
    hook = sys.displayhook
    shell = shell_module.build_shell()
    yield shell
    shell.builtin_trap.__exit__(None, None, None)
    shell.restore_sys_module_state()
    shell_module.EngineShell.clear_instance()
    sys.displayhook = hook


@pytest.fixture
def shell(_built):
    yield _built
    _built.reset(new_session=False)
    _built.take_displayed()


class Engine:
    """Runs tasks as the wire would bring them."""

    def __init__(self, shell, startup=None):
        self.namespace = Namespace(shell, startup)
        self.output = Output()
        self.functions = Functions()
        self.executor = Executor(self.namespace, self.output, "local/engines/3")

    def outcome(self, kind, value, function=None):
        held = None
        if function is not None:
            body, frames = payload.pack_function(function, cloudpickle.dumps)
            digest = payload.function_digest("f", "", body, frames)
            self.functions.add(digest, "f", body, frames)
            held = self.functions.get(digest)
        body, frames = payload.pack(value, cloudpickle.dumps)
        return self.executor.run(kind, held, body, frames)

    def value(self, kind, value, function=None):
        outcome = self.outcome(kind, value, function)
        if outcome.status == m.STATUS_ERROR:
            raise payload.unpack_failure(outcome.body).to_exception()
        return payload.unpack(outcome.body, outcome.frames)

    def failure(self, kind, value, function=None):
        outcome = self.outcome(kind, value, function)
        assert outcome.status == m.STATUS_ERROR
        return payload.unpack_failure(outcome.body)

    def apply(self, function, *args, **kwargs):
        return self.value(m.APPLY, (args, kwargs), function)

    def map(self, function, *columns):
        return self.value(m.MAP, columns, function)

    def execute(self, text):
        return self.value(m.EXECUTE, text)

    def push(self, **values):
        return self.value(m.PUSH, values)

    def pull(self, *names):
        return self.value(m.PULL, list(names))


@pytest.fixture
def engine(shell):
    return Engine(shell)


@pytest.fixture
def engine_with(shell):
    return lambda **startup: Engine(shell, Startup(**startup))


@pytest.fixture
def client():
    """Defines names as if in the `__main__` of a client: functions go by value, with their own globals."""

    def define(text, **names):
        module = types.ModuleType("clients_main")
        module.__dict__.update(names)
        # A module that cannot be imported elsewhere is what cloudpickle sends by value.
        exec(compile(text, "<client>", "exec"), module.__dict__)  # noqa: S102
        return types.SimpleNamespace(**{k: v for k, v in module.__dict__.items() if not k.startswith("__")})

    return define
