"""Every hot write of the hub, by name: what the core process executes for the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

import actions
import actions.notices
import receivers
import receivers.inbox.store
import receivers.upstreams.operations as upstream_operations
import risk
import runtime.queue
import transmitters
from actions.messages import Event
from hub import logouts, user_logouts
from hub.alerting import TELL_ALERT
from hub.app_access import NOTE_APP, RECORD_SIGN_IN
from hub.inline.finding import signal_of
from hub.lowered import tell_lowered
from hub.pipeline import lock_tenants
from hub.session_logouts import log_out_sessions
from receivers.store import add_to_inbox
from receivers.upstreams.model import Settlement as UpstreamSettlement
from receivers.upstreams.model import Upstream
from receivers.upstreams.store import get_upstream
from risk.hijacks import withdraw_settled
from risk.inline.model import Settled, Stand
from risk.inline.orders import SessionFinding, SessionLogout
from risk.inline.service import register_contexts
from risk.inline.step_ups import PASSED, StepUp
from risk.sessions import store as sessions_store
from risk.sessions.model import PutSession, PutSessionResult
from runtime.database import serialize
from runtime.ids import new_id
from runtime.writer import Operation

#: sessions of a user, the newest, that are looked at for one that goes on
ELSEWHERE_MAX: Final = 100


async def _put_sessions(
    connection: AsyncConnection, items: Sequence[PutSession]
) -> Sequence[PutSessionResult]:
    """Write sessions, and let signals that waited for their new users and devices be assessed.

    The tenants are locked first: a batch of the pipeline that finds a user unknown has either
    marked its signal unmatched before we look for it, or begins after the user is known.
    """
    await lock_tenants(connection, {item.tenant_id for item in items})
    results = await risk.PUT_SESSION.handle(connection, items)
    await register_contexts(connection, items, results)
    await _tell_lowered(
        connection,
        [
            (item.tenant_id, item.iss, item.sid, item.now)
            for item, result in zip(items, results, strict=True)
            if item.context is not None and not result.refusal and not result.created
        ],
    )
    for item, result in zip(items, results, strict=True):
        if result.new_alias_keys:
            await receivers.inbox.store.requeue_unmatched(
                connection, item.tenant_id, result.new_alias_keys
            )
    return results


async def _tell_lowered(
    connection: AsyncConnection, proven: Sequence[tuple[str, str, str, datetime]]
) -> None:
    """Say whose risk is over. proven: tenant, issuer, sid of sessions, and when it is."""
    for tenant_id in sorted({each[0] for each in proven}):
        mine = [each for each in proven if each[0] == tenant_id]
        found = await sessions_store.find_sessions(
            connection, tenant_id, keys={(iss, sid) for _, iss, sid, _ in mine}
        )
        now = max(each[3] for each in mine)
        await tell_lowered(connection, tenant_id, list(found.values()), now=now)


async def _settle_step_ups(connection: AsyncConnection, items: Sequence[StepUp]) -> Sequence[str]:
    """Note how step-ups ended; who proved themselves may have ended the risk of the session."""
    refusals = await risk.SETTLE_STEP_UP.handle(connection, items)
    await _tell_lowered(
        connection,
        [
            (item.tenant_id, item.iss, item.sid, item.at)
            for item, refusal in zip(items, refusals, strict=True)
            if not refusal and item.outcome == PASSED
        ],
    )
    return refusals


PUT_SESSION: Final = replace(risk.PUT_SESSION, handle=_put_sessions)
SETTLE_STEP_UP: Final = replace(
    risk.SETTLE_STEP_UP, handle=_settle_step_ups, wakes=("changes", "signals")
)


async def _settle_stands(connection: AsyncConnection, items: Sequence[Stand]) -> Sequence[Settled]:
    """Settle stands, log out the sessions and users that end there, and tell what was found.

    In one transaction: whoever ends a session knows no more of it afterwards. What a session that
    turns out hijacked taught of its user is withdrawn in it, too.
    """
    ending = {item.tenant_id for item in items if item.ends}
    due = await _due(connection, [item.logout for item in items if item.logout], ending)
    results = await risk.SETTLE.handle(connection, items)
    await user_logouts.log_out_users(connection, due.users)
    await log_out_sessions(connection, due.sessions)
    await _tell_findings(connection, [item.finding for item in items if item.finding])
    # Last: whoever holds a baseline waits for nothing any more.
    await withdraw_settled(connection, [each.stand for each in results if each.is_new])
    return results


async def _tell_findings(
    connection: AsyncConnection, items: Sequence[SessionFinding]
) -> Sequence[bool]:
    """Tell that sessions are at HIGH; return for each whether it was not told yet."""
    return await add_to_inbox(connection, [signal_of(each) for each in items])


async def _log_out(connection: AsyncConnection, items: Sequence[SessionLogout]) -> Sequence[bool]:
    """Log out sessions and users whose contexts were settled before."""
    due = await _due(connection, items)
    await user_logouts.log_out_users(connection, due.users)
    await log_out_sessions(connection, due.sessions)
    return [True] * len(items)


@dataclass(frozen=True, slots=True)
class _Due:
    """Logouts that are to be carried out: of users, one each, and of sessions."""

    users: list[SessionLogout]
    sessions: list[SessionLogout]


async def _due(
    connection: AsyncConnection,
    items: Sequence[SessionLogout],
    ending: Collection[str] = (),
) -> _Due:
    """Return what is still to be carried out. ending: tenants that have sessions ended besides.

    Not what another process has done already, and nothing of a session that began anew since under
    the same name: nobody judged that one. A user is logged out although the judged session ended
    meanwhile, as long as others go on that were there. First of all in the transaction, because it
    locks: the audit, then tenants, in the order in which everybody does. Under the tenant's lock
    the guard counts what every process did.
    """
    for tenant_id in sorted({item.tenant_id for item in items if item.of_user}):
        await serialize(connection, "audit", tenant_id)
    tenants = {item.tenant_id for item in items}
    await lock_tenants(connection, {*tenants, *ending})
    users: dict[tuple[str, str], SessionLogout] = {}
    of_sessions: list[SessionLogout] = []
    for tenant_id in sorted(tenants):
        mine = [item for item in items if item.tenant_id == tenant_id]
        known = await sessions_store.find_sessions(
            connection, tenant_id, keys={(item.iss, item.sid) for item in mine}
        )
        for item in mine:
            session = known.get((item.iss, item.sid))
            if session is None or session.session_id != item.session_id:
                continue
            if not item.of_user:
                of_sessions.append(item)
            elif session.ended_at is None or await _is_elsewhere(connection, item):
                users.setdefault((tenant_id, session.user_id), item)
    return _Due(users=list(users.values()), sessions=of_sessions)


async def _is_elsewhere(connection: AsyncConnection, item: SessionLogout) -> bool:
    """Return whether the user has another session that goes on since before the judgement."""
    live = await sessions_store.live_of_entities(
        connection, item.tenant_id, entity_ids={item.user_id}, now=item.at, limit=ELSEWHERE_MAX
    )
    return any(each.user_id == item.user_id and each.created_at <= item.at for each in live)


SETTLE: Final = replace(risk.SETTLE, handle=_settle_stands)
LOG_OUT_SESSION: Final = Operation(
    name="hub.log_out_session",
    item=SessionLogout,
    result=bool,
    handle=_log_out,
    wakes=("changes", "deliveries", "polls", "tasks"),
)
TELL_FINDING: Final = Operation(
    name="hub.tell_finding",
    item=SessionFinding,
    result=bool,
    handle=_tell_findings,
    wakes=("signals",),
)


async def _settle_upstreams(
    connection: AsyncConnection, items: Sequence[UpstreamSettlement]
) -> Sequence[bool]:
    """Record what came of work at upstreams, and tell admins of one that falls silent, once.

    A silence that goes on is found again and again; it is told when it begins, and anew only
    after something was heard in between.
    """
    before: dict[tuple[str, str], Upstream | None] = {}
    if any(item.change.is_silent is True for item in items):
        # All of them, in the order of everybody else, not the silent ones first.
        for key in sorted({(item.tenant_id, item.upstream_id) for item in items}):
            before[key] = await get_upstream(connection, *key, lock=True)
    settled = await upstream_operations.SETTLE.handle(connection, items)
    for item, counts in zip(items, settled, strict=True):
        upstream = before.get((item.tenant_id, item.upstream_id))
        if not counts or item.change.is_silent is not True or upstream is None:
            continue
        if upstream.is_silent:
            continue
        facts = {
            "upstream_id": upstream.upstream_id,
            "provider_id": upstream.provider_id,
            "name": upstream.settings.name,
            "awaited_since": str(upstream.awaiting_since),
            "message": f"{upstream.settings.name} is silent: a verification was asked for and did"
            " not come. Signals may be missing.",
        }
        await actions.notices.tell(
            connection,
            item.tenant_id,
            Event.SILENT,
            notice_id=new_id("sil"),
            facts=facts,
            now=upstream.awaiting_since or upstream.updated_at,
        )
    return settled


SETTLE_UPSTREAM: Final = replace(
    upstream_operations.SETTLE, handle=_settle_upstreams, wakes=("tasks",)
)


_ENRICHED: Final = {
    one.name: one
    for one in (
        PUT_SESSION,
        SETTLE,
        SETTLE_STEP_UP,
        NOTE_APP,
        RECORD_SIGN_IN,
        SETTLE_UPSTREAM,
        logouts.SETTLE,
    )
}


def all_operations() -> tuple[Operation[Any, Any], ...]:
    """Return the operations of all packages."""
    packages = (runtime.queue, receivers, risk, actions, transmitters)
    return (
        *(_ENRICHED.get(one.name, one) for package in packages for one in package.OPERATIONS),
        TELL_ALERT,
        LOG_OUT_SESSION,
        TELL_FINDING,
    )
