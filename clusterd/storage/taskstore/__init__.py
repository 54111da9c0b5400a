"""Keeps the records of tasks: what was asked, where it ran, how it ended. One interface, four places.

base     the interface         row      what is kept of a task        record   what people see of it
query    the query language    opening  which store a spec asks for
memory   none                  sqlite   mongodb     the last two on `written`: a thread that writes in batches
"""
