"""clusterctl: the thin client of clusterd's control socket. Must start in a blink: heavy imports stand in functions."""
