"""The HTTP API, wire-compatible with the public contract."""

from orchestrator.api.app import create_app
from orchestrator.api.auth import check_configuration

__all__ = ["check_configuration", "create_app"]
