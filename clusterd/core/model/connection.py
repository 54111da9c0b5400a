"""Connection files: where the controller is and the keys to speak with it.

ipyparallel's two files with keys of ours added under `clusterd`; the format is documented there and in PROTOCOL.md.
Reading and writing the file is the caller's business (mode 0600, temp + rename): this module only parses.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from clusterd.errors import ConnectionFileError

FORMAT: Final = 1
CLIENT_FILE: Final = "ipcontroller-client.json"
ENGINE_FILE: Final = "ipcontroller-engine.json"


def file_name(side: str, cluster_id: str = "") -> str:
    """The name of a connection file. `side` is client or engine."""
    return f"ipcontroller-{cluster_id}-{side}.json" if cluster_id else f"ipcontroller-{side}.json"


class NativeEndpoints(Struct, omit_defaults=True):
    """Our part of a connection file.

    Attributes:
        format: version of this structure.
        data, control: addresses, `unix:///run/...` (a stream, this host only) or `tcp://host:port` (ZeroMQ).
        key: the HMAC key of this side (hex, 32 bytes).
        curve_serverkey: Z85 public key of the controller where the link is encrypted, else empty.
        controller: incarnation of the controller that wrote the file (hex), for people and logs.
        cluster: its name.
        python: minor version that the controller runs, for information.
        pid, host, boot_id: of the controller, so that a reader on the same host can say that it is gone.
    """

    format: int
    data: str
    control: str
    key: str
    cluster: str
    controller: str
    curve_serverkey: str = ""
    pid: int = 0
    host: str = ""
    boot_id: str = ""

    @property
    def static_key(self) -> bytes:
        """The key as bytes."""
        return bytes.fromhex(self.key)

    @property
    def has_digests(self) -> bool:
        """Payload digests are given where the link is neither a private Unix socket nor CURVE."""
        return not self.curve_serverkey and not self.data.startswith("unix://")


class StockEndpoints(Struct):
    """What stock ipyparallel reads: ports on `interface`, the key, and how messages are packed.

    Each file has the ports of its side; `broadcast` is one port for clients and a list of them for engines. Readers demand every field.

    Attributes:
        interface: `tcp://ADDRESS`; readers replace a wildcard by `location`.
        key: HMAC key as text; empty: nothing is signed.
        curve_serverkey: Z85 public key of the controller, null where nothing is encrypted.
        task_scheme: `pure` makes clients refuse dependencies, retries and targets.
    """

    interface: str
    registration: int
    control: int
    mux: int
    task: int
    iopub: int
    broadcast: int | list[int]
    key: str
    curve_serverkey: str | None = None
    notification: int | None = None
    task_scheme: str | None = None
    hb_ping: int | None = None
    hb_pong: int | None = None
    # Never `orjson`, which jupyter_client of some years ago cannot import.
    pack: str = "json"
    unpack: str = "json"
    signature_scheme: str = "hmac-sha256"


class ConnectionFile(Struct):
    """One of the two files: ipyparallel's fields, and ours under `clusterd`. `stock` is None where no stock sockets exist."""

    clusterd: NativeEndpoints
    location: str = ""
    ssh: str = ""
    stock: StockEndpoints | None = None


_decoder = msgspec.json.Decoder(dict[str, Any])


def decode(data: bytes, source: str) -> ConnectionFile:
    """The content of a connection file.

    Args:
        data: the bytes of the file.
        source: its name, for the error.

    Raises:
        ConnectionFileError: not JSON, not ours (stock ipcontroller's), or of a newer format.
    """
    try:
        content = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ConnectionFileError(f"{source} is not a connection file: {error}") from error
    if "clusterd" not in content:
        raise ConnectionFileError(
            f"{source} was written by another controller (it has no `clusterd` section)",
            hint="ipcontroller's files are read by ipyparallel.Client; clusterd.Client needs a clusterd controller.",
        )
    try:
        if content.get("registration"):
            content["stock"] = content
        found = msgspec.convert(content, ConnectionFile)
        found.clusterd.static_key  # noqa: B018 - a key that is not hex must fail here, with the name of the file
    except (msgspec.ValidationError, ValueError) as error:
        raise ConnectionFileError(f"{source}: {error}") from error
    if found.clusterd.format > FORMAT:
        raise ConnectionFileError(
            f"{source} has format {found.clusterd.format}, this release reads up to {FORMAT}",
            hint="Upgrade clusterd on this side.",
        )
    return found


def encode(content: ConnectionFile) -> bytes:
    """The bytes of a connection file, indented for people."""
    fields: dict[str, Any] = {"location": content.location, "ssh": content.ssh}
    if content.stock is not None:
        stock = msgspec.to_builtins(content.stock)
        # Of the other side's fields not even the names: only curve_serverkey may be null.
        fields |= {name: value for name, value in stock.items() if value is not None or name == "curve_serverkey"}
    fields["clusterd"] = content.clusterd
    return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"
