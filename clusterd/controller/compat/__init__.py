"""The edge to stock ipyparallel: its sockets and messages, mapped on the events and peers of the controller.

sockets     binds, receives and sends; everything else here knows sockets by name only
front       the whole of it, as the loop sees it
clients     what stock clients ask for      engines     stock engines: registration, heartbeat, work
"""
