"""Use cases of users and devices: add, find, own.

Whoever adds a name gets back `new_alias_keys`: signals about them that waited as unmatched can be
assessed now. All functions work inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from risk.entities import store
from risk.entities.model import (
    ADMIN_SOURCE,
    EXTERNAL_ID_CHARS_MAX,
    GROUP_CHARS_MAX,
    GROUPS_KIND,
    GROUPS_MAX,
    ID_PREFIX,
    LABEL_CHARS_MAX,
    AddedEntity,
    Entity,
    EntityView,
    Link,
    LinkKind,
    Reference,
    keyed,
    label_of,
    owner_changes,
    parse_identifiers,
    parse_reference,
)
from risk.levels import store as levels_store
from risk.levels.model import LINKED
from risk.model import EntityKind
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.errors import Conflict, Invalid, NotFound
from runtime.ids import new_id
from ssf.subject import SimpleSubject, normal_form, render_subject

PAGE_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFacts:
    """What an admin says about a user or device. identifiers: JSON subject identifiers."""

    identifiers: Sequence[object]
    label: str | None = None
    external_id: str | None = None
    groups: Sequence[str] | None = None


async def count_users(connection: Connection, tenant_id: str) -> int:
    """Return how many users the tenant has."""
    return await store.count_entities(connection, tenant_id, kind=EntityKind.USER)


async def add_entity(
    connection: Connection,
    tenant_id: str,
    *,
    kind: EntityKind,
    facts: EntityFacts,
    now: datetime,
) -> AddedEntity:
    """Add a user or device, or add names and facts to the one that has these names already.

    Raises Invalid, and Conflict when the names belong to different entities.
    """
    _check(facts)
    subjects = keyed(parse_identifiers(list(facts.identifiers), "/identifiers"))
    known = await store.find_aliases(connection, tenant_id, alias_keys=subjects)
    owners = {known[kind, key] for key in subjects if (kind, key) in known}
    if facts.external_id is not None:
        owners |= set(
            (
                await store.find_external(
                    connection, tenant_id, kind=kind, external_ids=[facts.external_id]
                )
            ).values()
        )
    if len(owners) > 1:
        raise Conflict("These identifiers belong to more than one entity.")
    free = {key: subject for key, subject in subjects.items() if (kind, key) not in known}
    created = not owners
    if owners:
        entity_id = owners.pop()
        is_regrouped = await _update(connection, tenant_id, entity_id, facts)
    else:
        is_regrouped = False
        entity_id = new_id(ID_PREFIX[kind])
        added = Entity(
            tenant_id=tenant_id,
            entity_id=entity_id,
            kind=kind,
            label=facts.label or label_of(list(subjects.values())),
            external_id=facts.external_id,
            groups=tuple(facts.groups or ()),
            created_at=now,
        )
        await store.add_entities(connection, [added])
    inserted = await store.add_aliases(
        connection,
        tenant_id,
        kind=kind,
        names=[(key, entity_id, render_subject(subject)) for key, subject in free.items()],
        now=now,
    )
    if inserted != set(free):
        # Somebody else took one of the names since we looked.
        raise Conflict("One of these identifiers was taken a moment ago.")
    return AddedEntity(
        entity_id=entity_id,
        created=created,
        new_alias_keys=tuple(free),
        is_regrouped=is_regrouped,
    )


async def make_entities(
    connection: Connection,
    tenant_id: str,
    *,
    kind: EntityKind,
    wanted: Mapping[str, SimpleSubject],
    now: datetime,
) -> tuple[dict[str, str], set[str]]:
    """Make one entity per alias key, or find it when another transaction was faster.

    Returns (entity ids by alias key, alias keys that are new).
    """
    if not wanted:
        return {}, set()
    made = {key: new_id(ID_PREFIX[kind]) for key in wanted}
    names = [(key, made[key], render_subject(subject)) for key, subject in wanted.items()]
    new_keys = await store.add_aliases(connection, tenant_id, kind=kind, names=names, now=now)
    await store.add_entities(
        connection,
        [
            Entity(
                tenant_id=tenant_id,
                entity_id=made[key],
                kind=kind,
                label=label_of([wanted[key]]),
                external_id=None,
                groups=(),
                created_at=now,
            )
            for key in wanted
            if key in new_keys
        ],
    )
    lost = [key for key in wanted if key not in new_keys]
    if lost:
        known = await store.find_aliases(connection, tenant_id, alias_keys=lost)
        made |= {key: known[kind, key] for key in lost}
    return made, new_keys


async def state_owner(
    connection: Connection, tenant_id: str, *, device_id: str, user_id: str, now: datetime
) -> None:
    """Record an admin's word that the user owns the device from now on.

    The user is assessed again soon. Raises nothing.
    """
    await store.lock_entities(connection, tenant_id, entity_ids=[device_id])
    links = await store.links_of_devices(connection, tenant_id, device_ids=[device_id])
    stated = Link(
        tenant_id=tenant_id,
        device_id=device_id,
        user_id=user_id,
        kind=LinkKind.OWNER,
        source=ADMIN_SOURCE,
        since=now,
        until=None,
    )
    await store.write_links(connection, owner_changes(links, stated))
    await levels_store.schedule(connection, tenant_id, due={user_id: now}, reason=LINKED)


async def resolve(
    connection: Connection,
    tenant_id: str,
    reference: str,
    *,
    kind: EntityKind = EntityKind.USER,
) -> str:
    """Return the id of the entity an API caller names. Raises Invalid, NotFound; makes nothing.

    Source: contracts §5.
    """
    parsed = parse_reference(reference, ID_PREFIX[kind])
    found = (await resolve_all(connection, tenant_id, [parsed], kind=kind))[parsed]
    if found is None:
        raise NotFound(f"No such {kind.value}.")
    return found


async def resolve_all(
    connection: Connection,
    tenant_id: str,
    references: Collection[Reference],
    *,
    kind: EntityKind,
) -> dict[Reference, str | None]:
    """Return the entity id of each reference, None for the unknown ones."""
    ids = {each.entity_id for each in references if each.entity_id}
    external = {each.external_id for each in references if each.external_id}
    keys = {each: normal_form(each.subject) for each in references if each.subject}
    entities = await store.read_entities(connection, tenant_id, entity_ids=ids) if ids else {}
    by_external = (
        await store.find_external(connection, tenant_id, kind=kind, external_ids=external)
        if external
        else {}
    )
    by_name = (
        await store.find_aliases(connection, tenant_id, alias_keys=set(keys.values()))
        if keys
        else {}
    )

    def found(reference: Reference) -> str | None:
        if reference.entity_id:
            entity = entities.get(reference.entity_id)
            return entity.entity_id if entity and entity.kind is kind else None
        if reference.external_id:
            return by_external.get(reference.external_id)
        return by_name.get((kind, keys[reference]))

    return {reference: found(reference) for reference in references}


async def view(connection: Connection, tenant_id: str, entity_id: str) -> EntityView:
    """Return an entity with its identifiers. Raises NotFound."""
    entities = await store.read_entities(connection, tenant_id, entity_ids=[entity_id])
    if entity_id not in entities:
        raise NotFound("No such entity.")
    named = await store.identifiers_of(connection, tenant_id, entity_ids=[entity_id])
    return EntityView(entity=entities[entity_id], identifiers=tuple(named.get(entity_id, ())))


async def list_views(
    connection: Connection,
    tenant_id: str,
    *,
    kind: EntityKind,
    after: str = "",
    limit: int = PAGE_MAX,
) -> list[EntityView]:
    """Return up to `limit` (at most 200) entities of a kind with an id above `after`."""
    listed = await store.list_entities(
        connection, tenant_id, kind=kind, after=after, limit=min(limit, PAGE_MAX)
    )
    ids = [entity.entity_id for entity in listed]
    named = await store.identifiers_of(connection, tenant_id, entity_ids=ids)
    return [
        EntityView(entity=entity, identifiers=tuple(named.get(entity.entity_id, ())))
        for entity in listed
    ]


async def _update(
    connection: Connection, tenant_id: str, entity_id: str, facts: EntityFacts
) -> bool:
    """Write what is new about an entity; return whether it is in other groups now."""
    stored = (await store.read_entities(connection, tenant_id, entity_ids=[entity_id]))[entity_id]
    updated = replace(
        stored,
        label=facts.label or stored.label,
        external_id=facts.external_id or stored.external_id,
        groups=stored.groups if facts.groups is None else tuple(facts.groups),
    )
    if updated != stored:
        await store.update_entity(connection, updated)
    is_regrouped = set(updated.groups) != set(stored.groups)
    if is_regrouped:
        await note_changes(connection, GROUPS_KIND, [(tenant_id, entity_id)])
    return is_regrouped


def _check(facts: EntityFacts) -> None:
    _check_text(facts.label, "/label", LABEL_CHARS_MAX)
    _check_text(facts.external_id, "/external_id", EXTERNAL_ID_CHARS_MAX)
    groups = facts.groups or ()
    if len(groups) > GROUPS_MAX:
        raise Invalid(f"At most {GROUPS_MAX} groups.", pointers=(("/groups", "too many"),))
    for group in groups:
        _check_text(group, "/groups", GROUP_CHARS_MAX)


def _check_text(text: str | None, at: str, chars_max: int) -> None:
    if text is None:
        return
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= chars_max:
        raise Invalid(
            f"A text is 1 to {chars_max} printable characters.",
            pointers=((at, f"1 to {chars_max} printable characters"),),
        )
