"""The control socket: HTTP and JSON under `/v1/`, over a Unix socket. The contract between daemon and clusterctl.

`client` is what callers use (standard library only); `listening`, `server`, `routes`, `requests` and `authorize` are the
daemon's half.
"""
