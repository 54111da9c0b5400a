"""Plugins for ipyparallel's own programs: `Cluster(controller="clusterd", engines="clusterd")`, `ipcluster start --engines=clusterd`.

Found through the entry points `ipyparallel.controller_launchers` and `ipyparallel.engine_launchers`. Uses ipyparallel's launcher
classes as any plugin does, and starts our programs by argv: nothing else of clusterd knows that this exists.
"""
