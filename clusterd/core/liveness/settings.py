"""The constants of liveness that a profile or a test may set. Times in seconds."""

from __future__ import annotations

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """What may be set.

    Attributes:
        silent_after: an open link on which nothing came for this long is silent. Three pings of a peer.
        agent_silent_after: the word of an agent that was not heard for this long is stale.
        process_stale_after: an older look at a process says nothing any more.
        expire_after: a closed link of an engine that nobody watches is given up after this. Long: nobody can disprove it.
        client_grace: a client that is away is forgotten after this.
        ask_again: evidence is asked for again after this while an engine is suspect.
        flaps: an engine that becomes suspect this often ...
        flap_window: ... within this time is quarantined ...
        quarantine: ... for this long after it was last suspect.
        own_stall: a Tick that comes later than its deadline by more than this tells of our own delay, which counts against nobody.
    """

    silent_after: float = 3.0
    agent_silent_after: float = 10.0
    process_stale_after: float = 30.0
    expire_after: float = 120.0
    client_grace: float = 120.0
    ask_again: float = 5.0
    flaps: int = 5
    flap_window: float = 60.0
    quarantine: float = 60.0
    own_stall: float = 1.0
