"""Tables and named queries: entities, aliases, links."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.entities.model import SOURCE_CHARS_MAX, Entity, Link, LinkKind
from risk.model import EntityKind
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    dialect_insert,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)

IN_LIST_MAX: Final = 500

#: what services hand on: an open transaction
Connection: TypeAlias = AsyncConnection

entities: Final = sa.Table(
    "entities",
    metadata,
    tenant_column(),
    id_column("entity_id"),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("label", sa.String(200), nullable=False),
    sa.Column("external_id", sa.String(200)),
    sa.Column("attributes", JSONDocument, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
)
sa.Index("ix_entities_kind", entities.c.tenant_id, entities.c.kind, entities.c.entity_id)
sa.Index(
    "uq_entities_external_id",
    entities.c.tenant_id,
    entities.c.kind,
    entities.c.external_id,
    unique=True,
    sqlite_where=entities.c.external_id.is_not(None),
    postgresql_where=entities.c.external_id.is_not(None),
)

aliases: Final = sa.Table(
    "aliases",
    metadata,
    tenant_column(),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("alias_key", sa.String(600), primary_key=True),
    id_column("entity_id", primary_key=False),
    sa.Column("subject", JSONDocument, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
)
sa.Index("ix_aliases_entity_id", aliases.c.tenant_id, aliases.c.entity_id)

links: Final = sa.Table(
    "links",
    metadata,
    tenant_column(),
    id_column("device_id"),
    id_column("user_id"),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("source", sa.String(SOURCE_CHARS_MAX), primary_key=True),
    sa.Column("since", UTCDateTime, nullable=False),
    sa.Column("until", UTCDateTime),
)
sa.Index("ix_links_user_id", links.c.tenant_id, links.c.user_id)


async def find_aliases(
    connection: AsyncConnection, tenant_id: str, *, alias_keys: Collection[str]
) -> dict[tuple[EntityKind, str], str]:
    """Return the entity id of each known name, by kind and alias key."""
    found: dict[tuple[EntityKind, str], str] = {}
    for keys in chunks(alias_keys, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(aliases.c.kind, aliases.c.alias_key, aliases.c.entity_id).where(
                aliases.c.tenant_id == tenant_id,
                aliases.c.kind.in_(("user", "device")),
                aliases.c.alias_key.in_(keys),
            )
        )
        found |= {(EntityKind(kind), key): entity_id for kind, key, entity_id in rows}
    return found


async def identifiers_of(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, list[dict[str, object]]]:
    """Return the subject identifiers of each entity as JSON objects, in order of alias key."""
    found: dict[str, list[dict[str, object]]] = {}
    for ids in chunks(entity_ids, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(aliases.c.entity_id, aliases.c.subject)
            .where(aliases.c.tenant_id == tenant_id, aliases.c.entity_id.in_(ids))
            .order_by(aliases.c.entity_id, aliases.c.alias_key)
        )
        for entity_id, subject in rows:
            found.setdefault(entity_id, []).append(subject)
    return found


async def add_aliases(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    kind: EntityKind,
    names: Sequence[tuple[str, str, dict[str, object]]],
    now: datetime,
) -> set[str]:
    """Add (alias key, entity id, subject) names; return the keys that were free until now."""
    return await insert_new(
        connection,
        aliases,
        [
            {
                "tenant_id": tenant_id,
                "kind": kind.value,
                "alias_key": alias_key,
                "entity_id": entity_id,
                "subject": subject,
                "created_at": now,
            }
            for alias_key, entity_id, subject in names
        ],
        "alias_key",
    )


async def add_entities(connection: AsyncConnection, added: Sequence[Entity]) -> None:
    """Insert new entities."""
    if added:
        await connection.execute(sa.insert(entities), [_entity_row(entity) for entity in added])


async def update_entity(connection: AsyncConnection, entity: Entity) -> None:
    """Write label, external id and groups of an entity."""
    await connection.execute(
        sa.update(entities)
        .where(entities.c.tenant_id == entity.tenant_id, entities.c.entity_id == entity.entity_id)
        .values(
            label=entity.label,
            external_id=entity.external_id,
            attributes={"groups": list(entity.groups)},
        )
    )


async def lock_devices(
    connection: AsyncConnection, tenant_id: str, *, device_ids: Collection[str]
) -> None:
    """Keep others from changing what is known of the devices until the transaction ends.

    Whoever adds a session on a device and whoever reports on it exclude each other, so one of
    them sees what the other did. SQLite has one writer anyway, so there it costs nothing.
    """
    if connection.dialect.name == "postgresql":
        await lock_entities(connection, tenant_id, entity_ids=device_ids)


async def read_entities(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, Entity]:
    """Return entities by id."""
    return await _read_entities(connection, tenant_id, entity_ids, locked=False)


async def lock_entities(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, Entity]:
    """Return entities by id and keep others from assessing them until the transaction ends.

    INVARIANT: devices are locked before users, and each kind in order of id, so that two
    transactions never wait for each other. SQLite has one writer anyway.
    """
    return await _read_entities(connection, tenant_id, entity_ids, locked=True)


async def _read_entities(
    connection: AsyncConnection, tenant_id: str, entity_ids: Collection[str], *, locked: bool
) -> dict[str, Entity]:
    found: dict[str, Entity] = {}
    for ids in chunks(sorted(entity_ids), IN_LIST_MAX):
        statement = (
            sa.select(*_ENTITY_COLUMNS)
            .where(entities.c.tenant_id == tenant_id, entities.c.entity_id.in_(ids))
            .order_by(entities.c.entity_id)
        )
        if locked and connection.dialect.name == "postgresql":
            # An assessment does not change the entity, so foreign readers need not wait.
            statement = statement.with_for_update(key_share=True)
        for row in await connection.execute(statement):
            entity = _entity(row, tenant_id)
            found[entity.entity_id] = entity
    return found


async def find_external(
    connection: AsyncConnection, tenant_id: str, *, kind: EntityKind, external_ids: Collection[str]
) -> dict[str, str]:
    """Return entity ids by external id."""
    found: dict[str, str] = {}
    for ids in chunks(external_ids, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(entities.c.external_id, entities.c.entity_id).where(
                entities.c.tenant_id == tenant_id,
                entities.c.kind == kind.value,
                entities.c.external_id.is_not(None),
                entities.c.external_id.in_(ids),
            )
        )
        found |= {row.external_id: row.entity_id for row in rows}
    return found


async def list_entities(
    connection: AsyncConnection, tenant_id: str, *, kind: EntityKind, after: str, limit: int
) -> list[Entity]:
    """Return up to `limit` entities with an id above `after`, ascending."""
    rows = await connection.execute(
        sa.select(*_ENTITY_COLUMNS)
        .where(
            entities.c.tenant_id == tenant_id,
            entities.c.kind == kind.value,
            entities.c.entity_id > after,
        )
        .order_by(entities.c.entity_id)
        .limit(limit)
    )
    return [_entity(row, tenant_id) for row in rows]


async def count_entities(connection: AsyncConnection, tenant_id: str, *, kind: EntityKind) -> int:
    """Return how many entities of a kind the tenant has."""
    counted = await connection.scalar(
        sa.select(sa.func.count())
        .select_from(entities)
        .where(entities.c.tenant_id == tenant_id, entities.c.kind == kind.value)
    )
    return int(counted or 0)


async def links_of_devices(
    connection: AsyncConnection, tenant_id: str, *, device_ids: Collection[str]
) -> list[Link]:
    """Return all links of the devices."""
    return await _links(connection, tenant_id, links.c.device_id, device_ids)


async def links_of_users(
    connection: AsyncConnection, tenant_id: str, *, user_ids: Collection[str]
) -> list[Link]:
    """Return all links of the users."""
    return await _links(connection, tenant_id, links.c.user_id, user_ids)


async def _links(
    connection: AsyncConnection, tenant_id: str, column: sa.Column[Any], ids: Collection[str]
) -> list[Link]:
    found: list[Link] = []
    for some in chunks(ids, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(*_LINK_COLUMNS).where(links.c.tenant_id == tenant_id, column.in_(some))
        )
        found.extend(
            Link(
                tenant_id=tenant_id,
                device_id=device_id,
                user_id=user_id,
                kind=LinkKind(kind),
                source=source,
                since=since,
                until=until,
            )
            for device_id, user_id, kind, source, since, until in rows
        )
    return found


async def write_links(connection: AsyncConnection, written: Sequence[Link]) -> None:
    """Insert links, or give known ones their new times."""
    if not written:
        return
    statement = dialect_insert(connection, links)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "device_id", "user_id", "kind", "source"],
            set_={"since": statement.excluded.since, "until": statement.excluded.until},
        ),
        [
            {
                "tenant_id": link.tenant_id,
                "device_id": link.device_id,
                "user_id": link.user_id,
                "kind": link.kind.value,
                "source": link.source,
                "since": link.since,
                "until": link.until,
            }
            for link in written
        ],
    )


_ENTITY_COLUMNS: Final = (
    entities.c.entity_id,
    entities.c.kind,
    entities.c.label,
    entities.c.external_id,
    entities.c.attributes,
    entities.c.created_at,
)
_LINK_COLUMNS: Final = (
    links.c.device_id,
    links.c.user_id,
    links.c.kind,
    links.c.source,
    links.c.since,
    links.c.until,
)


def _entity(row: Sequence[Any], tenant_id: str) -> Entity:
    entity_id, kind, label, external_id, attributes, created_at = row
    return Entity(
        tenant_id=tenant_id,
        entity_id=entity_id,
        kind=EntityKind(kind),
        label=label,
        external_id=external_id,
        groups=tuple(attributes.get("groups", ())),
        created_at=created_at,
    )


def _entity_row(entity: Entity) -> Mapping[str, Any]:
    return {
        "tenant_id": entity.tenant_id,
        "entity_id": entity.entity_id,
        "kind": entity.kind.value,
        "label": entity.label,
        "external_id": entity.external_id,
        "attributes": {"groups": list(entity.groups)},
        "created_at": entity.created_at,
    }
