"""The process `clusterd serve`: performs what `core.supervisor` decides, and answers the control socket.

`main` parses, `startup` begins (before anything slow is imported), `driver` turns events into actions, `effects` performs them,
`loop` waits; `controller_link` and `roster` know what the controller says, `service` answers what is asked.
"""
