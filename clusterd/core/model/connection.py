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


class ConnectionFile(Struct, omit_defaults=True):
    """One of the two files; the fields of ipyparallel's format that are set while no stock sockets exist, and ours."""

    clusterd: NativeEndpoints
    location: str = ""
    ssh: str = ""


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
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
