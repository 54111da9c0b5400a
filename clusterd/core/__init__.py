"""DECIDES: pure code. No I/O, no clock, no threads, no randomness; of third-party packages msgspec alone.

Time, identities and nonces are arguments. Whatever acts on the world lives in the other packages.
"""
