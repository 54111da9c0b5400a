"""clusterctl: the command that operates clusters, through the daemon's control socket. It decides nothing and starts in a blink."""
