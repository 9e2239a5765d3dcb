"""The HTTP interface of the orchestrator."""
