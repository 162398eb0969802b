"""Named queries that put signals back into the inbox, and find them by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from receivers.model import ProviderMode, SignalState
from receivers.store import KEYS_PER_STATEMENT, in_state, signals, unmatched_aliases
from runtime.database import chunks
from runtime.statements import Query

_ENFORCED: Final = Query(
    sa.select(signals.c.jti)
    .where(
        signals.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        signals.c.iss == sa.bindparam("iss", type_=sa.String),
        signals.c.jti >= sa.bindparam("first", type_=sa.String),
        signals.c.jti < sa.bindparam("last", type_=sa.String),
        signals.c.mode == ProviderMode.ENFORCE.value,
    )
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["tenant_id", "iss", "first", "last", "at_most"],
)


async def enforced_jtis(
    connection: AsyncConnection, tenant_id: str, iss: str, *, prefix: str, limit: int
) -> list[str]:
    """Return up to `limit` names of an issuer's signals with effects that begin with a text.

    prefix: a digit or a lower-case letter before "z" follows it.
    """
    # A range, which the index of names finds; in words that every collation understands.
    rows = await _ENFORCED.rows(
        connection,
        tenant_id=tenant_id,
        iss=iss,
        first=prefix,
        last=f"{prefix}z",
        at_most=limit,
    )
    return [jti for (jti,) in rows if jti.startswith(prefix)]


async def requeue_unmatched(
    connection: AsyncConnection, tenant_id: str, alias_keys: Iterable[str]
) -> int:
    """Let signals be assessed that waited for one of these subjects; return how many."""
    waiting: set[str] = set()
    for keys in chunks(sorted(set(alias_keys)), KEYS_PER_STATEMENT):
        result = await connection.execute(
            sa.select(unmatched_aliases.c.signal_id).where(
                unmatched_aliases.c.tenant_id == tenant_id,
                unmatched_aliases.c.alias_key.in_(keys),
            )
        )
        waiting.update(result.scalars())
    await requeue(connection, tenant_id, waiting, state=SignalState.UNMATCHED)
    return len(waiting)


async def requeue(
    connection: AsyncConnection, tenant_id: str, wanted: Iterable[str], *, state: SignalState
) -> None:
    """Let these signals be assessed anew, those that are in this state."""
    for signal_ids in chunks(sorted(wanted), KEYS_PER_STATEMENT):
        await connection.execute(
            signals.update()
            .where(
                signals.c.tenant_id == tenant_id,
                signals.c.signal_id.in_(signal_ids),
                in_state(state),
            )
            .values(state=SignalState.RECEIVED, detail=None, assessed_at=None)
        )
        await connection.execute(
            unmatched_aliases.delete().where(
                unmatched_aliases.c.tenant_id == tenant_id,
                unmatched_aliases.c.signal_id.in_(signal_ids),
            )
        )


async def signals_to_requeue(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    state: SignalState,
    event_type: str | None,
    provider_id: str | None,
    limit: int,
) -> list[str]:
    """Return signals in this state that may be assessed anew, the oldest first.

    What was set aside before anybody looked at its meaning stays so: events about the stream, and
    subjects with critical members that we cannot interpret (SET-60).
    """
    statement = (
        sa.select(signals.c.signal_id)
        .where(
            signals.c.tenant_id == tenant_id, in_state(state), signals.c.assessed_at.is_not(None)
        )
        .order_by(signals.c.signal_id)
        .limit(limit)
    )
    if event_type is not None:
        statement = statement.where(signals.c.event_type == event_type)
    if provider_id is not None:
        statement = statement.where(signals.c.provider_id == provider_id)
    return list((await connection.execute(statement)).scalars())
