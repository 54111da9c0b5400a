"""PLACES tasks on engines: events in, actions out; the controller owns sockets, payloads and the clock.

    out = scheduler.handle(event, now)                  # one event: TaskSubmitted ... -> [Dispatch ...]
    for event in batch: scheduler.handle_into(event, now, out)
    scheduler.settle(now, out)                          # a batch: placed once, at its end
    scheduler.next_deadline()                           # when Tick() is due; give it after all that was received
    scheduler.queue_status() / record(task) / whereabouts(task) / records(client) / engine_load(engine) / unassigned()
    scheduler.holdings(engine, limit)

`now` never goes back. Actions are to be performed in order. Each submission is accepted, refused (Fail) or known (AnswerKnown);
each accepted task ends once (Deliver, Fail, or Forget where its client is gone); each TaskFinished gets one of Deliver, Discard, Keep.
"""

from clusterd.core.scheduler import actions, events
from clusterd.core.scheduler.machine import Scheduler
from clusterd.core.scheduler.settings import Settings

__all__ = ["Scheduler", "Settings", "actions", "events"]
