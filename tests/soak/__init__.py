"""A steady load for hours, with Flower attached: what every process and server needs must not grow.

`python -m tests.soak --hours 24` starts an installation, starts flows at a steady pace, and notes again and again what
each process, PostgreSQL and Redis hold. In the end the load stops, and what was needed for it alone has to be given
back. It writes the samples as JSON, a report and plots.
"""
