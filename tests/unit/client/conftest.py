"""A client of a fake controller in this process."""

from __future__ import annotations

import threading

import pytest

import clusterd
from tests.fakes.controller import FakeController


@pytest.fixture
def controller(isolated):
    controller = FakeController(isolated.runtime)
    yield controller
    controller.close()


@pytest.fixture
def connect(controller):
    """Make clients that are closed at the end."""
    clients = []

    def make(**options):
        clients.append(clusterd.Client(controller.file, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def view(client):
    return client.load_balanced_view()


@pytest.fixture
def in_thread():
    """Run a function in a thread of its own, where waiting drives the loop; its value, or what it raised."""

    def run(function, *args):
        box = []

        def work():
            try:
                box.append((function(*args), None))
            except BaseException as error:  # noqa: BLE001
                box.append((None, error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        value, error = box[0]
        if error is not None:
            raise error
        return value

    return run
