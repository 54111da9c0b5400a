"""Any messages at all from peers that are who they say: whatever they hold, nobody but their sender suffers, and the books stay true.

Ids are few, so that they meet: tasks of others, functions that are not there, engines that are gone.
"""

from __future__ import annotations

import functools
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from clusterd.core.liveness import invariants as liveness_invariants
from clusterd.core.model.task import Place
from clusterd.core.scheduler import invariants as scheduler_invariants
from clusterd.core.wire import messages as m
from tests.unit.controller.world import Peer, World, result_of, submit

DIGESTS = [bytes([letter]) * 16 for letter in b"fgh"]
TASKS = [b"a", b"b", b"c", b"d"]
UUIDS = [bytes([letter]) * 16 for letter in b"pqrst"]


def mostly(usual: st.SearchStrategy, seldom: st.SearchStrategy) -> st.SearchStrategy:
    """One message in some dozens is nonsense: of one that is not decoded nothing else is seen."""
    return st.integers(0, 40).flatmap(lambda chance: seldom if chance == 40 else usual)


numbers = mostly(st.integers(0, 6), st.integers(-(2**63), 2**64 - 1))
# By name of the field: what makes messages meet. Whatever is not here is drawn by its type.
POOLS = {
    "task": mostly(st.sampled_from(TASKS), st.binary(max_size=70)),
    "function": mostly(st.sampled_from([b"", b"", *DIGESTS]), st.binary(max_size=20)),
    "digest": mostly(st.sampled_from(DIGESTS), st.binary(max_size=20)),
    "uuid": st.sampled_from(UUIDS),
    "target": st.none() | st.integers(0, 4) | st.lists(st.integers(-1, 5), max_size=4),
    "targets": st.none() | st.lists(st.integers(-1, 5), max_size=4),
    "engines": st.lists(st.integers(-1, 5), max_size=4),
    "tasks": st.lists(st.sampled_from(TASKS), max_size=4),
    "held": st.lists(st.tuples(st.sampled_from(TASKS), st.integers(0, 2)), max_size=4),
    "frames": mostly(st.sampled_from([0, 0, 0, 0, 1, 2]), st.integers()),
    "attempt": mostly(st.sampled_from([0, 0, 0, 1, 2]), numbers),
    "status": mostly(st.integers(0, 1), numbers),
    "launch": st.sampled_from(["l-0", "l-1", "l-2"]),
    "engine_set": st.sampled_from(["engines", "others"]),
    "host": st.just("here"),
    "command": st.sampled_from(["interrupt", "stop", "kill", "restart", "fly"]),
    "agent": st.sampled_from(["", "l-0", "l-1"]),
    "kind": mostly(st.integers(0, 5), numbers),
    "request": st.integers(0, 9),
    "wanted_id": mostly(st.integers(-1, 5), numbers),
    "timeout": mostly(st.none() | st.floats(0), st.floats()),
    "retries": mostly(st.integers(0, 2), numbers),
    "is_offered_again": st.booleans(),
}


SCALARS = {
    types.IntType: numbers,
    types.FloatType: st.floats(),
    types.StrType: st.text(max_size=20),
    types.BytesType: st.binary(max_size=40),
    types.BoolType: st.booleans(),
    types.NoneType: st.none(),
    types.AnyType: st.none() | st.integers(0, 9) | st.text(max_size=5),
    types.DictType: st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5), max_size=2),
}


def drawn(field: types.Field, owner: str) -> st.SearchStrategy:
    if field.name == "running":
        return st.sampled_from([b"", *TASKS]) if owner == "EngineExited" else st.integers(0, 4) | numbers
    if field.name == "engines" and owner in {"AttachAgent", "Inventory"}:
        return st.lists(of(m.EngineState), max_size=3)
    pool = POOLS.get(field.name)
    return by_type(field.type) if pool is None else pool


def by_type(kind: types.Type) -> st.SearchStrategy:
    if type(kind) in SCALARS:
        return SCALARS[type(kind)]
    if isinstance(kind, types.ListType):
        return st.lists(by_type(kind.item_type), max_size=3)
    if isinstance(kind, types.TupleType):
        return st.tuples(*map(by_type, kind.item_types))
    if isinstance(kind, types.UnionType):
        return st.one_of(*map(by_type, kind.types))
    assert isinstance(kind, types.StructType), kind
    return of(kind.cls)


@functools.cache
def of(kind: type) -> st.SearchStrategy:
    """Any message of this type; encodable, not always decodable."""
    return st.builds(kind, **{field.name: drawn(field, kind.__name__) for field in types.type_info(kind).fields})


def members(union: object) -> list[type]:
    return list(union.__args__)


GRAMMAR = {
    ("client", "data"): members(m.ClientDataUp),
    ("client", "control"): members(m.ClientControlUp),
    ("operator", "control"): [kind for kind in members(m.ClientControlUp) if kind is not m.Shutdown],
    ("engine", "data"): members(m.EngineDataUp),
    ("agent", "control"): members(m.AgentUp),
}
# None: as many frames as the messages own.
payloads = mostly(st.none(), st.lists(st.binary(max_size=3), max_size=3))


ATTACH = {"client": m.AttachClient, "operator": m.AttachClient, "engine": m.AttachEngine, "agent": m.AttachAgent}


def said_by(role: tuple[str, str]) -> st.SearchStrategy:
    """One step: who, how it attaches should it not be there, what it says, and how long that takes."""
    kinds = GRAMMAR[role]
    attaching = set(ATTACH.values())
    usual = st.one_of(*(of(kind) for kind in kinds if kind is not m.Goodbye and kind not in attaching))
    seldom = st.one_of(*(of(kind) for kind in kinds if kind is m.Goodbye or kind in attaching))
    several = st.lists(mostly(usual, seldom), min_size=1, max_size=4)
    return st.fixed_dictionaries(
        {
            "role": st.just(role),
            "place": st.integers(0, 1),
            "attach": of(ATTACH[role[0]]),
            "messages": several,
            "payload": payloads,
            "then": mostly(st.just(""), st.sampled_from(["vanish", "break", "forget"])),
            "seconds": mostly(st.sampled_from([0.001, 0.001, 1.0]), st.sampled_from([20.0, 130.0])),
        }
    )


anything = st.one_of(*map(said_by, GRAMMAR))


class Crowd:
    """A few peers of each role; each comes back, with its token, when it lost its connection, and anew when it was refused."""

    def __init__(self, world: World):
        self.world = world
        self.peers: dict[tuple, Peer] = {}

    def speak(self, role, place, attach, messages, payload, then, seconds) -> None:
        peer = self._there(role, place, attach)
        if peer is None:
            return
        if payload is None:
            count = sum(max(0, getattr(message, "frames", 0)) for message in messages)
            payload = [b"frame"] * min(count, 20)
        try:
            peer.say(*messages, payload=payload)
        except OverflowError:
            return  # not even MessagePack can say it
        self.world.turn()
        check(self.world)
        match then:
            case "vanish":
                peer.vanish()
            case "break":
                peer.server.broken.add(peer.id)
            case "forget":
                del self.peers[role, place]
        if peer.is_open and then != "break":
            peer.acknowledge()
        self.world.turn(seconds)
        check(self.world)

    def _there(self, role, place, attach) -> Peer | None:
        known = self.peers.get((role, place))
        if known is not None and known.is_open and known.id not in known.server.broken:
            return known
        peer = Peer(self.world, *role, uuid=None if known is None else known.uuid)
        attach.uuid, attach.token = peer.uuid, b"" if known is None else known.token
        peer.greet()
        try:
            peer.say(attach)
        except OverflowError:
            return None
        self.world.turn()
        peer.read()
        check(self.world)
        if peer.is_reset or not peer.is_open:
            self.peers.pop((role, place), None)
            return None
        peer.token = peer.messages(m.Attached)[0].token
        self.peers[role, place] = peer
        return peer


def check(world: World) -> None:
    dropped = Counter()
    for counters in world.counters.values():
        dropped.update(counters)
    assert dropped["failed"] == 0, "a handler raised: see the log"
    scheduler = world.tasks.scheduler
    scheduler_invariants.check(scheduler.state)
    # A Tick may be due: liveness is looked at after it.
    world.hub.watch.tick(world.now)
    liveness_invariants.check(world.hub.watch._liveness.state, world.now)
    live = {task.id for task in scheduler.state.tasks.values() if task.place is not Place.ENDED}
    assert world.tasks.payloads.keys() == live
    named = Counter(payload.function for payload in world.tasks.payloads.values() if payload.function)
    functions = world.tasks.functions
    assert {digest: stored.references for digest, stored in functions._functions.items() if stored.references} == named
    assert functions.bytes == sum(stored.size for stored in functions._functions.values())
    assert world.tasks._results.in_hand is None
    assert world.tasks._results._kept.keys() == scheduler.state.orphanage.finished.keys()
    hub = world.hub
    assert {engine.id for engine in hub.engines.values()} == set(hub.engines_by_id) == set(scheduler.state.engines)
    assert {client.handle for client in hub.clients.values()} == set(hub.clients_by_handle)
    assert set(hub.watch._liveness.state.engines) == set(hub.engines_by_id)
    for engine in hub.engines.values():
        assert bool(scheduler.state.engines[engine.id].flags & 1) == engine.is_suspect


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(anything, min_size=5, max_size=20))
def test_any_messages_hurt_their_sender_alone(make_world, steps):
    world = make_world(client_credit={"tasks": 3, "memory": 1 << 20, "results": 1 << 20})
    crowd = Crowd(world)
    for step in steps:
        crowd.speak(**step)
    # Whoever comes now is served.
    client, engine = world.client(), world.engine()
    assert engine.is_open
    mine = submit(target=engine.wire_id)
    client.say(mine)
    answered = []
    for _ in range(30):  # what others have left queued comes first
        world.turn()
        for dispatch in engine.messages(m.Dispatch):
            engine.say(result_of(dispatch))
        engine.acknowledge()
        answered += client.messages(m.Deliver)
    assert [message.task for message in answered] == [mine.task]
    check(world)
