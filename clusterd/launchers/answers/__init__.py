"""PARSES what batch systems say of jobs: captured text -> `Answer`. One file per system; pure, and total: any text has an answer.

What cannot be read is a problem of the answer, never an end of a job; the format's documentation is named in each module.
"""
