"""Says what is wrong with an installation, or why an instance stands where it stands, and what to do about it.

It looks from outside, over connections of its own, so it works when nothing else does.
"""

from orchestrator.doctor.installation import examine
from orchestrator.doctor.instance import explain
from orchestrator.findings import Finding, Severity

__all__ = ["Finding", "Severity", "examine", "explain"]
