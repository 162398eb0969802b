"""Tables and named queries: entities, aliases, links."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.entities.model import SOURCE_CHARS_MAX, Entity, Link, LinkKind
from risk.model import EntityKind
from risk.sql.store import IDS, IN_LIST_MAX, TENANT, rows_of
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)
from runtime.statements import Query, Row, inserts, upserts

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


# --- statements of hot paths are built once: building costs more than running them ---------------

ENTITY_COLUMNS: Final = (
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


_READ_ENTITIES: Final = sa.select(*ENTITY_COLUMNS).where(
    entities.c.tenant_id == TENANT, entities.c.entity_id.in_(IDS)
)
_GROUPS: Final = sa.select(entities.c.entity_id, entities.c.attributes).where(
    entities.c.tenant_id == TENANT, entities.c.entity_id.in_(IDS)
)
#: an assessment does not change the entity, so readers of it need not wait
_LOCK: Final = (
    sa.select(entities.c.entity_id)
    .where(entities.c.tenant_id == TENANT, entities.c.entity_id.in_(IDS))
    .order_by(entities.c.entity_id)
    .with_for_update(key_share=True)
)
_LINKS_OF_DEVICES: Final = sa.select(*_LINK_COLUMNS).where(
    links.c.tenant_id == TENANT, links.c.device_id.in_(IDS)
)
_LINKS_OF_USERS: Final = sa.select(*_LINK_COLUMNS).where(
    links.c.tenant_id == TENANT, links.c.user_id.in_(IDS)
)
_OF_DEVICES: Final = links.alias("of_devices")
# One list of users, not two conditions joined by OR: only so SQLite looks each of them up.
_LINKS_AROUND: Final = sa.select(*_LINK_COLUMNS).where(
    links.c.tenant_id == TENANT,
    links.c.user_id.in_(
        sa.select(_OF_DEVICES.c.user_id)
        .where(
            _OF_DEVICES.c.tenant_id == TENANT,
            _OF_DEVICES.c.device_id.in_(sa.bindparam("device_ids", expanding=True)),
        )
        .union(
            sa.select(entities.c.entity_id).where(
                entities.c.tenant_id == TENANT, entities.c.entity_id.in_(IDS)
            )
        )
    ),
)
_COUNT: Final = Query(
    sa.select(sa.func.count())
    .select_from(entities)
    .where(
        entities.c.tenant_id == TENANT, entities.c.kind == sa.bindparam("kind", type_=sa.String)
    ),
    scalars=["tenant_id", "kind"],
)
_AROUND: Final = Query(_LINKS_AROUND, scalars=["tenant_id"], lists=["ids", "device_ids"])
_WRITE_LINKS: Final = upserts(
    links, ("tenant_id", "device_id", "user_id", "kind", "source"), ("since", "until")
)
_ADD_ALIASES: Final = inserts(aliases, or_nothing=True)
_FIND_ALIASES: Final = sa.select(aliases.c.kind, aliases.c.alias_key, aliases.c.entity_id).where(
    aliases.c.tenant_id == TENANT,
    aliases.c.kind.in_(("user", "device", "service_account")),
    aliases.c.alias_key.in_(IDS),
)
_IDENTIFIERS: Final = (
    sa.select(aliases.c.entity_id, aliases.c.subject)
    .where(aliases.c.tenant_id == TENANT, aliases.c.entity_id.in_(IDS))
    .order_by(aliases.c.entity_id, aliases.c.alias_key)
)


# A look-up costs a tenth of a call of the enumeration, and a batch needs hundreds.
_KINDS: Final = {kind.value: kind for kind in EntityKind}
_LINK_KINDS: Final = {kind.value: kind for kind in LinkKind}


async def find_aliases(
    connection: AsyncConnection, tenant_id: str, *, alias_keys: Collection[str]
) -> dict[tuple[EntityKind, str], str]:
    """Return the entity id of each known name, by kind and alias key."""
    rows = await rows_of(connection, _FIND_ALIASES, tenant_id, alias_keys)
    return {(_KINDS[kind], key): entity_id for kind, key, entity_id in rows}


async def identifiers_of(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, list[dict[str, object]]]:
    """Return the subject identifiers of each entity as JSON objects, in order of alias key."""
    found: dict[str, list[dict[str, object]]] = {}
    for entity_id, subject in await rows_of(connection, _IDENTIFIERS, tenant_id, entity_ids):
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
    """Add (alias key, entity id, subject) names; return the keys that now name these entities.

    A key that somebody else's entity has is left alone and not returned.
    """
    if not names:
        return set()
    rows = [
        {
            "tenant_id": tenant_id,
            "kind": kind.value,
            "alias_key": alias_key,
            "entity_id": entity_id,
            "subject": subject,
            "created_at": now,
        }
        for alias_key, entity_id, subject in names
    ]
    if connection.dialect.name == "sqlite":
        count = await _ADD_ALIASES.run(connection, rows)
    else:
        # Its driver does not count the rows of an executemany.
        count = len(await insert_new(connection, aliases, rows, "alias_key"))
    keys = {alias_key for alias_key, _, _ in names}
    if count == len(names):
        return keys
    stored = await find_aliases(connection, tenant_id, alias_keys=keys)
    return {
        alias_key for alias_key, entity_id, _ in names if stored.get((kind, alias_key)) == entity_id
    }


async def add_entities(connection: AsyncConnection, added: Sequence[Entity]) -> None:
    """Insert new entities."""
    if added:
        await connection.execute(sa.insert(entities), [_entity_row(each) for each in added])


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


async def lock_entities(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> None:
    """Keep others from assessing the entities until the transaction ends.

    Whoever adds a session on a device and whoever reports on it exclude each other, so one of
    them sees what the other did. SQLite has one writer anyway, so there it costs nothing.
    INVARIANT: devices are locked before users, and each kind in order of id, so that two
    transactions never wait for each other.
    """
    if connection.dialect.name == "postgresql":
        await rows_of(connection, _LOCK, tenant_id, sorted(entity_ids))


async def read_entities(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, Entity]:
    """Return entities by id."""
    rows = await rows_of(connection, _READ_ENTITIES, tenant_id, entity_ids)
    return {row[0]: entity(row, tenant_id) for row in rows}


async def groups_of(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return the groups of entities by id; an entity that does not exist is left out."""
    rows = await rows_of(connection, _GROUPS, tenant_id, entity_ids)
    return {entity_id: frozenset(attributes.get("groups", ())) for entity_id, attributes in rows}


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
        sa.select(*ENTITY_COLUMNS)
        .where(
            entities.c.tenant_id == tenant_id,
            entities.c.kind == kind.value,
            entities.c.entity_id > after,
        )
        .order_by(entities.c.entity_id)
        .limit(limit)
    )
    return [entity(row, tenant_id) for row in rows]


async def count_entities(connection: AsyncConnection, tenant_id: str, *, kind: EntityKind) -> int:
    """Return how many entities of a kind the tenant has."""
    ((counted,),) = await _COUNT.rows(connection, tenant_id=tenant_id, kind=kind.value)
    return int(counted)


async def links_of_devices(
    connection: AsyncConnection, tenant_id: str, *, device_ids: Collection[str]
) -> list[Link]:
    """Return all links of the devices."""
    rows = await rows_of(connection, _LINKS_OF_DEVICES, tenant_id, device_ids)
    return [_link(row, tenant_id) for row in rows]


async def links_of_users(
    connection: AsyncConnection, tenant_id: str, *, user_ids: Collection[str]
) -> list[Link]:
    """Return all links of the users."""
    rows = await rows_of(connection, _LINKS_OF_USERS, tenant_id, user_ids)
    return [_link(row, tenant_id) for row in rows]


async def links_around(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    device_ids: Collection[str],
    user_ids: Collection[str],
) -> list[Link]:
    """Return all links of the users and of everybody who is linked to the devices."""
    if not device_ids:
        return await links_of_users(connection, tenant_id, user_ids=user_ids)
    found: dict[Row, Link] = {}
    parts = zip_longest(
        chunks(device_ids, IN_LIST_MAX), chunks(user_ids, IN_LIST_MAX), fillvalue=()
    )
    for devices, users in parts:
        rows = await _AROUND.rows(connection, tenant_id=tenant_id, ids=users, device_ids=devices)
        found |= {row: _link(row, tenant_id) for row in rows}
    return list(found.values())


async def write_links(connection: AsyncConnection, written: Sequence[Link]) -> None:
    """Insert links, or give known ones their new times; in order, so that nobody deadlocks."""
    await _WRITE_LINKS.run(
        connection,
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
            for link in sorted(written, key=lambda link: (link.device_id, link.user_id))
        ],
    )


def entity(row: Sequence[Any], tenant_id: str) -> Entity:
    """Make an entity of the columns of ENTITY_COLUMNS."""
    entity_id, kind, label, external_id, attributes, created_at = row
    return Entity(
        tenant_id=tenant_id,
        entity_id=entity_id,
        kind=_KINDS[kind],
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


def _link(row: Sequence[Any], tenant_id: str) -> Link:
    device_id, user_id, kind, source, since, until = row
    return Link(
        tenant_id=tenant_id,
        device_id=device_id,
        user_id=user_id,
        kind=_LINK_KINDS[kind],
        source=source,
        since=since,
        until=until,
    )
