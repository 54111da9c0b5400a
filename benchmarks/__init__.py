"""Measurements of clusterd beside its peers: `make bench` runs them and writes benchmarks/RESULTS.md.

Each peer and each scenario runs in a process of its own with a time limit; peers take turns, A B C A B C, so that a noisy
minute hits all of them; a figure is the median of the rounds, with the lowest and highest beside it.
"""
