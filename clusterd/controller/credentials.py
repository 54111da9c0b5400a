"""Keys, tokens and connection files of one controller: made, kept with `reuse`, written last, removed at exit.

`controller-secrets.json` beside the connection files keeps what must not change when files were copied to other hosts: the two HMAC
keys, the token secret, the CURVE pair and the ports. Every file is 0600, temp + rename; the engine file is written first and
the client file last, both only once everything is bound, because readers take a file's existence as readiness.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

import msgspec
import zmq

from clusterd.core.model import connection
from clusterd.errors import ConnectionFileError
from clusterd.system import files, process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECRETS_FILE = "controller-secrets.json"


class Secrets(msgspec.Struct):
    """What outlives a controller with `reuse`. Keys in hex; `next_engine_id` because wire ids are never used twice.

    `places`: where there are agents, for the successor of a controller that was killed; None where nobody has written it.
    `stock_engines`: ids of stock engines by their names: these do not register again, they just go on beating.
    """

    client_key: str
    engine_key: str
    token_secret: str
    curve_public: str
    curve_secret: str
    ports: dict[str, int] = {}
    next_engine_id: int = 0
    places: list[str] | None = None
    stock_engines: dict[str, int] = {}
    stock_key: str = msgspec.field(default_factory=lambda: secrets.token_hex(32))

    @property
    def token_secret_bytes(self) -> bytes:
        """The token secret as bytes."""
        return bytes.fromhex(self.token_secret)


def new_secrets() -> Secrets:
    """Fresh keys from the operating system's generator."""
    public, secret = zmq.curve_keypair()
    return Secrets(
        client_key=secrets.token_hex(32),
        engine_key=secrets.token_hex(32),
        token_secret=secrets.token_hex(32),
        curve_public=public.decode(),
        curve_secret=secret.decode(),
    )


def secrets_file(security: Path, cluster_id: str = "") -> Path:
    """Where a controller keeps them: those of each cluster id apart, as its connection files are."""
    return security / (f"controller-secrets-{cluster_id}.json" if cluster_id else SECRETS_FILE)


def load_secrets(path: Path) -> Secrets | None:
    """The kept secrets, or None when there are none.

    Raises:
        ConnectionFileError: there is a file that others can read, or that is damaged.
    """
    try:
        data = files.read_private(path)
    except FileNotFoundError:
        return None
    try:
        kept = msgspec.json.decode(data, type=Secrets)
        for key in (kept.client_key, kept.engine_key, kept.token_secret):
            bytes.fromhex(key)
    except ValueError as error:  # msgspec's errors are
        raise ConnectionFileError(
            f"{path} is damaged: {error}",
            hint="Remove it: new keys are made, and connection files copied elsewhere must be copied again.",
        ) from error
    return kept


def save_secrets(path: Path, content: Secrets) -> None:
    """Keep the secrets for the next controller."""
    files.atomic_write(path, msgspec.json.encode(content))


class ConnectionFiles:
    """The two files of one controller.

    Args:
        security: `STATE/security`.
        addresses: by endpoint name, the address that peers connect to.
        content: the secrets.
        cluster: name of the cluster.
        controller: this incarnation.
        curve: the sockets are CURVE servers.
        location: the host's name or address for readers elsewhere.
        stock: by side (client, engine), what stock readers are told; empty where no stock sockets exist.
        cluster_id: part of the files' names.
    """

    def __init__(
        self,
        security: Path,
        addresses: dict[str, str],
        content: Secrets,
        *,
        cluster: str,
        controller: bytes,
        curve: bool,
        location: str,
        stock: Mapping[str, connection.StockEndpoints],
        cluster_id: str = "",
    ) -> None:
        self.client_path = security / connection.file_name("client", cluster_id)
        self.engine_path = security / connection.file_name("engine", cluster_id)
        self._controller = controller.hex()
        self._content: dict[Path, connection.ConnectionFile] = {}
        for path, side, key in (
            (self.engine_path, "engine", content.engine_key),
            (self.client_path, "client", content.client_key),
        ):
            endpoints = connection.NativeEndpoints(
                format=connection.FORMAT,
                data=addresses[f"{side}-data"],
                control=addresses[f"{side}-control"],
                key=key,
                cluster=cluster,
                controller=self._controller,
                curve_serverkey=content.curve_public if curve else "",
                pid=os.getpid(),
                host=process.current().host,
                boot_id=process.boot_id(),
            )
            self._content[path] = connection.ConnectionFile(
                clusterd=endpoints, location=location, stock=stock.get(side)
            )

    def write(self) -> None:
        """Write both, engine file first."""
        for path, content in self._content.items():
            files.atomic_write(path, connection.encode(content), durable=False)

    def remove(self) -> None:
        """Remove them, unless another controller has written its own meanwhile."""
        for path in self._content:
            with contextlib.suppress(OSError, ConnectionFileError):
                if connection.decode(path.read_bytes(), str(path)).clusterd.controller == self._controller:
                    path.unlink()
