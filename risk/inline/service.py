"""Use cases of stands: settle one before the answer, note those let pass behind it. Batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from risk.contexts.stored import restore_context
from risk.inline import store
from risk.inline.forks import TrailNote, both
from risk.inline.model import Settled, Stand, StandState, settle
from risk.inline.orders import UsedApp
from risk.inline.proofs import Proof
from risk.inline.step_ups import StepUp, answered, answering
from risk.model import Level
from risk.posture.model import Reported, with_reported
from risk.posture.service import posture_of
from risk.sessions import service as sessions
from risk.sessions import store as sessions_store
from risk.sessions.model import SESSIONS_KIND, PutSession, PutSessionResult, with_proof
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.database import serialize
from runtime.writer import Operation

#: how long ago a proof may be that answers for a context
FRESH: Final = timedelta(minutes=5)
#: longer than any challenge is fresh
PROOFS_KEPT: Final = timedelta(hours=1)
#: longer than sessions live
LIFE: Final = timedelta(days=30)


async def settle_stands(connection: Connection, items: Sequence[Stand]) -> list[Settled]:
    """Settle stands of any tenants; one result per item, in order: what is stored now.

    INVARIANT: of parallel requests exactly one makes a stand what it becomes; the others are told
    what it is. Whoever ends a session with a stand ends it in the same transaction.
    """
    results: dict[int, Settled] = {}
    order = sorted(range(len(items)), key=lambda place: items[place].tenant_id)
    for tenant_id, places in groupby(order, key=lambda place: items[place].tenant_id):
        batch = {place: items[place] for place in places}
        results |= await _settle_of_tenant(connection, tenant_id, batch)
    return [results[place] for place in range(len(items))]


async def _settle_of_tenant(
    connection: Connection, tenant_id: str, batch: dict[int, Stand]
) -> dict[int, Settled]:
    session_ids = sorted({each.session_id for each in batch.values()})
    # Sessions are locked before their stands, by whoever locks both, and all at once: also those
    # that end with their user, once this is settled.
    live = await sessions_store.lock_by_id(
        connection,
        tenant_id,
        session_ids={each.session_id for each in batch.values() if each.ends is not None},
        user_ids={
            each.logout.user_id
            for each in batch.values()
            if each.logout is not None and each.logout.of_user
        },
    )
    for session_id in session_ids:
        await serialize(connection, "stands", tenant_id, session_id)
    results, batch = await _answers(connection, tenant_id, batch)
    keys = {(each.session_id, each.context_key) for each in batch.values()}
    beside = {(each.session_id, each.beside) for each in batch.values() if each.beside}
    known = await store.stands_at(connection, tenant_id, keys=keys | beside)
    beginnings = await store.beginnings_of(
        connection,
        tenant_id,
        session_ids={
            *(each.session_id for each in batch.values() if each.state == StandState.ANCHOR),
            *(key[0] for key in beside if key not in known or not known[key].is_known),
        },
    )
    anchored = {session_id for session_id, (is_known, _) in beginnings.items() if is_known}
    begun = {session_id: since for session_id, (_, since) in beginnings.items() if since}
    written: dict[tuple[str, str], Stand] = {}
    goes_on = {session_id for session_id, each in live.items() if each.ended_at is None}
    for place, wanted in batch.items():
        key = (wanted.session_id, wanted.context_key)
        before = written.get(key) or known.get(key)
        other = (wanted.session_id, wanted.beside)
        if before is None and not _may_join(
            wanted,
            written.get(other) or known.get(other),
            begun=begun.get(wanted.session_id, wanted.since),
            is_anchored=wanted.session_id in anchored,
        ):
            results[place] = Settled(stand=wanted, is_new=False)
            continue
        results[place] = settle(before, wanted, is_live=wanted.session_id in goes_on)
        if results[place].is_new:
            written[key] = results[place].stand
            if wanted.ends is not None:
                goes_on.discard(wanted.session_id)
        if results[place].stand.is_known:
            anchored.add(wanted.session_id)
        _note_begin(begun, results[place].stand)
    await store.write_stands(connection, written.values())
    over = {each.session_id: each.at for each in written.values() if each.ends is not None}
    # What began anew meanwhile, under the same name, is another session that nobody judged.
    ended = [
        replace(session, ended_at=over[session_id], updated_at=over[session_id])
        for session_id, session in live.items()
        if session_id in over and session.ended_at is None
    ]
    await sessions.write_ended(connection, tenant_id, ended)
    # Also whoever was not first has to look again.
    await note_changes(
        connection, SESSIONS_KIND, [(tenant_id, session_id) for session_id in session_ids]
    )
    return results


async def _answers(
    connection: Connection, tenant_id: str, batch: dict[int, Stand]
) -> tuple[dict[int, Settled], dict[int, Stand]]:
    """Find what the proofs settle that identity providers tell of, under the locks.

    Returns those that settle nothing, with their result, and all others, by place.
    """
    told = {place: each for place, each in batch.items() if each.state == StandState.PASSED}
    if not told:
        return {}, batch
    asked = await store.stands_asked(
        connection, tenant_id, session_ids={each.session_id for each in told.values()}
    )
    nothing: dict[int, Settled] = {}
    others = dict(batch)
    for place, each in told.items():
        some = asked.get(each.session_id, ())
        answer = answering(each, some, is_whole=len(some) < store.STANDS_MAX)
        if answer is not None:
            others[place] = answer
        else:
            nothing[place] = Settled(stand=others.pop(place), is_new=False)
    return nothing, others


def _may_join(wanted: Stand, beside: Stand | None, *, begun: datetime, is_anchored: bool) -> bool:
    """Return whether a new context was compared with what the session is compared with.

    beside: what is settled about the context it names. begun: when the session was seen first.
    Otherwise it has to be judged anew: somebody else was first, also where they were kept out; or
    what it was let pass beside was refused itself.
    """
    if wanted.state == StandState.ANCHOR:
        return not is_anchored and begun >= wanted.since
    if wanted.state != StandState.ACCEPTED or not wanted.beside:
        return True
    # As long as it was accepted nowhere, others are compared with who came first.
    return beside is not None and (beside.is_known or not is_anchored)


def _note_begin(begun: dict[str, datetime], stand: Stand) -> None:
    """Note when a session was seen first, by session id."""
    if stand.context:
        begun[stand.session_id] = min(stand.since, begun.get(stand.session_id, stand.since))


async def register_contexts(
    connection: Connection, items: Sequence[PutSession], results: Sequence[PutSessionResult]
) -> None:
    """Note in which contexts users proved themselves, as identity providers say of sessions.

    The first one of a session is its anchor. A later one, with a fresh `auth_time` that the hub did
    not know, answers the step-up that was asked for in the same context; where none was, it joins
    what is accepted.
    """
    wanted = [
        _registered(item, result, await posture_of(connection, item.tenant_id, result.device_id))
        for item, result in zip(items, results, strict=True)
        if item.context is not None and not result.refusal
    ]
    await settle_stands(connection, [each for each in wanted if each is not None])


def _registered(
    item: PutSession, result: PutSessionResult, posture: Sequence[Reported]
) -> Stand | None:
    is_fresh = item.auth_time is not None and item.now - item.auth_time <= FRESH
    if not result.created and not (is_fresh and result.proven):
        # A refresh proves nothing, nor does the sign-in of before: whoever holds the cookie can
        # cause one.
        return None
    stored = {**(item.context or {}), "told_by": item.told_by}
    stored["signals"] = with_reported(stored.get("signals", {}), posture)
    return Stand(
        tenant_id=item.tenant_id,
        session_id=result.session_id,
        context_key=restore_context(stored, item.now).key(),
        state=StandState.ANCHOR if result.created else StandState.PASSED,
        # Somebody who proves themselves anew is as good as at the beginning.
        level=Level.LOW.name if result.created else Level.MEDIUM.name,
        decision="ALLOW",
        scope="session",
        at=item.now,
        since=item.now,
        shown_acr=(item.acr,) if item.acr else (),
        shown_amr=item.amr,
        auth_time=item.auth_time,
        context=stored,
    )


async def settle_step_ups(connection: Connection, items: Sequence[StepUp]) -> list[str]:
    """Note how step-ups ended; return for each "" or a key of STEP_UP_REFUSALS."""
    results: dict[int, str] = {}
    order = sorted(range(len(items)), key=lambda place: items[place].tenant_id)
    for tenant_id, places in groupby(order, key=lambda place: items[place].tenant_id):
        batch = {place: items[place] for place in places}
        keys = {(item.iss, item.sid) for item in batch.values()}
        held = await sessions_store.find_sessions(connection, tenant_id, keys=keys, lock=True)
        for session_id in sorted(session.session_id for session in held.values()):
            await serialize(connection, "stands", tenant_id, session_id)
        for place, item in batch.items():
            results[place] = await _settle_step_up(connection, item)
    return [results[place] for place in range(len(items))]


async def _settle_step_up(connection: Connection, item: StepUp) -> str:
    """Note how one step-up ended. Its session and the stands of that are locked."""
    key = (item.iss, item.sid)
    session = (await sessions_store.find_sessions(connection, item.tenant_id, keys={key})).get(key)
    if session is None:
        return "unknown"
    stand = await store.stand_asked(
        connection,
        item.tenant_id,
        session_id=session.session_id,
        step_up_id=item.step_up_id,
    )
    if stand is None or session.ended_at is not None:
        return "unknown" if stand is None else "ended"
    outcome = answered(stand, item)
    if isinstance(outcome, str):
        return outcome
    if outcome == stand:
        return ""
    await store.write_stands(connection, [outcome])
    if outcome.state == StandState.REFUSED:
        over = replace(session, ended_at=item.at, updated_at=item.at)
        await sessions.write_ended(connection, item.tenant_id, [over])
    else:
        proven = with_proof(
            session,
            auth_time=item.auth_time or item.at,
            acr=item.acr or session.acr,
            amr=item.amr or session.amr,
        )
        await sessions_store.write_sessions(connection, [replace(proven, updated_at=item.at)])
    await note_changes(connection, SESSIONS_KIND, [(item.tenant_id, session.session_id)])
    return ""


async def prove(connection: Connection, items: Sequence[Proof]) -> list[bool]:
    """Note proofs of keys; return for each whether it was never shown before.

    INVARIANT: of two who show one proof at the same time, one is refused.
    """
    results: list[bool] = []
    for item in items:
        is_new = bool(await store.add_proofs(connection, [item]))
        results.append(is_new)
        if is_new:
            await note_changes(connection, SESSIONS_KIND, [(item.tenant_id, item.session_id)])
    return results


async def note_apps(connection: Connection, items: Sequence[UsedApp]) -> list[bool]:
    """Note what sessions are used for, and have everybody who holds them read that."""
    await store.add_apps(connection, items)
    sessions_of = {(item.tenant_id, item.session_id) for item in items}
    await note_changes(connection, SESSIONS_KIND, sorted(sessions_of))
    return [True] * len(items)


async def share_trails(connection: Connection, items: Sequence[TrailNote]) -> list[bool]:
    """Join how processes saw sessions of any tenants being used, and tell every process."""
    order = sorted(items, key=lambda each: (each.tenant_id, each.session_id))
    for tenant_id, notes in groupby(order, key=lambda each: each.tenant_id):
        told = list(notes)
        session_ids = sorted({each.session_id for each in told})
        for session_id in session_ids:
            await serialize(connection, "trails", tenant_id, session_id)
        known = await store.trails_of(connection, tenant_id, session_ids=session_ids)
        for each in told:
            known[each.session_id] = both(known.get(each.session_id), each)
        await store.write_trails(connection, known.values())
        await note_changes(
            connection, SESSIONS_KIND, [(tenant_id, session_id) for session_id in session_ids]
        )
    return [True] * len(items)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget what was settled about sessions that are over, a bounded number; return how many."""
    return (
        await store.system_purge_proofs(connection, before=now - PROOFS_KEPT)
        + await store.system_purge_apps(connection, before=now - LIFE)
        + await store.system_purge_trails(connection, before=now - LIFE)
        + await store.system_purge_stands(connection, before=now - LIFE)
    )


SETTLE: Final = Operation(
    name="risk.settle_stand",
    item=Stand,
    result=Settled,
    handle=settle_stands,
    wakes=("changes",),
)
PROVE: Final = Operation(
    name="risk.prove_session", item=Proof, result=bool, handle=prove, wakes=("changes",)
)
SETTLE_STEP_UP: Final = Operation(
    name="risk.settle_step_up",
    item=StepUp,
    result=str,
    handle=settle_step_ups,
    wakes=("changes",),
)
NOTE_APP: Final = Operation(
    name="risk.note_session_app", item=UsedApp, result=bool, handle=note_apps, wakes=("changes",)
)
SHARE_TRAIL: Final = Operation(
    name="risk.share_trail",
    item=TrailNote,
    result=bool,
    handle=share_trails,
    wakes=("changes",),
)
