"""A long run of faults against one installation under steady load, drawn from a seed, resumable, with a report.

`python -m tests.faults.nightly --hours 2 --seed 7 --state build/nightly.json` plays rounds until the time is over: wait
until work is in progress, strike, wait for healing and for the end of all that had been accepted, judge. Each round is
drawn from the seed and its number, so a run that was cut off goes on where it stood.
"""
