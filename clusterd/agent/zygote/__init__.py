"""The warm parent of engines, a child of the agent: imports, freezes, forks on request, reaps. `python -m clusterd.agent.zygote FD`.

One thread, no ZeroMQ context, no event loop, no lock that is held at a fork. It lives as long as its socket to the agent.
"""
