"""Tables and named queries of the relay: its rules, and what became of signals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.relay.model import (
    NAME_CHARS_MAX,
    RelayMode,
    RelayOutcome,
    RelayRecord,
    RelayRule,
    Unresolved,
)
from receivers.model import JTI_BYTES_MAX
from receivers.registry.settings import ISSUER_CHARS_MAX
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import Query, Row, among, rows_of_keys, upserts
from ssf.secevent import CLAIM_CHARS_MAX

relay_rules: Final = sa.Table(
    "relay_rules",
    metadata,
    tenant_column(),
    id_column("rule_id"),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("providers", JSONDocument),
    sa.Column("event_types", JSONDocument),
    sa.Column("streams", JSONDocument),
    sa.Column("apps", JSONDocument),
    sa.Column("unresolved", sa.String(16), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("to_provider", sa.Boolean, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
)

relayed: Final = sa.Table(
    "relayed",
    metadata,
    tenant_column(),
    id_column("signal_id"),
    id_column("rule_id"),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("upstream_iss", sa.String(ISSUER_CHARS_MAX), nullable=False),
    sa.Column("upstream_jti", sa.String(JTI_BYTES_MAX), nullable=False),
    sa.Column("upstream_txn", sa.String(CLAIM_CHARS_MAX)),
    sa.Column("txn", sa.String(64), nullable=False),
    sa.Column("streams", JSONDocument, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
)

_NAMES: Final = tuple(RelayRule.__dataclass_fields__)
_SETS: Final = ("providers", "event_types", "streams", "apps")
_RULES: Final = Query(
    sa.select(*(relay_rules.c[name] for name in _NAMES))
    .where(relay_rules.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String))
    .order_by(relay_rules.c.position, relay_rules.c.rule_id),
    scalars=["tenant_id"],
)
_KEY: Final = ("tenant_id", "signal_id", "rule_id")
_RECORD: Final = upserts(
    relayed, _KEY, tuple(column.name for column in relayed.columns if column.name not in _KEY)
)


_RECORD_NAMES: Final = tuple(relayed.columns.keys())
_RECORDS: Final = among(sa.select(*relayed.columns), relayed, relayed.c.signal_id)


async def list_rules(connection: AsyncConnection, tenant_id: str) -> list[RelayRule]:
    """Return the rules of a tenant in the order in which they count; at most RULES_MAX."""
    return [_rule(row) for row in await _RULES.rows(connection, tenant_id=tenant_id)]


async def put_rule(connection: AsyncConnection, rule: RelayRule) -> None:
    """Write a rule, new or changed."""
    row = asdict(rule)
    for name in _SETS:
        row[name] = None if row[name] is None else sorted(row[name])
    row |= {"unresolved": rule.unresolved.value, "mode": rule.mode.value}
    key = {"tenant_id": rule.tenant_id, "rule_id": rule.rule_id}
    changed = await connection.execute(
        sa.update(relay_rules)
        .where(*(relay_rules.c[name] == value for name, value in key.items()))
        .values({name: value for name, value in row.items() if name not in key})
    )
    if not changed.rowcount:
        await connection.execute(sa.insert(relay_rules).values(row))


async def delete_rule(connection: AsyncConnection, tenant_id: str, rule_id: str) -> bool:
    """Forget a rule; return whether there was one. What it relayed stays recorded."""
    result = await connection.execute(
        sa.delete(relay_rules).where(
            relay_rules.c.tenant_id == tenant_id, relay_rules.c.rule_id == rule_id
        )
    )
    return bool(result.rowcount)


async def records_of(
    connection: AsyncConnection, tenant_id: str, *, signal_ids: Collection[str]
) -> list[RelayRecord]:
    """Return what became of signals that were looked at before."""
    keys = [(tenant_id, signal_id) for signal_id in signal_ids]
    rows = await rows_of_keys(connection, _RECORDS, keys)
    return [_record(dict(zip(_RECORD_NAMES, row, strict=True))) for row in rows]


async def write_records(connection: AsyncConnection, records: Sequence[RelayRecord]) -> None:
    """Write what became of signals; a later look replaces an earlier one."""
    await _RECORD.run(
        connection,
        [
            {**asdict(one), "outcome": one.outcome.value, "streams": list(one.streams)}
            for one in records
        ],
    )


async def list_records(
    connection: AsyncConnection, tenant_id: str, *, signal_id: str | None, before: str, limit: int
) -> list[RelayRecord]:
    """Return a page of records, those of the newest signals first. before: `signal_id:rule_id`."""
    statement = (
        sa.select(relayed)
        .where(relayed.c.tenant_id == tenant_id)
        .order_by(relayed.c.signal_id.desc(), relayed.c.rule_id.desc())
        .limit(limit)
    )
    if signal_id is not None:
        statement = statement.where(relayed.c.signal_id == signal_id)
    if before:
        last_signal, _, last_rule = before.partition(":")
        statement = statement.where(
            sa.or_(
                relayed.c.signal_id < last_signal,
                sa.and_(relayed.c.signal_id == last_signal, relayed.c.rule_id < last_rule),
            )
        )
    rows = (await connection.execute(statement)).mappings()
    return [_record({str(name): value for name, value in row.items()}) for row in rows]


def _rule(row: Row) -> RelayRule:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    for name in _SETS:
        values[name] = None if values[name] is None else frozenset(values[name])
    values["unresolved"] = Unresolved(values["unresolved"])
    values["mode"] = RelayMode(values["mode"])
    return RelayRule(**values)


def _record(row: Mapping[str, Any]) -> RelayRecord:
    values = dict(row)
    values["outcome"] = RelayOutcome(values["outcome"])
    values["streams"] = tuple(values["streams"])
    return RelayRecord(**values)
