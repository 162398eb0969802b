"""Whom signals concern, for those who do not ask what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from risk import naming, placement
from risk.entities import store as entities_store
from risk.model import Signal
from risk.placement import Drafted, Known
from risk.sessions import store as sessions_store
from risk.sql.store import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Whom:
    """Whom one signal concerns, as far as we know. identifiers: of the user, the preferred first.

    ordering_key: equal for all signals about one subject: the user, else the device, else the name.
    """

    user_id: str | None
    identifiers: Sequence[Mapping[str, object]]
    ordering_key: str


async def whom(
    connection: Connection, tenant_id: str, signals: Sequence[Signal]
) -> dict[str, Whom]:
    """Return by signal id whom the signals of one tenant concern; three queries, however many.

    Raises nothing of its own. Source: contracts §2 (ordering key).
    """
    drafted = [Drafted(signal=signal, drafts=(), names=naming.names(signal)) for signal in signals]
    known = Known(
        entities=await entities_store.find_aliases(
            connection, tenant_id, alias_keys=placement.alias_keys(drafted)
        ),
        sessions=await sessions_store.find_sessions(
            connection, tenant_id, keys=placement.session_keys(drafted)
        ),
    )
    placed = [placement.place(each, known) for each in drafted]
    users = {each.user_id for each in placed if each.user_id}
    identifiers = await entities_store.identifiers_of(connection, tenant_id, entity_ids=users)
    return {
        each.signal.signal_id: Whom(
            user_id=each.user_id,
            identifiers=identifiers.get(each.user_id or "", ()),
            ordering_key=each.user_id or each.device_id or _name_of(each.signal),
        )
        for each in placed
    }


def _name_of(signal: Signal) -> str:
    """Return a text that is the same for every way to write one subject."""
    return "|".join(sorted(naming.keys_of(signal)))
