"""Tables and named queries of the hub itself: tenants, clients, audit, kept answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime import ids
from runtime.audit import AuditNote
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    dialect_insert,
    id_column,
    metadata,
    serialize,
    tenant_column,
)

AUDIT_PAGE_MAX: Final = 500
#: what the first entry of a chain names as the hash before it
NO_HASH: Final = "0" * 64

tenants: Final = sa.Table(
    "tenants",
    metadata,
    tenant_column(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("default_subjects", sa.String(8), nullable=False, server_default="ALL"),
    sa.Column("reset_on_universal_logout", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("served_issuer", sa.String(1000)),
)

clients: Final = sa.Table(
    "clients",
    metadata,
    tenant_column(),
    id_column("client_id"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("token_hash", sa.String(64), nullable=False),
    sa.Column("scopes", JSONDocument, nullable=False),
    sa.Column("app_id", sa.String(64)),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("auth_method", sa.String(32), nullable=False, server_default="client_secret"),
    sa.Column("jwks", JSONDocument),
    sa.Column("jwks_uri", sa.String(1000)),
    sa.Column("tls_subject", sa.String(1000)),
    sa.Column("authorization_server_id", sa.String(64)),
    sa.Column("external_client_id", sa.String(255)),
    sa.Column("role", sa.String(16)),
    sa.UniqueConstraint("tenant_id", "token_hash"),
    sa.UniqueConstraint("tenant_id", "name"),
    sa.Index(
        "ix_clients_external_client",
        "tenant_id",
        "authorization_server_id",
        "external_client_id",
        unique=True,
    ),
)

audit: Final = sa.Table(
    "audit",
    metadata,
    tenant_column(),
    id_column("audit_id"),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("ref", sa.String(255), nullable=False),
    sa.Column("detail", JSONDocument, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("entry_hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("tenant_id", "number"),
)

kept_answers: Final = sa.Table(
    "kept_answers",
    metadata,
    tenant_column(),
    id_column("client_id"),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("answer_sealed", sa.Text, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Index("ix_kept_answers_tenant_id_created_at", "tenant_id", "created_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One issuer and all it owns.

    reset_on_universal_logout: whether a user is at LOW once logged out everywhere.
    served_issuer: of the tenant `default`, what the hub was served as last; others begin with it.
    """

    tenant_id: str
    name: str
    status: str
    created_at: datetime
    default_subjects: str = "ALL"
    reset_on_universal_logout: bool = False
    served_issuer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A party that calls our API. Its token is stored as a hash only.

    auth_method: client_secret (its token), private_key_jwt (`jwks` or `jwks_uri`), tls_client_auth
    (`tls_subject`), or external (named `external_client_id` by an authorization server).
    role: what an admin may do; None for all that the scopes allow.
    """

    tenant_id: str
    client_id: str
    name: str
    token_hash: str
    scopes: tuple[str, ...]
    app_id: str | None
    created_at: datetime
    auth_method: str = "client_secret"
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None
    tls_subject: str | None = None
    authorization_server_id: str | None = None
    external_client_id: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One write somebody made, chained to the one before it by hash."""

    tenant_id: str
    audit_id: str
    number: int
    at: datetime
    actor: str
    action: str
    ref: str
    detail: dict[str, Any]
    previous_hash: str
    entry_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """The answer to a request with an Idempotency-Key. fingerprint: of the request."""

    tenant_id: str
    client_id: str
    key: str
    fingerprint: str
    answer_sealed: str
    created_at: datetime


async def ensure_tenant(
    connection: AsyncConnection, tenant_id: str, *, name: str, now: datetime
) -> bool:
    """Create the tenant unless it exists; return whether it was created."""
    insert = (
        dialect_insert(connection, tenants)
        .values(tenant_id=tenant_id, name=name, status="active", created_at=now)
        .on_conflict_do_nothing()
        .returning(tenants.c.tenant_id)
    )
    return (await connection.execute(insert)).first() is not None


async def add_tenant(connection: AsyncConnection, tenant: Tenant) -> bool:
    """Store a tenant; return False when there is one of its id."""
    insert = (
        dialect_insert(connection, tenants)
        .values(asdict(tenant))
        .on_conflict_do_nothing()
        .returning(tenants.c.tenant_id)
    )
    return (await connection.execute(insert)).first() is not None


async def get_tenant(connection: AsyncConnection, tenant_id: str) -> Tenant | None:
    """Return a tenant, or None."""
    rows = await connection.execute(sa.select(tenants).where(tenants.c.tenant_id == tenant_id))
    found = rows.mappings().first()
    return None if found is None else Tenant(**found)


async def change_tenant(
    connection: AsyncConnection, tenant_id: str, values: Mapping[str, Any]
) -> bool:
    """Set columns of a tenant; return whether there is one."""
    if not values:
        return await get_tenant(connection, tenant_id) is not None
    result = await connection.execute(
        sa.update(tenants).where(tenants.c.tenant_id == tenant_id).values(dict(values))
    )
    return bool(result.rowcount)


async def system_list_tenants(connection: AsyncConnection) -> list[Tenant]:
    """Return all tenants: routing needs them, and the owner's list."""
    rows = await connection.execute(sa.select(tenants).order_by(tenants.c.tenant_id))
    return [Tenant(**row) for row in rows.mappings()]


async def add_client(connection: AsyncConnection, client: Client) -> None:
    """Store a client. Raises IntegrityError when name or token exist."""
    row = {**asdict(client), "scopes": list(client.scopes)}
    await connection.execute(sa.insert(clients).values(row))


async def replace_client(connection: AsyncConnection, client: Client) -> None:
    """Write all of a client anew. Raises IntegrityError when name or external id exist."""
    row = {**asdict(client), "scopes": list(client.scopes)}
    await connection.execute(
        sa.update(clients)
        .where(clients.c.tenant_id == client.tenant_id, clients.c.client_id == client.client_id)
        .values(row)
    )


async def list_clients(connection: AsyncConnection, tenant_id: str) -> list[Client]:
    """Return the tenant's clients, oldest first."""
    rows = await connection.execute(
        sa.select(clients).where(clients.c.tenant_id == tenant_id).order_by(clients.c.client_id)
    )
    return [Client(**{**row, "scopes": tuple(row["scopes"])}) for row in rows.mappings()]


async def delete_client(connection: AsyncConnection, tenant_id: str, client_id: str) -> bool:
    """Delete a client; return whether there was one. Its token stops working at once."""
    result = await connection.execute(
        sa.delete(clients).where(clients.c.tenant_id == tenant_id, clients.c.client_id == client_id)
    )
    return bool(result.rowcount)


async def find_answer(
    connection: AsyncConnection, tenant_id: str, *, client_id: str, key: str, since: datetime
) -> KeptAnswer | None:
    """Return the answer that a client's key got at or after `since`, or None."""
    rows = await connection.execute(
        sa.select(kept_answers).where(
            kept_answers.c.tenant_id == tenant_id,
            kept_answers.c.client_id == client_id,
            kept_answers.c.key == key,
            kept_answers.c.created_at >= since,
        )
    )
    found = rows.mappings().first()
    return None if found is None else KeptAnswer(**found)


async def keep_answer(connection: AsyncConnection, answer: KeptAnswer) -> None:
    """Keep the answer to a request. Raises IntegrityError when the key has one."""
    await connection.execute(sa.insert(kept_answers).values(asdict(answer)))


async def forget_answers(connection: AsyncConnection, tenant_id: str, *, before: datetime) -> int:
    """Delete a tenant's answers from before a moment; return how many."""
    result = await connection.execute(
        sa.delete(kept_answers).where(
            kept_answers.c.tenant_id == tenant_id, kept_answers.c.created_at < before
        )
    )
    return int(result.rowcount)


async def add_audit(connection: AsyncConnection, note: AuditNote, *, now: datetime) -> None:
    """Append one audit entry, chained by hash to the tenant's last one.

    INVARIANT: entries are never changed or deleted here; a broken chain shows tampering.
    """
    await serialize(connection, "audit", note.tenant_id)
    last = (
        await connection.execute(
            sa.select(audit.c.number, audit.c.entry_hash)
            .where(audit.c.tenant_id == note.tenant_id)
            .order_by(audit.c.number.desc())
            .limit(1)
        )
    ).first()
    entry = AuditEntry(
        tenant_id=note.tenant_id,
        audit_id=ids.new_id("aud"),
        number=(last.number if last else 0) + 1,
        at=now,
        actor=note.actor,
        action=note.action,
        ref=note.ref,
        detail=note.detail,
        previous_hash=last.entry_hash if last else NO_HASH,
        entry_hash="",
    )
    row = {**asdict(entry), "entry_hash": audit_hash(entry)}
    await connection.execute(sa.insert(audit).values(row))


async def list_audit(
    connection: AsyncConnection, tenant_id: str, *, before: int | None, limit: int
) -> list[AuditEntry]:
    """Return audit entries, newest first, below number `before`."""
    query = sa.select(audit).where(audit.c.tenant_id == tenant_id)
    if before is not None:
        query = query.where(audit.c.number < before)
    query = query.order_by(audit.c.number.desc()).limit(min(limit, AUDIT_PAGE_MAX))
    return [AuditEntry(**row) for row in (await connection.execute(query)).mappings()]


def audit_hash(entry: AuditEntry) -> str:
    """Return the hash that chains an entry: over all its fields and the hash before it."""
    body = msgspec.json.encode(
        [
            entry.tenant_id,
            entry.audit_id,
            entry.number,
            entry.at,
            entry.actor,
            entry.action,
            entry.ref,
            _numbers_as_text(entry.detail),
            entry.previous_hash,
        ],
        order="sorted",
    )
    return hashlib.sha256(body).hexdigest()


def _numbers_as_text(value: Any) -> Any:
    """Write numbers in one way: databases may give 1e2 back as 100, and the hash must not care."""
    if isinstance(value, dict):
        return {name: _numbers_as_text(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers_as_text(inner) for inner in value]
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value
