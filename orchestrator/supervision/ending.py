"""How long our processes may take once they are told to end, in seconds."""

import os

STOP_SECONDS = 4.0
"""For a part: what stops containers often waits no longer than this and a little."""
WORKER_GRACE_SECONDS = 2.5
"""For steps that run: what is left of `STOP_SECONDS` suffices to give them back."""

_GRACE = "ORCHESTRATOR_SHUTDOWN_GRACE"


def worker_grace() -> dict[str, str]:
    """Return the variable that lets a worker give steps back in time, unless the environment sets it already.

    A worker without it waits for its steps however long they take, is killed, and each of them counts as lost.
    """
    return {_GRACE: os.environ.get(_GRACE) or str(WORKER_GRACE_SECONDS)}
