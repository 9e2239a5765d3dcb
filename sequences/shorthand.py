"""The shorthand dialect: short documents, made canonical at the door (§16).

`normalize` returns a plain document that `document.parse_definition` reads and judges; what shorthand does not cover is
left as it is, so that mistakes are reported there.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from sequences.document import SequenceDefinition, check_depth, check_json_depth, to_document
from sequences.json_values import json_bytes

_TREES: Final = ("blocks", "on_failure", "on_cancel")
_RENAMED: Final = {"try": "try_block", "catch": "catch_block", "finally": "finally_block"}
_BLOCK_MEMBERS: Final = ("body", "blocks", "default", "try_block", "catch_block", "finally_block")


def is_shorthand(data: object) -> bool:
    """Tell whether a posted definition is shorthand: it has neither a name nor a version."""
    return isinstance(data, dict) and "name" not in data and "version" not in data


def normalize(data: dict[str, Any], *, tenant_id: str, now: datetime, new_id: UUID, version: int = 1) -> dict[str, Any]:
    """Return the canonical document of a shorthand one; the given one is not changed.

    Args:
        data: A document for which `is_shorthand` holds.
        tenant_id: Tenant of the caller, for a document that names none.
        now: Creation time, aware UTC.
        new_id: Id for a document whose `id` is its name.
        version: Version to give it. Compare `fingerprint` with the newest version first: same content, same version.

    Raises:
        NestingError: Blocks are nested more than 64 deep.
        DocumentError: The document is nested too deeply anywhere.
    """
    check_depth([data.get(tree) for tree in _TREES])
    check_json_depth(data)
    document = {
        **data,
        "tenant_id": _given(data, "tenant_id", tenant_id),
        "namespace": _given(data, "namespace", "default"),
        "created_at": _given(data, "created_at", now.isoformat().replace("+00:00", "Z")),
        "version": version,
    }
    if isinstance(data.get("id"), str) and data["id"].strip() and not _is_uuid(data["id"]):
        document["name"] = data["id"]
        document["id"] = str(new_id)
    for tree in _TREES:
        if isinstance(data.get(tree), list):
            document[tree] = _normalize_tree(data[tree])
    return document


def fingerprint(definition: SequenceDefinition) -> str:
    """Return a hash of what a definition does: without id, version, creation time, status and deprecation."""
    without = {"id", "version", "created_at", "status", "deprecated"}
    content = {name: value for name, value in to_document(definition).items() if name not in without}
    return hashlib.sha256(json_bytes(content, options=orjson.OPT_SORT_KEYS)).hexdigest()


def _given(data: dict[str, Any], name: str, default: str) -> Any:
    return default if data.get(name) is None else data[name]


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _normalize_tree(tree: list[Any]) -> list[Any]:
    blocks = [_spell_out(block) for block in tree]
    _name_blocks(blocks)
    return blocks


def _spell_out(block: Any) -> Any:
    """Give a block its long member names, and the blocks in it theirs. At most 64 levels deep: see `check_depth`."""
    if not isinstance(block, dict):
        return block
    spelled = dict(block)
    if "type" not in spelled and "handler" in spelled:
        spelled["type"] = "step"
    match spelled.get("type"):
        case "step":
            return spelled
        case "loop" | "for_each":
            _rename(spelled, {"blocks": "body"})
        case "router":
            _move_default_route(spelled)
        case "try_catch":
            _rename(spelled, _RENAMED)
    for name in _BLOCK_MEMBERS:
        _spell_out_list(spelled, name)
    if isinstance(spelled.get("branches"), list):
        spelled["branches"] = [_spell_out_all(branch) for branch in spelled["branches"]]
    for name in ("routes", "variants", "steps"):
        if isinstance(spelled.get(name), list):
            spelled[name] = [_spell_out_part(part) for part in spelled[name]]
    return spelled


def _spell_out_part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    spelled = dict(part)
    _spell_out_list(spelled, "blocks")
    for name in ("action", "compensation"):
        if name in spelled:
            spelled[name] = _spell_out(spelled[name])
    return spelled


def _spell_out_all(blocks: Any) -> Any:
    return [_spell_out(block) for block in blocks] if isinstance(blocks, list) else blocks


def _spell_out_list(owner: dict[str, Any], name: str) -> None:
    if name in owner:
        owner[name] = _spell_out_all(owner[name])


def _rename(block: dict[str, Any], names: dict[str, str]) -> None:
    for short, long in names.items():
        if short in block and long not in block:
            block[long] = block.pop(short)


def _move_default_route(router: dict[str, Any]) -> None:
    routes = router.get("routes")
    if not isinstance(routes, list):
        return
    defaults = [route for route in routes if isinstance(route, dict) and route.get("default") is True]
    if defaults and router.get("default") is None:
        router["default"] = defaults[0].get("blocks", [])
    router["routes"] = [route for route in routes if not any(route is default for default in defaults)]


def _name_blocks(blocks: list[Any]) -> None:
    """Give blocks without an id the name of their handler or type, `_2`, `_3` … when it is taken."""
    members = list(_members(blocks))
    taken = {member["id"] for member in members if isinstance(member.get("id"), str)}
    next_number: dict[str, int] = {}
    for member in members:
        if member.get("id") is None:
            member["id"] = _free_name(_base_name(member), taken, next_number)


def _base_name(member: dict[str, Any]) -> str:
    name = member.get("handler") if member.get("type") == "step" else member.get("type", "saga_step")
    if name == "ab_split":
        return "a_b_split"
    return name if isinstance(name, str) and name else "block"


def _free_name(base: str, taken: set[str], next_number: dict[str, int]) -> str:
    name, number = base, next_number.get(base, 2)
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    next_number[base] = number
    taken.add(name)
    return name


def _members(blocks: Any) -> Iterator[dict[str, Any]]:
    """Yield blocks and saga steps in document order."""
    for block in blocks if isinstance(blocks, list) else ():
        if not isinstance(block, dict):
            continue
        yield block
        if block.get("type") == "step":
            continue
        for inside in block.get("branches") or () if isinstance(block.get("branches"), list) else ():
            yield from _members(inside)
        for name in ("routes", "variants", "steps"):
            yield from _members_of_parts(block.get(name))
        for name in _BLOCK_MEMBERS:
            yield from _members(block.get(name))


def _members_of_parts(parts: Any) -> Iterator[dict[str, Any]]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            if "action" in part:
                yield part
                yield from _members([part["action"], part.get("compensation")])
            yield from _members(part.get("blocks"))
