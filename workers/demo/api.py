"""The calls of the HTTP interface that the demo needs."""

from types import TracebackType
from typing import Any
from uuid import UUID

import httpx

TIMEOUT_SECONDS = 30.0


class Api:
    """The engine, as an application sees it.

    Args:
        address: Such as `http://127.0.0.1:8080`.
        tenant: Whose sequences and instances these are.
    """

    def __init__(self, address: str, *, tenant: str) -> None:
        headers = {"X-Tenant-Id": tenant}
        self._http = httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "Api":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def post_sequence(self, document: dict[str, Any]) -> UUID:
        """Store a definition; returns the id of its newest version."""
        return UUID(self._post("/sequences", document)["id"])

    def start(self, sequence_id: UUID, *, data: dict[str, Any], config: dict[str, Any]) -> UUID:
        """Start an instance; returns its id."""
        context = {"data": data, "config": config}
        return UUID(self._post(f"/sequences/{sequence_id}/instances", {"context": context})["id"])

    def state(self, instance_id: UUID) -> str:
        """Read the state of an instance."""
        return str(self._get(f"/instances/{instance_id}")["state"])

    def outputs(self, instance_id: UUID) -> list[dict[str, Any]]:
        """Read all stored outputs of an instance, in the order they were stored."""
        rows: list[dict[str, Any]] = self._get(f"/instances/{instance_id}/outputs")
        return rows

    def open_gate(self, instance_id: UUID) -> dict[str, Any] | None:
        """Read the approval an instance waits for; None while it waits for none."""
        items = self._get("/approvals")["items"]
        return next((item for item in items if item["instance_id"] == str(instance_id)), None)

    def answer(self, instance_id: UUID, block_id: str, value: str, comment: str) -> None:
        """Answer an approval."""
        signal = {
            "signal_type": {"custom": f"human_input:{block_id}"},
            "payload": {"value": value, "comment": comment},
        }
        self._post(f"/instances/{instance_id}/signals", signal)

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()
