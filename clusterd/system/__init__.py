"""Touches the operating system and knows no domain: clocks, paths, files, locks, process identities, fault points.

Never imports `clusterd.core`. Modules that only POSIX has (fcntl, pwd, resource) are imported inside the functions that
need them, because the client and a single engine also run on Windows.
"""
