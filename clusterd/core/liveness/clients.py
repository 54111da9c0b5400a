"""TAKES observations of clients: one that is away has a grace to come back in, and is then forgotten.

Away is one whose connections are gone, or that was not heard for as long as a peer that pings is never silent. What becomes of
its tasks is the scheduler's: they go on during the grace; what has not begun ends when it is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.liveness.actions import DetachClient, ForgetClient, ReturnClient
from clusterd.core.liveness.state import Client

if TYPE_CHECKING:
    from clusterd.core.liveness.events import ClientAttached, ClientHeard, ClientLeft, ClientUnlinked
    from clusterd.core.liveness.state import Out, State


def client_attached(state: State, event: ClientAttached, now: float, out: Out) -> None:
    """Take a client in, or note that it is back."""
    client = state.clients.get(event.client)
    if client is None:
        client = state.clients[event.client] = Client(event.client, now)
    _hear(state, client, now, out)


def client_heard(state: State, event: ClientHeard, now: float, out: Out) -> None:
    """Note that it was heard; one that was only silent is back by that."""
    client = state.clients.get(event.client)
    if client is not None:
        _hear(state, client, now, out)


def client_unlinked(state: State, event: ClientUnlinked, now: float, out: Out) -> None:
    """Its grace begins."""
    client = state.clients.get(event.client)
    if client is not None and client.away_since is None:
        _leave(state, client, now, out)


def client_left(state: State, event: ClientLeft, _now: float, out: Out) -> None:
    """It needs no grace."""
    if state.clients.pop(event.client, None) is not None:
        out.append(ForgetClient(event.client))


def look_at_client(state: State, client: Client, now: float, out: Out) -> None:
    """Its timer has fired: it may be away, or for too long."""
    if state.clients.get(client.handle) is not client:
        return
    settings = state.settings
    if client.away_since is None:
        if now < client.heard + settings.silent_after:
            state.timers.arm(client, client.heard + settings.silent_after)
        else:
            _leave(state, client, now, out)
    elif now < client.away_since + settings.client_grace:
        state.timers.arm(client, client.away_since + settings.client_grace)
    else:
        del state.clients[client.handle]
        out.append(ForgetClient(client.handle))


def forgive(state: State, deadline: float, now: float) -> None:
    """Count whoever was not silent at `deadline` as heard now, and stop the clock of those who were away: so were we."""
    for client in state.clients.values():
        if client.away_since is None:
            client.heard = now  # one that is silent is away already
        else:
            client.away_since = min(now, client.away_since + now - deadline)


def _hear(state: State, client: Client, now: float, out: Out) -> None:
    client.heard = now
    if client.away_since is not None:
        client.away_since = None
        out.append(ReturnClient(client.handle))
    state.timers.arm(client, now + state.settings.silent_after)


def _leave(state: State, client: Client, now: float, out: Out) -> None:
    client.away_since = now
    out.append(DetachClient(client.handle))
    state.timers.arm(client, now + state.settings.client_grace)
