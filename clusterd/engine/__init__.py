"""Process `clusterd engine`: runs users' tasks, one at a time, in the main thread, in an IPython shell.

Never imports the controller, the client or the daemon, and starts no thread but ZeroMQ's own.
"""
