"""Process `clusterd agent`: one per node and engine set. Starts, watches, restarts, signals and stops its engines.

What it says of an engine is believed: it holds a pidfd of each. Never runs user code; its death breaks nothing.
"""
