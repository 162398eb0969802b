"""Use cases of reported posture: keep it, and have the sessions on the device judged again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from risk.drafts import PostureDraft
from risk.model import SignalMode
from risk.naming import occurred_at
from risk.placement import Placement
from risk.posture import store
from risk.posture.model import Report, Reported, moved
from risk.reviews import service as reviews
from risk.reviews.model import Review, ReviewCause, new_review
from risk.sessions import store as sessions_store
from risk.sessions.model import SESSIONS_KIND
from risk.sql.store import Connection
from runtime.changes import note_changes

#: names of one device; what else is reported is left out
NAMES_MAX: Final = 32
TRACE_CHARS_MAX: Final = 200
#: sessions on one batch's devices that are judged again; others with their next request
SESSIONS_MAX: Final = 1_000


async def apply_postures(
    connection: Connection, tenant_id: str, placed: Sequence[Placement], *, now: datetime
) -> int:
    """Keep what believed providers say of devices; return how many sessions are to be reviewed.

    In the transaction of the assessment: whoever is told that the signal was assessed finds the
    reviews.
    """
    reports = _reports(placed)
    if not reports:
        return 0
    known = await store.postures_of(
        connection, tenant_id, device_ids={each.device_id for each in reports}
    )
    by_name = {
        device_id: {each.name: each for each in postures} for device_id, postures in known.items()
    }
    changed: dict[tuple[str, str], Reported] = {}
    traces: dict[str, str] = {}
    for report in reports:
        of_device = by_name.setdefault(report.device_id, {})
        for each in moved(tenant_id, of_device, report, names_max=NAMES_MAX):
            of_device[each.name] = changed[each.device_id, each.name] = each
            traces[each.device_id] = report.trace_id
    await store.write_postures(connection, list(changed.values()))
    return await _review(connection, tenant_id, list(changed.values()), traces, now=now)


async def posture_of(
    connection: Connection, tenant_id: str, device_id: str | None
) -> tuple[Reported, ...]:
    """Return what providers report of a device; None is no device."""
    if device_id is None:
        return ()
    found = await store.postures_of(connection, tenant_id, device_ids={device_id})
    return tuple(found.get(device_id, ()))


def _reports(placed: Sequence[Placement]) -> list[Report]:
    return [
        Report(
            device_id=each.device_id,
            signals=draft.signals,
            old=draft.old,
            at=occurred_at(each.signal),
            trace_id=(each.signal.txn or each.signal.signal_id)[:TRACE_CHARS_MAX],
        )
        for each in placed
        if each.device_id is not None and each.signal.mode is SignalMode.ENFORCE
        for draft in each.drafts
        if isinstance(draft, PostureDraft)
    ]


async def _review(
    connection: Connection,
    tenant_id: str,
    changed: Sequence[Reported],
    traces: dict[str, str],
    *,
    now: datetime,
) -> int:
    live = await sessions_store.live_on_devices(
        connection,
        tenant_id,
        device_ids={each.device_id for each in changed},
        now=now,
        limit=SESSIONS_MAX,
    )
    # Whoever holds them in memory reads the posture anew with the session.
    await note_changes(
        connection, SESSIONS_KIND, [(tenant_id, session.session_id) for session in live]
    )
    noted: list[Review] = []
    for session in live:
        mine = [each for each in changed if each.device_id == session.device_id]
        noted.append(
            new_review(
                session,
                ReviewCause.DEVICE,
                at=now,
                trace_id=traces[mine[0].device_id],
                old={each.name: each.old for each in mine},
                new={each.name: each.value for each in mine},
            )
        )
    await reviews.note(connection, noted)
    return len(noted)
