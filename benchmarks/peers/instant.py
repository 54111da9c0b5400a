"""A controller with one engine that answers every direct apply at once with None: what is left of a round trip is the client's own.

    python -m benchmarks.peers.instant CLIENT_FILE

No server can be faster for an unchanged ipyparallel Client, so this bounds how many times better any of them can be. It signs, and says
`idle` behind each reply, because a client demands both; it verifies nothing, and computes nothing.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import zmq

from clusterd.core.wire import jupyter

KEY = "instant"
ENGINE = "engine"


class Instant:
    """The server; `file` is written when it listens."""

    def __init__(self, file: Path) -> None:
        context = zmq.Context()
        kinds = {"notification": zmq.PUB, "iopub": zmq.PUB}
        names = ("registration", "notification", "control", "mux", "task", "broadcast", "iopub")
        self.sockets = {name: context.socket(kinds.get(name, zmq.ROUTER)) for name in names}
        self.signer = jupyter.Signer(KEY.encode())
        self.number = 0
        ports = {name: socket.bind_to_random_port("tcp://127.0.0.1") for name, socket in self.sockets.items()}
        words = {"ssh": "", "interface": "tcp://127.0.0.1", "task_scheme": "leastload", "location": os.uname().nodename}
        form = {"pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256", "curve_serverkey": None}
        part = file.with_suffix(".part")
        part.write_text(json.dumps({**ports, **words, **form, "key": KEY}))
        part.rename(file)

    def run(self) -> None:
        """Answer, for ever."""
        value = pickle.dumps(None)
        about = {"status": "ok", "engine": ENGINE, "dependencies_met": True, "is_broadcast": False}
        about |= {"is_coalescing": False, "original_msg_id": "", "label": None}
        poller = zmq.Poller()
        for name in ("registration", "mux"):
            poller.register(self.sockets[name], zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                frames = socket.recv_multipart()
                request = jupyter.split(frames)
                if socket is self.sockets["mux"]:
                    metadata = {**about, "started": jupyter.date_of(time.time())}
                    self.say(socket, request.identities, "apply_reply", request, metadata, {"status": "ok"}, value)
                    idle = {"execution_state": "idle"}
                    self.say(self.sockets["iopub"], [b"status"], "status", request, {"engine": ENGINE}, idle)
                else:
                    content = {"status": "ok", "engines": {"0": ENGINE}}
                    self.say(socket, request.identities, "connection_reply", request, {}, content)

    def say(
        self,
        socket: Any,
        route: Any,
        kind: str,
        request: jupyter.Message,
        metadata: dict[str, Any],
        content: dict[str, Any],
        *buffers: bytes,
    ) -> None:
        """Send one signed message, with the request's header as its parent."""
        self.number += 1
        date = jupyter.date_of(time.time())
        header = {"msg_id": f"{ENGINE}_{self.number}", "msg_type": kind, "session": ENGINE, "date": date}
        four = (
            jupyter.json_of({**header, "username": "", "version": jupyter.VERSION}),
            request.header,
            jupyter.json_of(metadata),
            jupyter.json_of(content),
        )
        socket.send_multipart([*route, jupyter.DELIMITER, self.signer.sign(*four), *four, *buffers])


if __name__ == "__main__":
    Instant(Path(sys.argv[1])).run()
