"""A MongoDB server that is away, at the start or for a while; and settings that it cannot be found by."""

from __future__ import annotations

import time

import pytest

from clusterd.core.model.database import MongodbRecords
from clusterd.core.wire.messages import APPLY
from clusterd.errors import NotPrivate, StorageError
from clusterd.storage.taskstore import mongodb as product
from clusterd.storage.taskstore import written
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.row import Outcome, TaskRow
from tests.rigs import mongodb
from tests.waiting import until


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that is not running yet."""
    monkeypatch.setattr(written, "BACKOFF", (0.05, 0.1))
    monkeypatch.setattr(product, "SELECTION_MS", 300)
    server = mongodb.Server(mongodb.program(), tmp_path)
    yield server
    server.stop()


@pytest.fixture
def store(server):
    store = product.open_mongodb(MongodbRecords(uri=server.uri), "test")
    yield store
    store.close()


def put(store, msg_id: str) -> TaskRow:
    row = TaskRow(msg_id, "c", "task", time.time(), kind=APPLY, body=b"args", buffers=[bytes(300_000)])
    store.put(row)
    return row


def end(store, row: TaskRow) -> None:
    row.outcome = Outcome("ok", time.time(), time.time(), body=b"value")
    store.update(row)


def test_records_wait_for_a_server_and_none_is_lost(server, store):
    end(store, put(store, "a"))
    put(store, "b")
    until(lambda: store.trouble, "the store to notice")
    assert "MongoDB at mongodb://127.0.0.1" in store.trouble
    # Questions are refused at once: whoever asks holds up everybody else.
    started = time.monotonic()
    with pytest.raises(StorageError, match="does not answer"):
        store.query(parse({}))
    assert time.monotonic() - started < 0.2
    # What is here is known all the same.
    assert store.get("b").body == b"args"
    server.start()
    assert store.flush(20)
    assert (store.trouble, store.lost) == ("", 0)
    assert store.history() == ["a", "b"]
    # And once more, in the middle of work.
    server.stop()
    put(store, "c")
    until(lambda: store.trouble, "the store to notice")
    server.start()
    assert store.flush(20)
    assert store.history() == ["a", "b", "c"]
    assert [bytes(buffer) for buffer in store.get("a").buffers] == [bytes(300_000)]


def test_settings_that_cannot_be_used(tmp_path):
    with pytest.raises(StorageError, match="cannot be used"):
        product.open_mongodb(MongodbRecords(uri="mongodb://"), "test")
    with pytest.raises(StorageError, match="cannot be used"):
        product.open_mongodb(MongodbRecords(options={"tls": "perhaps"}), "test")
    with pytest.raises(StorageError, match="cannot be read"):
        product.open_mongodb(MongodbRecords(credentials=str(tmp_path / "missing")), "test")


def test_credentials_come_from_a_file_of_ones_own(tmp_path):
    file = tmp_path / "credentials"
    file.write_text("me:se:cret\n")
    file.chmod(0o600)
    assert product._credentials(str(file)) == {"username": "me", "password": "se:cret"}
    file.write_text("me\n")
    with pytest.raises(StorageError, match="user:password"):
        product._credentials(str(file))
    file.chmod(0o644)
    with pytest.raises(NotPrivate):
        product._credentials(str(file))


def test_a_text_about_trouble_has_no_password(tmp_path, server):
    file = tmp_path / "credentials"
    file.write_text("me:topsecret")
    file.chmod(0o600)
    store = product.open_mongodb(MongodbRecords(uri=server.uri, credentials=str(file)), "test")
    put(store, "a")
    try:
        until(lambda: store.trouble, "the store to notice")
        assert "topsecret" not in store.trouble
    finally:
        store.close()
