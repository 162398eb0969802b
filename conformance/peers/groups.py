"""The IdP's groups, and PATCH on their members as RFC 7644 §3.5.2 has it.

The letter matters here: a `remove` whose path is `members` without a filter empties the group. This
server does exactly that, and its ledger says so.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from conformance.peers.errors import SCIMError
from conformance.peers.scim_filter import MEMBERS_PATH

PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
OPERATIONS_MAX = 100


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a PATCH. `op` is lower case by its schema."""

    op: Literal["add", "remove", "replace"]
    path: str | None = None
    value: Any = None


class PatchRequest(msgspec.Struct, frozen=True, kw_only=True, rename={"operations": "Operations"}):
    """A PATCH body."""

    schemas: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group and the ids of its members, in the order they came."""

    group_id: str
    display_name: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one operation did. emptied: all members went by an unfiltered remove."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    emptied: bool = False
    known: tuple[str, ...] = field(default=())


def patched(
    group: Group, request: PatchRequest, *, users: Collection[str]
) -> tuple[Group, list[Change]]:
    """Apply a PATCH to a group, all or nothing.

    users: ids that exist. Returns the group as it becomes, and what each operation did.
    Raises SCIMError. Source: RFC 7644 §3.5.2; requirements SCC-7 to SCC-10.
    """
    if PATCH_SCHEMA not in request.schemas:
        raise SCIMError(400, "invalidSyntax", "schemas lacks the PatchOp schema")
    if not 0 < len(request.operations) <= OPERATIONS_MAX:
        raise SCIMError(400, "invalidSyntax", "no operations, or too many")
    changes = []
    for operation in request.operations:
        group, change = _apply(group, operation, users)
        changes.append(change)
    return group, changes


def _apply(group: Group, operation: Operation, users: Collection[str]) -> tuple[Group, Change]:
    if operation.op == "remove":
        return _remove(group, operation)
    if operation.path is None:
        if not isinstance(operation.value, dict):
            raise SCIMError(400, "invalidValue", "without a path the value is an object")
        return _write_all(group, operation, users)
    if operation.path == "members":
        return _write_members(group, operation.op, operation.value, users)
    if operation.path == "displayName" and isinstance(operation.value, str):
        return replace(group, display_name=operation.value), Change()
    raise SCIMError(400, "invalidPath", f"no path {operation.path}")


def _write_all(group: Group, operation: Operation, users: Collection[str]) -> tuple[Group, Change]:
    values: Mapping[str, Any] = operation.value
    change = Change()
    for name, value in values.items():
        if name == "members":
            group, change = _write_members(group, operation.op, value, users)
        elif name == "displayName" and isinstance(value, str):
            group = replace(group, display_name=value)
        else:
            raise SCIMError(400, "invalidPath", f"no attribute {name}")
    return group, change


def _write_members(
    group: Group, op: str, value: Any, users: Collection[str]
) -> tuple[Group, Change]:
    wanted = _member_ids(value, users)
    kept = () if op == "replace" else group.members
    members = (*kept, *(user for user in wanted if user not in kept))
    return replace(group, members=members), Change(
        added=tuple(user for user in wanted if user not in group.members),
        removed=tuple(user for user in group.members if user not in members),
        known=tuple(user for user in wanted if user in group.members),
    )


def _remove(group: Group, operation: Operation) -> tuple[Group, Change]:
    if operation.path is None:
        raise SCIMError(400, "noTarget", "remove needs a path")
    if operation.path == "members":
        # RFC 7644 §3.5.2.2: a multi-valued attribute without a filter loses all values, whatever
        # `value` says.
        return replace(group, members=()), Change(removed=group.members, emptied=True)
    match = MEMBERS_PATH.fullmatch(operation.path)
    if match is None:
        raise SCIMError(400, "invalidPath", f"no path {operation.path}")
    user = str(json.loads(match[1]))
    if user not in group.members:
        raise SCIMError(400, "noTarget", "members filter matched nothing")
    members = tuple(member for member in group.members if member != user)
    return replace(group, members=members), Change(removed=(user,))


def _member_ids(value: Any, users: Collection[str]) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    ids = [entry.get("value") if isinstance(entry, dict) else None for entry in entries]
    wanted = [user for user in ids if isinstance(user, str)]
    if len(wanted) != len(entries) or any(user not in users for user in wanted):
        raise SCIMError(400, "invalidValue", "a member is no user of this server")
    return list(dict.fromkeys(wanted))
