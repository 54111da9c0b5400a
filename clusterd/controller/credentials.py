"""Keys, tokens and connection files of one controller: made, kept with `reuse`, written last, removed at exit.

`controller-secrets.json` beside the connection files keeps what must not change when files were copied to other hosts: the HMAC
keys, the token secret, the CURVE pair and the ports (`core/model/secrets.py`). Every file is 0600, temp + rename; the engine file is
written first and the client file last, both only once everything is bound, because readers take a file's existence as readiness.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

import msgspec
import zmq

from clusterd.core.model import connection
from clusterd.core.model.secrets import Keys, Secrets, secrets_name
from clusterd.errors import ConnectionFileError
from clusterd.system import files, process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def new_secrets() -> Secrets:
    """Fresh keys from the operating system's generator."""
    public, secret = zmq.curve_keypair()
    return Secrets(
        client_key=secrets.token_hex(32),
        engine_key=secrets.token_hex(32),
        token_secret=secrets.token_hex(32),
        curve_public=public.decode(),
        curve_secret=secret.decode(),
        stock_key=secrets.token_hex(32),
    )


def new_keys(*, has_curve: bool) -> Keys:
    """Keys to take the place of others; with a CURVE pair, or without."""
    public, secret = zmq.curve_keypair()
    curve = (public.decode(), secret.decode()) if has_curve else None
    return Keys(secrets.token_hex(32), secrets.token_hex(32), secrets.token_hex(32), curve)


def secrets_file(security: Path, cluster_id: str = "") -> Path:
    """Where a controller keeps them."""
    return security / secrets_name(cluster_id)


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
        earlier = [key for old in kept.retired for key in (old.client_key, old.engine_key)]
        for key in (kept.client_key, kept.engine_key, kept.token_secret, *earlier):
            bytes.fromhex(key)
    except ValueError as error:  # msgspec's errors are
        raise ConnectionFileError(
            f"{path} is damaged: {error}",
            hint="Remove it: new keys are made, and connection files copied elsewhere must be copied again.",
        ) from error
    if not kept.curve_secret:  # it was changed while no controller ran
        public, secret = zmq.curve_keypair()
        kept.curve_public, kept.curve_secret = public.decode(), secret.decode()
    kept.stock_key = kept.stock_key or secrets.token_hex(32)  # of a release that had none
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
        for path, side in ((self.engine_path, "engine"), (self.client_path, "client")):
            endpoints = connection.NativeEndpoints(
                format=connection.FORMAT,
                data=addresses[f"{side}-data"],
                control=addresses[f"{side}-control"],
                key="",
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
        self.take_keys(content)

    def take_keys(self, content: Secrets) -> None:
        """Have these keys in what is written from now on."""
        for path, key in ((self.engine_path, content.engine_key), (self.client_path, content.client_key)):
            native, stock = self._content[path].clusterd, self._content[path].stock
            native.key = key
            if native.curve_serverkey:
                native.curve_serverkey = content.curve_public
            if stock is not None:
                stock.key = content.stock_key
                if stock.curve_serverkey is not None:
                    stock.curve_serverkey = content.curve_public

    def write(self) -> None:
        """Write both, engine file first."""
        self.write_engine()
        self.write_client()

    def write_engine(self) -> None:
        """Write the engine file."""
        self._write(self.engine_path)

    def write_client(self) -> None:
        """Write the client file."""
        self._write(self.client_path)

    def _write(self, path: Path) -> None:
        # The client file may have been given to users by the daemon (`access` of the profile): they are not to lose it at a restart.
        content = connection.encode(self._content[path])
        files.atomic_write(path, content, durable=False, keeps_access=path == self.client_path)

    def remove(self) -> None:
        """Remove them, unless another controller has written its own meanwhile."""
        for path in self._content:
            with contextlib.suppress(OSError, ConnectionFileError):
                if connection.decode(path.read_bytes(), str(path)).clusterd.controller == self._controller:
                    path.unlink()
