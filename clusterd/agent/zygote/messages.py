"""What agent and zygote say to each other: one MessagePack struct in each packet of an AF_UNIX SOCK_SEQPACKET socket pair."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct

from clusterd.core.model.launch import AgentSpec

MAX_PACKET = 128 * 1024
"""Below net.core.wmem_default (208 KiB), which bounds a packet; a spec with a large environment has a few KiB."""


class Configure(Struct, tag=True, array_like=True):
    """Agent: the first message. What to warm up for."""

    spec: AgentSpec


class Fork(Struct, tag=True, array_like=True):
    """Agent: make an engine.

    Attributes:
        slot: its place in the set.
        uuid: 16 bytes, new for each incarnation.
        env: what differs from the zygote's environment, placeholders expanded.
        cpus: cores to pin it to; empty for none.
    """

    slot: int
    uuid: bytes
    env: dict[str, str]
    cpus: list[int]


class Warmed(Struct, tag=True, array_like=True):
    """Zygote: ready to fork.

    Attributes:
        seconds: that it took.
        preloaded: modules that the engines share.
        late: modules that each engine imports itself, because they start threads or open a GPU.
        warnings: sentences for people, about late and missing modules.
    """

    seconds: float
    preloaded: list[str]
    late: list[str]
    warnings: list[str]


class Forked(Struct, tag=True, array_like=True):
    """Zygote: the engine exists; pid and start time are its identity on this host."""

    uuid: bytes
    pid: int
    start_time: int


class ForkFailed(Struct, tag=True, array_like=True):
    """Zygote: the engine does not exist, and why."""

    uuid: bytes
    reason: str


class Exited(Struct, tag=True, array_like=True):
    """Zygote: the engine is dead and reaped.

    Attributes:
        uuid, pid: which.
        status: as of wait(2).
        max_rss: most memory it ever had resident, in bytes.
        cpu_seconds: user and system time.
    """

    uuid: bytes
    pid: int
    status: int
    max_rss: int
    cpu_seconds: float


FromAgent: TypeAlias = Configure | Fork
FromZygote: TypeAlias = Warmed | Forked | ForkFailed | Exited

encode = msgspec.msgpack.Encoder().encode
decode_from_agent = msgspec.msgpack.Decoder(FromAgent).decode
decode_from_zygote = msgspec.msgpack.Decoder(FromZygote).decode
