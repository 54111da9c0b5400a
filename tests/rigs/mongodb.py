"""A server that speaks MongoDB's protocol, on loopback, for as long as a module of tests needs it.

With CLUSTERD_TEST_MONGODB_URI the tests talk to that one, else to SecantusDB (`secantus`). Where neither can be had the tests are
skipped and say why; under CI that is a failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pymongo
import pytest

from tests.rigs import secantus
from tests.rigs.secantus import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

URI_VARIABLE = "CLUSTERD_TEST_MONGODB_URI"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URI of a server that can be used; it ends with the context."""
    given = os.environ.get(URI_VARIABLE)
    if given:
        yield given
        return
    path = program()
    # Not below the directories of a test: it lives longer than one.
    directory = Path(tempfile.mkdtemp(prefix="cd-mongodb-", dir="/tmp"))
    try:
        with Server(path, directory) as running:
            yield running.uri
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def database(uri: str) -> Iterator[str]:
    """The name of a database on it that nobody else uses, and that is gone afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    with pymongo.MongoClient(uri) as client:
        client.drop_database(name)


def program() -> Path:
    """The program of SecantusDB, installed when it is not there yet."""
    try:
        return secantus.program()
    except secantus.Unavailable as error:
        text = f"no MongoDB server: {error}; set {URI_VARIABLE} to use one"
        if os.environ.get("CI"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
