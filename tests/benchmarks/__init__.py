"""Speed, measured on real processes: two workers, the loops, PostgreSQL and Redis; and a peer on the same PostgreSQL.

`python -m tests.benchmarks` (or `make bench`) runs it. `works.py` says what is measured, `ours.py` and `peer.py` do it
on the two engines, `figures.py` makes medians, spreads and bars of it; `costs.py` tells where the time of a step goes.
What the figures mean is in docs/performance.md.
"""
