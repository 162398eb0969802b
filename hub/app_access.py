"""Who opens many apps for the first time, at once, is told of as `suspicious_app_access`.

    app in a session ─▶ NOTE_APP ───────┐
    good sign-in for an app ─▶ RECORD ──┴▶ user_apps ─▶ too many new ones? ─▶ inbox ─▶ pipeline

In the transaction that notes the app: neither a restart nor another process makes a gap in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.registry.store as registry
import risk
from hub.own_signal import own_signal
from receivers.model import AcceptedSET
from receivers.store import add_to_inbox
from risk.announced import DETECTION
from risk.app_use.model import Burst, OpenedApp
from risk.app_use.service import note_opened
from risk.entities import store as entities_store
from risk.inline.orders import UsedApp
from risk.model import SIGN_INS_ISSUER
from risk.policies.documents import GLOBAL_SESSION_ID
from risk.policies.facts import RequestKind
from risk.policies.sessions import get_policy
from risk.policy import PolicyMode
from risk.sessions import store as sessions_store
from risk.signins.model import Outcome, SignInRecord
from risk.verdict import Decision

NAME: Final = "suspicious_app_access"

log = structlog.get_logger()


async def _note_apps(connection: AsyncConnection, items: Sequence[UsedApp]) -> Sequence[bool]:
    """Note what sessions are used for; registered apps they were let into are opened by the user.

    Any other name is a caller's own, and a path of a gateway may be as good as one.
    """
    results = await risk.NOTE_APP.handle(connection, items)
    opened: list[OpenedApp] = []
    for tenant_id in sorted({item.tenant_id for item in items}):
        mine = [item for item in items if item.tenant_id == tenant_id and item.is_opened]
        registered = await registry.registered(
            connection, tenant_id, app_ids={item.app_id for item in mine}
        )
        owners = await sessions_store.owners_of(
            connection, tenant_id, session_ids={item.session_id for item in mine}
        )
        opened += [
            OpenedApp(
                tenant_id=tenant_id,
                user_id=owners[item.session_id],
                app=item.app_id,
                at=item.at,
            )
            for item in mine
            if item.app_id in registered and item.session_id in owners
        ]
    await _note(connection, opened)
    return results


async def _record_sign_ins(
    connection: AsyncConnection, items: Sequence[SignInRecord]
) -> Sequence[bool]:
    """Keep sign-ins; the app of a good one was opened by the user."""
    results = await risk.RECORD_SIGN_IN.handle(connection, items)
    await _note(
        connection,
        [
            OpenedApp(
                tenant_id=item.tenant_id,
                user_id=item.user_id,
                app=item.facts["app"],
                at=item.at,
                trace_id=item.sign_in_id,
            )
            for item in items
            if _is_opened(item)
        ],
    )
    return results


def _is_opened(item: SignInRecord) -> bool:
    is_good = item.outcome == Outcome.SUCCESS and item.decision == Decision.ALLOW.name
    is_sign_in = item.action == RequestKind.SIGN_IN
    return bool(is_good and is_sign_in and item.user_id and item.facts.get("app"))


async def _note(connection: AsyncConnection, opened: Sequence[OpenedApp]) -> None:
    """Note opened apps, and say who opened too many."""
    told: list[AcceptedSET] = []
    for burst in await note_opened(connection, opened):
        named = await entities_store.identifiers_of(
            connection, burst.tenant_id, entity_ids={burst.user_id}
        )
        if subjects := named.get(burst.user_id):
            stored = await get_policy(connection, burst.tenant_id, GLOBAL_SESSION_ID)
            told.append(_signal(burst, subjects[0], stored.policy.mode))
            log.info(
                "app_access.suspicious",
                tenant_id=burst.tenant_id,
                user_id=burst.user_id,
                apps=burst.apps,
                trace_id=burst.trace_id,
            )
    if told:
        await add_to_inbox(connection, told)


def _signal(burst: Burst, subject: dict[str, object], mode: PolicyMode) -> AcceptedSET:
    """Return the signal; while policies monitor it is recorded and counts nothing."""
    minutes = burst.window.seconds // 60
    reason = f"{burst.apps} apps never used before were opened within {minutes} minutes."
    return own_signal(
        tenant_id=burst.tenant_id,
        iss=SIGN_INS_ISSUER,
        jti=f"{NAME}:{burst.user_id}:{burst.at:%Y%m%d%H%M%S%f}",
        event_type=DETECTION,
        subject=subject,
        payload=msgspec.json.encode({"name": NAME, "reasons": [reason]}),
        txn=burst.trace_id,
        mode=mode,
        now=burst.at,
    )


#: The pipeline takes up at once what was found, also when that was nothing: both are written behind
#: their answers, a few times a second.
NOTE_APP: Final = replace(risk.NOTE_APP, handle=_note_apps, wakes=(*risk.NOTE_APP.wakes, "signals"))
RECORD_SIGN_IN: Final = replace(
    risk.RECORD_SIGN_IN, handle=_record_sign_ins, wakes=(*risk.RECORD_SIGN_IN.wakes, "signals")
)
