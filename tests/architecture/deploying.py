"""The scripts of `deploy/`, which is no package, as modules."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


is_healthy: Callable[..., bool] = _script("healthcheck").is_healthy
unneeded: Callable[..., list[str]] = _script("prune").unneeded
