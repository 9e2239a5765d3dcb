"""A deterministic simulation of a whole installation: every process of it, the broker, the clock, and what goes wrong.

The code that runs is that of production: engine, turnstile, loops, executor, the parents of workers. What stands for
something else is small: the store in memory, a broker that is a list, a clock that is moved, handlers that only wait.
Each thread of each process is a coroutine (a greenlet) that stops before and after every transaction, and one seed
decides which of them goes on, what is lost, and who dies. So a seed is a program with a history, and is played again by
its number:

    python -m tests.simulation --seed 17            what happened, line by line
    python -m tests.simulation --seed 17 --shrink   the smallest history that goes wrong in the same way

`cases.py` says what a seed decides, `world.py` sets up the processes, `invariants.py` what must hold, `mutants.py`
breaks the product on purpose to show that it would be noticed.
"""
