"""Keeps what must survive: the daemon's journal. Bytes in, bytes out; what they mean is decided in `clusterd.core`."""
