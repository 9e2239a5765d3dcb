"""The demo: an index of the running interpreter's standard library, made by a sequence that is hurt on the way.

    python -m workers.demo

`stage` starts everything on this machine, `rehearsal` tells the story (start, kill, empty the broker, approve), `facts`
reads from the store what really happened and judges it. The work itself is in `handlers`, which use `analysis` (source
text to record) and `report` with `page` and `charts` (records to JSON and HTML). The sequence is `library_index`.
"""
