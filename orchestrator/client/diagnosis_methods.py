"""Methods of both clients about why an instance stands where it stands."""

from abc import ABC, abstractmethod
from typing import TypeVar

from orchestrator.client import diagnosis_calls
from orchestrator.client.calls import Id
from orchestrator.client.diagnosis_calls import Diagnosis, LogLine, Remediation, Workbench
from orchestrator.client.transport import Call
from orchestrator.core.states import InstanceState

Result = TypeVar("Result")


class DiagnosisMethods(ABC):
    """Why an instance stands where it stands, and what can be done about it; part of `Client`."""

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    def diagnose(self, instance_id: Id) -> Diagnosis:
        """Say what an instance waits for, or how it has ended, and what happens next. Raises NotFound."""
        return self._do(diagnosis_calls.diagnosis(instance_id))

    def list_remediations(self, instance_id: Id) -> tuple[Remediation, ...]:
        """Say what can be done about an instance without losing work, and what each would do. Raises NotFound."""
        return self._do(diagnosis_calls.remediations(instance_id))

    def apply_remediation(self, instance_id: Id, preview_id: str) -> InstanceState:
        """Do what was previewed; returns the state of the instance afterwards.

        Raises:
            NotFound: There is no such instance, or no such preview.
            Conflict: The instance no longer stands as it did.
        """
        return self._do(diagnosis_calls.apply_remediation(instance_id, preview_id))

    def workbench(self, instance_id: Id) -> Workbench:
        """Read all that is needed to look into one instance, as it was at one moment. Raises NotFound."""
        return self._do(diagnosis_calls.workbench(instance_id))

    def logs(self, instance_id: Id) -> tuple[LogLine, ...]:
        """Read what the steps of an instance have logged, in order; the newest 10,000 lines. Raises NotFound."""
        return self._do(diagnosis_calls.logs(instance_id))


class AsyncDiagnosisMethods(ABC):
    """Why an instance stands where it stands, and what can be done about it; part of `AsyncClient`."""

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    async def diagnose(self, instance_id: Id) -> Diagnosis:
        """Say what an instance waits for, or how it has ended, and what happens next. Raises NotFound."""
        return await self._do(diagnosis_calls.diagnosis(instance_id))

    async def list_remediations(self, instance_id: Id) -> tuple[Remediation, ...]:
        """Say what can be done about an instance without losing work, and what each would do. Raises NotFound."""
        return await self._do(diagnosis_calls.remediations(instance_id))

    async def apply_remediation(self, instance_id: Id, preview_id: str) -> InstanceState:
        """Do what was previewed; returns the state of the instance afterwards.

        Raises:
            NotFound: There is no such instance, or no such preview.
            Conflict: The instance no longer stands as it did.
        """
        return await self._do(diagnosis_calls.apply_remediation(instance_id, preview_id))

    async def workbench(self, instance_id: Id) -> Workbench:
        """Read all that is needed to look into one instance, as it was at one moment. Raises NotFound."""
        return await self._do(diagnosis_calls.workbench(instance_id))

    async def logs(self, instance_id: Id) -> tuple[LogLine, ...]:
        """Read what the steps of an instance have logged, in order; the newest 10,000 lines. Raises NotFound."""
        return await self._do(diagnosis_calls.logs(instance_id))
