"""One session of a user is at risk no more: whether the user is not either, others of them say.

What a session led to is one finding about the user, whichever sessions it was; each session has a
finding of its own. As long as one of the others is open, the user's stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from risk.catalogue import SESSION_RISK_LOWERED
from risk.catalogue_entries import SESSION_INFLUENCED
from risk.catalogue_reported import SESSION_RISK
from risk.drafts import ClearanceDraft, Draft
from risk.findings import store as findings_store
from risk.model import EntityKind
from risk.placement import Placement
from risk.sql.store import Connection

_SESSION_PREFIX: Final = "ses_"


async def without_early_relief(
    connection: Connection, tenant_id: str, placed: Sequence[Placement]
) -> list[Placement]:
    """Leave out what would clear users of whom another session is still at risk.

    In the words of the same issuer. Two queries, and none without such a word. Raises nothing of
    its own.
    """
    lowering = [each for each in placed if each.sessions and any(map(_is_relief, each.drafts))]
    users = {each.user_id for each in lowering if each.user_id}
    if not users:
        return list(placed)
    lowered = {
        (each.signal.iss, session.session_id) for each in lowering for session in each.sessions
    }
    others = {
        (each.issuer, session_id): each.entity_id
        for each in await findings_store.active_detections(connection, tenant_id, entity_ids=users)
        if each.name == SESSION_INFLUENCED
        for session_id in each.related
        if session_id.startswith(_SESSION_PREFIX) and (each.issuer, session_id) not in lowered
    }
    at_risk = {
        (each.issuer, others[each.issuer, each.entity_id])
        for each in await findings_store.active_detections(
            connection, tenant_id, entity_ids={session_id for _, session_id in others}
        )
        if each.name == SESSION_RISK and (each.issuer, each.entity_id) in others
    }
    return [
        replace(each, drafts=tuple(one for one in each.drafts if not _is_relief(one)))
        if each.sessions and (each.signal.iss, each.user_id) in at_risk
        else each
        for each in placed
    ]


def _is_relief(draft: Draft) -> bool:
    return (
        isinstance(draft, ClearanceDraft)
        and draft.kind is EntityKind.USER
        and draft.remedy == SESSION_RISK_LOWERED
    )
