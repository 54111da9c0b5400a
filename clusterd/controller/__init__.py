"""The process `clusterd controller`: all queues of a cluster, one thread, one poll loop.

`main` starts it, `loop` turns it, `endpoint` speaks the wire on one ROUTER, `hub` knows who is there, `tasks` carries work between
clients and engines as `core.scheduler` decides, `direct` answers requests, `operations` what operators and agents say,
`credentials` keeps keys and connection files. `compat/` is the place for stock ipyparallel's sockets.
"""
