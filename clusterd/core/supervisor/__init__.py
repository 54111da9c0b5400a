"""RECONCILES what is wanted with what is observed: one controller, engine sets, their launches. Pure; the daemon performs.

supervisor = machine.Supervisor(cluster, settings.from_profile(profile))
for data in journal.replay(): supervisor.apply(records.decode(data))
done = supervisor.handle(events.JournalReplayed(), now)        # then any event; `now` is monotonic
journal.append([records.encode(a.record) for a in done if isinstance(a, actions.Append)])   # they come first: one batch
# then perform the rest in order; at supervisor.next_deadline() handle(events.TimePassed(), now)
# when journal.is_compaction_due: journal.compact([records.encode(r) for r in supervisor.snapshot()])
# on StorageError: perform nothing, reopen the journal and begin again with a new Supervisor, as after a crash
view.view(supervisor, now)                                     # what `status` tells
"""
