"""JUDGES who lives: engines by evidence, clients by patience; the controller performs what follows.

    liveness = Liveness();  out = liveness.handle(event, now);  liveness.handle_into(event, now, out)
    liveness.next_deadline()                # when Tick() is due; give it after all that was received
    liveness.standing(engine)               # alive, suspect, quarantined, or None: lost or never known
    liveness.why(engine)                    # the evidence, each with its age, in a sentence

Three views make a verdict (`verdicts.TABLE`): what the link shows, what the agent says, what the daemon saw of the process.
Each observation counts from when it was made (`age`), not from when it came. Silence alone never makes an engine lost, as long
as somebody is left who could tell; our own delay is not held against others.
"""

from clusterd.core.liveness import actions, events
from clusterd.core.liveness.machine import Liveness
from clusterd.core.liveness.settings import Settings
from clusterd.core.liveness.verdicts import Standing

__all__ = ["Liveness", "Settings", "Standing", "actions", "events"]
