"""Run by the interpreter of every process that has this directory on its path, before anything else."""

import tests.support.lethal_process  # noqa: F401  # prepares the process to die
