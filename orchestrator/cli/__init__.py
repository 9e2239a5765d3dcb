"""The command line: `orchestrator`, or `python -m orchestrator.cli`.

Exit codes, the same for every command:

====  ==============================================================================
0     done
1     the work failed: the instance that was waited for did not complete
2     wrong usage or configuration; nothing was tried
3     no such thing
4     refused: the request is invalid or forbidden, or the thing's state does not allow it
5     the server cannot be reached, or cannot answer now; trying again is right
6     the time given with `--timeout` is over; the instance goes on
130   interrupted with Ctrl-C
====  ==============================================================================
"""

from orchestrator.cli.app import main

__all__ = ["main"]
