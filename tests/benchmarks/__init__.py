"""Speed, measured on real processes: two workers, the loops, PostgreSQL and Redis; and peers on the same machine.

`python -m tests.benchmarks` (or `make bench`) runs it. `works.py` says what is measured, `ours.py` and `peer_*.py` do
W1 to W4 on the engines, `own.py` the works only ours does; `figures.py` makes medians, spreads and bars of it,
`plots.py` draws them. `guard.py` fails when speed has been lost; `growth.py` says how cost grows, `costs.py` where the
time of a step goes. What the figures mean is in docs/performance.md.
"""
