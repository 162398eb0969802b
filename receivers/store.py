"""Tables and named queries of the inbox: signals, and the subjects they wait for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from receivers.model import (
    JTI_BYTES_MAX,
    AcceptedSET,
    PendingSignal,
    ProviderMode,
    ProviderStatus,
    SignalMark,
    SignalState,
    StoredSignal,
    effective_mode,
    milder_mode,
)
from receivers.registry.settings import ISSUER_CHARS_MAX
from receivers.registry.store import providers
from receivers.upstreams.operations import note_arrivals
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)
from runtime.errors import Invalid
from runtime.statements import Query, Row, Write, inserts
from runtime.writer import Operation
from ssf.secevent import CLAIM_CHARS_MAX

LIST_MAX: Final = 500
#: of signals that no provider sent: the hub saw it in sessions
OWN_SOURCE_CLASS: Final = "session"
ALIAS_KEYS_MAX: Final = 64
#: a normal form of ssf.subject is shorter
ALIAS_KEY_CHARS_MAX: Final = 640
KEYS_PER_STATEMENT: Final = 500
#: tenants whose signals share one batch; the ones that wait longest come first
TENANTS_PER_BATCH_MAX: Final = 64

signals: Final = sa.Table(
    "signals",
    metadata,
    tenant_column(),
    id_column("signal_id"),
    id_column("provider_id", primary_key=False),
    sa.Column("iss", sa.String(ISSUER_CHARS_MAX), nullable=False),
    sa.Column("jti", sa.String(JTI_BYTES_MAX), nullable=False),
    sa.Column("event_type", sa.String(CLAIM_CHARS_MAX), nullable=False),
    sa.Column("sub_id", JSONDocument, nullable=False),
    sa.Column("payload", JSONDocument, nullable=False),
    sa.Column("txn", sa.String(CLAIM_CHARS_MAX)),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("occurred_at", UTCDateTime, nullable=False),
    sa.Column("received_at", UTCDateTime, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("assessed_at", UTCDateTime),
    sa.Column("hops", JSONDocument),
    sa.UniqueConstraint("tenant_id", "iss", "jti"),
)
# Literals, not parameters: a planner must see that the partial index fits the query.
_IS_PENDING: Final = signals.c.state == sa.literal_column(f"'{SignalState.RECEIVED}'")
_IS_UNMATCHED: Final = signals.c.state == sa.literal_column(f"'{SignalState.UNMATCHED}'")
_IS_FAILED: Final = signals.c.state == sa.literal_column(f"'{SignalState.FAILED}'")
sa.Index(
    "ix_signals_pending",
    signals.c.tenant_id,
    signals.c.received_at,
    signals.c.signal_id,
    sqlite_where=_IS_PENDING,
    postgresql_where=_IS_PENDING,
)
sa.Index(
    "ix_signals_failed",
    signals.c.tenant_id,
    signals.c.signal_id,
    sqlite_where=_IS_FAILED,
    postgresql_where=_IS_FAILED,
)
sa.Index(
    "ix_signals_unmatched",
    signals.c.tenant_id,
    signals.c.signal_id,
    sqlite_where=_IS_UNMATCHED,
    postgresql_where=_IS_UNMATCHED,
)

unmatched_aliases: Final = sa.Table(
    "unmatched_aliases",
    metadata,
    tenant_column(),
    sa.Column("alias_key", sa.String(ALIAS_KEY_CHARS_MAX), primary_key=True),
    id_column("signal_id"),
    sa.Index("ix_unmatched_aliases_signal", "tenant_id", "signal_id"),
)


async def add_to_inbox(connection: AsyncConnection, items: Sequence[AcceptedSET]) -> list[bool]:
    """Insert verified SETs; return for each whether it was new.

    A repeat of (tenant, iss, jti), in this batch or earlier, is no error (SET-61).
    Raises Invalid when a lone item holds a value the database cannot store, so that the sender
    hears about it; in a batch the writer finds out which one it was.
    """
    # In one order everywhere: PostgreSQL lets two batches wait for each other's `jti`s otherwise.
    ordered = sorted(items, key=_place_in_batch)
    try:
        inserted = await insert_new(
            connection, signals, [_row(item) for item in ordered], "signal_id"
        )
    except sa.exc.DBAPIError as error:
        if len(items) == 1 and _is_data_error(error):
            raise Invalid("The SET holds a value that cannot be stored.") from error
        raise
    await note_arrivals(connection, [item for item in items if item.signal_id in inserted])
    return [item.signal_id in inserted for item in items]


ACCEPT: Final = Operation(
    name="receivers.accept",
    item=AcceptedSET,
    result=bool,
    handle=add_to_inbox,
    wakes=("signals",),
    is_urgent=True,
)


def _place_in_batch(item: AcceptedSET) -> tuple[str, str, str]:
    return (item.tenant_id, item.iss, item.jti)


def _row(item: AcceptedSET) -> dict[str, Any]:
    row = msgspec.structs.asdict(item)
    del row["upstream_id"]
    # Raw: the text goes into the column as it is, without being read and written once more.
    row["sub_id"], row["payload"] = msgspec.Raw(item.sub_id), msgspec.Raw(item.payload)
    row["hops"] = list(item.hops) or None
    return row


def _is_data_error(error: sa.exc.DBAPIError) -> bool:
    """Tell a bad value (SQLSTATE class 22, or 54: too large) from trouble with the database."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, sa.exc.DataError) or sqlstate[:2] in {"22", "54"}


async def pending_signals(connection: AsyncConnection, limit: int) -> list[PendingSignal]:
    """Return up to `limit` signals nobody has assessed yet, oldest first.

    A system query. Every tenant that waits gets its share of the batch, so that a flood at one
    delays no other; within a tenant the order is that of arrival. The caller sees to it that one
    process at a time takes from the inbox.
    """
    tenants = await _system_waiting_tenants(connection, min(limit, TENANTS_PER_BATCH_MAX))
    found: list[PendingSignal] = []
    for number, tenant_id in enumerate(reversed(tenants), start=1):
        # What one tenant leaves of its share goes to those that have waited longer.
        share = number * limit // len(tenants) - len(found)
        rows = await _PENDING_OF.rows(connection, tenant_id=tenant_id, at_most=share)
        found.extend(_pending(row, tenant_id) for row in rows)
    return sorted(found, key=lambda signal: (signal.received_at, signal.signal_id))


async def _system_waiting_tenants(connection: AsyncConnection, limit: int) -> list[str]:
    """Return the tenants with pending signals, the longest waiting first.

    A loose scan of the partial index: its cost grows with the tenants that wait, not with the
    signals.
    """
    return [row[0] for row in await _WAITING.rows(connection, at_most=limit)]


def _waiting_tenants() -> sa.Select[str]:
    first = sa.select(sa.func.min(signals.c.tenant_id).label("tenant_id")).where(_IS_PENDING)
    waiting = first.cte("waiting", recursive=True)
    following = (
        sa.select(sa.func.min(signals.c.tenant_id))
        .where(_IS_PENDING, signals.c.tenant_id > waiting.c.tenant_id)
        .scalar_subquery()
    )
    waiting = waiting.union_all(sa.select(following).where(waiting.c.tenant_id.is_not(None)))
    oldest = (
        sa.select(sa.func.min(signals.c.received_at))
        .where(_IS_PENDING, signals.c.tenant_id == waiting.c.tenant_id)
        .scalar_subquery()
    )
    return sa.select(waiting.c.tenant_id).where(waiting.c.tenant_id.is_not(None)).order_by(oldest)


_AT_MOST: Final = sa.bindparam("at_most", type_=sa.Integer)
_WAITING_TENANTS: Final = _waiting_tenants()
_WAITING: Final = Query(_WAITING_TENANTS.limit(_AT_MOST), scalars=["at_most"])
_WITH_PROVIDER: Final = sa.select(
    signals.c.signal_id,
    signals.c.provider_id,
    signals.c.iss,
    signals.c.event_type,
    signals.c.jti,
    signals.c.sub_id,
    signals.c.payload,
    signals.c.txn,
    signals.c.occurred_at,
    signals.c.received_at,
    signals.c.mode,
    signals.c.hops,
    sa.func.coalesce(providers.c.source_class, OWN_SOURCE_CLASS),
    providers.c.level_cap,
    sa.func.coalesce(providers.c.legacy_subject, sa.false()),
    sa.func.coalesce(providers.c.mode, ProviderMode.ENFORCE.value),
    sa.func.coalesce(providers.c.status, ProviderStatus.ACTIVE.value),
    providers.c.deleted_at.is_not(None),
).outerjoin(
    # What the hub says itself has no provider: nobody can switch it off or cap it.
    providers,
    sa.and_(
        providers.c.tenant_id == signals.c.tenant_id,
        providers.c.provider_id == signals.c.provider_id,
    ),
)
_PENDING: Final = _WITH_PROVIDER.where(_IS_PENDING).order_by(
    signals.c.received_at, signals.c.signal_id
)
_PENDING_OF: Final = Query(
    _PENDING.where(signals.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String)).limit(
        _AT_MOST
    ),
    scalars=["tenant_id", "at_most"],
)


def _pending(row: Row, tenant_id: str) -> PendingSignal:
    (
        signal_id,
        provider_id,
        iss,
        event_type,
        jti,
        sub_id,
        payload,
        txn,
        occurred_at,
        received_at,
        accepted_mode,
        hops,
        source_class,
        level_cap,
        legacy_subject,
        *provider,
    ) = row
    return PendingSignal(
        tenant_id=tenant_id,
        signal_id=signal_id,
        provider_id=provider_id,
        iss=iss,
        event_type=event_type,
        jti=jti,
        sub_id=sub_id,
        payload=payload,
        txn=txn,
        occurred_at=occurred_at,
        received_at=received_at,
        source_class=source_class,
        level_cap=level_cap,
        mode=_mode_of(accepted_mode, *provider),
        legacy_subject=legacy_subject,
        hops=tuple(hops or ()),
    )


async def recent_signals(
    connection: AsyncConnection, tenant_id: str, *, before: str | None, limit: int
) -> list[PendingSignal]:
    """Return signals that a mapping decides about, newest first, with what their word is worth.

    Those that are set aside before any mapping is asked are left out: events about the stream,
    subjects we cannot interpret, providers nobody listens to. before: where the last page ended.
    """
    statement = (
        _WITH_PROVIDER.where(
            signals.c.tenant_id == tenant_id,
            sa.or_(
                signals.c.state != SignalState.IGNORED.value, signals.c.assessed_at.is_not(None)
            ),
        )
        .order_by(signals.c.signal_id.desc())
        .limit(min(limit, LIST_MAX))
    )
    if before is not None:
        statement = statement.where(signals.c.signal_id < before)
    rows = await connection.execute(statement)
    return [_pending(tuple(row), tenant_id) for row in rows]


@functools.cache
def _mode_of(accepted: str, mode: str, status: str, is_deleted: bool) -> ProviderMode:  # noqa: FBT001 - a column
    """Return what a signal's word leads to. The arguments have few values."""
    present = effective_mode(ProviderMode(mode), ProviderStatus(status))
    if is_deleted:
        present = ProviderMode.LOG_ONLY
    return milder_mode(ProviderMode(accepted), present)


_WAIT_UNDER: Final = inserts(unmatched_aliases, or_nothing=True)
_MARK: Final = Write(
    signals.update()
    .where(
        signals.c.tenant_id == sa.bindparam("of_tenant_id"),
        signals.c.signal_id == sa.bindparam("of_signal_id"),
    )
    .values(
        state=sa.bindparam("to_state"),
        detail=sa.bindparam("to_detail"),
        assessed_at=sa.bindparam("at"),
    ),
    ("of_tenant_id", "of_signal_id", "to_state", "to_detail", "at"),
)


async def mark_signals(
    connection: AsyncConnection, marks: Sequence[SignalMark], now: datetime
) -> None:
    """Record what became of pending signals; an unmatched one waits under its alias keys."""
    await _MARK.run(
        connection,
        [
            {
                "of_tenant_id": mark.tenant_id,
                "of_signal_id": mark.signal_id,
                # Exactly a `str`: drivers look longer at a member of an enumeration.
                "to_state": SignalState(mark.state).value,
                "to_detail": mark.detail,
                "at": now,
            }
            for mark in marks
        ],
    )
    aliases = [
        {"tenant_id": mark.tenant_id, "alias_key": key, "signal_id": mark.signal_id}
        for mark in marks
        if mark.state == SignalState.UNMATCHED
        for key in sorted(set(mark.alias_keys))[:ALIAS_KEYS_MAX]
    ]
    await _WAIT_UNDER.run(connection, aliases)


def in_state(state: SignalState) -> sa.ColumnElement[bool]:
    """Return the condition, in the words of the partial index where there is one."""
    indexed = {SignalState.UNMATCHED: _IS_UNMATCHED, SignalState.FAILED: _IS_FAILED}
    return indexed.get(state, signals.c.state == state)


async def find_signal(
    connection: AsyncConnection, tenant_id: str, signal_id: str
) -> StoredSignal | None:
    """Return one signal."""
    statement = sa.select(*_STORED).where(
        signals.c.tenant_id == tenant_id, signals.c.signal_id == signal_id
    )
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else _signal(row)


async def list_signals(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    state: SignalState | None = None,
    provider_id: str | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[StoredSignal]:
    """Return a page of signals, newest first. before: the signal_id where the last page ended."""
    statement = (
        sa.select(*_STORED)
        .where(signals.c.tenant_id == tenant_id)
        .order_by(signals.c.signal_id.desc())
        .limit(min(limit, LIST_MAX))
    )
    if state is not None:
        statement = statement.where(in_state(state))
    if provider_id is not None:
        statement = statement.where(signals.c.provider_id == provider_id)
    if before is not None:
        statement = statement.where(signals.c.signal_id < before)
    return [_signal(row) for row in (await connection.execute(statement)).mappings()]


_STORED: Final = tuple(signals.c[name] for name in StoredSignal.__dataclass_fields__)


def _signal(row: sa.RowMapping) -> StoredSignal:
    modes = {"mode": ProviderMode(row["mode"]), "state": SignalState(row["state"])}
    return StoredSignal(**{**row, **modes})
