"""Tasks of stock ipyparallel clients: Jupyter requests, run in the same namespace and answered as ipyparallel's own engine does.

`runner` runs them, `live` carries what they show while they run, `replies` makes contents and metadata, `library` finds ipyparallel
and gives it a shell and comms. Nothing here is imported before the first such task, or the zygote's warm-up where stock sockets exist.
"""
