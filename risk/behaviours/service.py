"""Use cases of behaviours: list, add, change, delete."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from risk.behaviours import store
from risk.behaviours.model import (
    BEHAVIOURS_MAX,
    BUILT_IN,
    NAME_CHARS_MAX,
    Behaviour,
    StoredBehaviour,
    built_in,
    parse_type,
    with_settings,
)
from risk.sql.store import Connection
from runtime.database import serialize
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump
from runtime.ids import new_id

#: what the configuration feed calls behaviours
BEHAVIOURS_KIND: Final = "behaviours"


async def list_behaviours(connection: Connection, tenant_id: str) -> tuple[StoredBehaviour, ...]:
    """Return a tenant's behaviours by id, the built-in ones as it changed them."""
    stored = {
        each.behaviour.behaviour_id: each
        for each in await store.read_behaviours(connection, tenant_id)
    }
    merged = {each.behaviour_id: StoredBehaviour(behaviour=each) for each in BUILT_IN} | stored
    return tuple(merged[behaviour_id] for behaviour_id in sorted(merged))


async def get_behaviour(
    connection: Connection, tenant_id: str, behaviour_id: str
) -> StoredBehaviour:
    """Return one behaviour. Raises NotFound."""
    for each in await list_behaviours(connection, tenant_id):
        if each.behaviour.behaviour_id == behaviour_id:
            return each
    raise NotFound("No such behaviour.")


async def add_behaviour(
    connection: Connection, tenant_id: str, document: dict[str, Any], *, now: datetime
) -> StoredBehaviour:
    """Add a behaviour: `{name, type, settings?, status?}`. Raises Invalid, Conflict."""
    await serialize(connection, BEHAVIOURS_KIND, tenant_id)
    known = await list_behaviours(connection, tenant_id)
    if len(known) >= BEHAVIOURS_MAX:
        raise Conflict(f"A tenant has at most {BEHAVIOURS_MAX} behaviours.")
    fresh = Behaviour(behaviour_id=new_id("bhv"), name="", type=parse_type(document.get("type")))
    named = _with_members(fresh, {"settings": {}, **document}, known)
    return await _write(connection, tenant_id, named, now=now)


async def change_behaviour(
    connection: Connection,
    tenant_id: str,
    behaviour_id: str,
    document: dict[str, Any],
    *,
    now: datetime,
) -> StoredBehaviour:
    """Change name, settings or status; built-in ones keep their names.

    Raises NotFound, Invalid, Conflict.
    """
    await serialize(connection, BEHAVIOURS_KIND, tenant_id)
    before = (await get_behaviour(connection, tenant_id, behaviour_id)).behaviour
    kind = document.get("type")
    if kind is not None and parse_type(kind) is not before.type:
        raise _invalid("/type", "the type it has; add another behaviour instead")
    if before.is_built_in and document.get("name") not in (None, before.name):
        raise _invalid("/name", f"{before.name}: the names of built-in behaviours stay")
    known = await list_behaviours(connection, tenant_id)
    return await _write(connection, tenant_id, _with_members(before, document, known), now=now)


async def delete_behaviour(connection: Connection, tenant_id: str, behaviour_id: str) -> None:
    """Delete a behaviour; a built-in one falls back to how it is shipped. Raises NotFound."""
    was_stored = await store.delete_behaviour(connection, tenant_id, behaviour_id)
    if not was_stored and built_in(behaviour_id) is None:
        raise NotFound("No such behaviour.")
    await bump(connection, tenant_id, BEHAVIOURS_KIND)


async def _write(
    connection: Connection, tenant_id: str, behaviour: Behaviour, *, now: datetime
) -> StoredBehaviour:
    await store.write_behaviour(connection, tenant_id, behaviour, now=now)
    await bump(connection, tenant_id, BEHAVIOURS_KIND)
    return await get_behaviour(connection, tenant_id, behaviour.behaviour_id)


def _with_members(
    behaviour: Behaviour, document: dict[str, Any], known: tuple[StoredBehaviour, ...]
) -> Behaviour:
    """Return a behaviour with the members of a document; null leaves as it is. Raises Invalid."""
    name = document.get("name") or behaviour.name
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise _invalid("/name", f"1 to {NAME_CHARS_MAX} printable characters")
    if any(
        each.behaviour.name == name and each.behaviour.behaviour_id != behaviour.behaviour_id
        for each in known
    ):
        raise Conflict("Another behaviour has this name.")
    status = document.get("status")
    if status not in {None, "ACTIVE", "INACTIVE"}:
        raise _invalid("/status", "ACTIVE or INACTIVE")
    changed = replace(
        behaviour,
        name=name,
        is_active=behaviour.is_active if status is None else status == "ACTIVE",
    )
    settings = document.get("settings")
    return changed if settings is None else with_settings(changed, settings)


def _invalid(at: str, wanted: str) -> Invalid:
    return Invalid("The behaviour is not acceptable.", pointers=((at, wanted),))
