"""Shapes of the requests and answers that change what an instance still has to do (contract, api §9, §10.5)."""

from typing import Annotated, Any

from pydantic import Field

from orchestrator.api.shapes import Shape

Position = Annotated[int, Field(strict=True, lt=2**31)]


class InjectBlocks(Shape):
    """Blocks that join the root list; `position` counts among those that have not started, none is the end."""

    blocks: Any = None
    position: Position | None = None


class Injected(Shape):
    """The ids of the blocks that joined, and how many have joined in all."""

    injected_block_ids: list[str]
    position: int | None
    total_injected: int
