"""``segtool bench``: how fast each engine runs a model on this machine, and whether it still segments the same.

Every row (an engine, a precision, a batch) lives in a process of its own, so that memory is its own and no engine's
threads meet another's; the rows take turns, so that whatever else the machine does falls on all of them alike.
"""
