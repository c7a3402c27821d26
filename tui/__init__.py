"""The guided road: a terminal application over the same functions as the command line.

No arithmetic here: screens show what `edgeq.plan`, `edgeq.jobs` and the others say, and hand choices on to them.
"""
