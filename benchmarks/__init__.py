"""How fast and how small it is, against its peers, measured in one run.

``python -m benchmarks`` (as root; ``make bench``) builds the laboratory of tests/lab, measures,
and prints one table; docs/performance.md explains it. Nothing here is a test: a number depends
on the machine, so each bound is a ratio to a peer that ran at the same time, or is generous.
"""
