"""Which tests are too long for every change: `FAULTS_LONG=1 make faults` runs them too."""

import os

import pytest

IS_LONG = bool(os.environ.get("FAULTS_LONG"))
only_long = pytest.mark.skipif(not IS_LONG, reason="takes minutes: FAULTS_LONG=1")
