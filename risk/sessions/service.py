"""Use cases of sessions: put, end, find, list. `put_sessions` is a hot path and takes batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Final

from risk.entities import service as entities
from risk.entities import store as entities_store
from risk.entities.model import (
    ID_PREFIX,
    SESSIONS_SOURCE,
    Link,
    LinkKind,
    Reference,
    keyed,
    parse_identifiers,
    parse_reference,
)
from risk.findings import store as findings_store
from risk.levels import store as levels_store
from risk.levels.model import LINKED
from risk.model import EntityKind
from risk.sessions import store
from risk.sessions.assurance import safe_returns
from risk.sessions.model import (
    SESSIONS_KIND,
    EndSession,
    PutSession,
    PutSessionResult,
    Session,
    is_news,
    put,
    result_of,
)
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.errors import NotFound
from runtime.ids import new_id
from runtime.writer import Operation
from ssf.subject import SimpleSubject, render_subject

PAGE_MAX: Final = 200
END_AT_ONCE_MAX: Final = 500
END_ROUNDS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """Whom one item names: users and devices by position in the batch; None: unknown."""

    users: Mapping[int, str | None]
    devices: Mapping[int, str | None]
    new_keys: Mapping[int, tuple[str, ...]]


async def put_sessions(
    connection: Connection, items: Sequence[PutSession]
) -> list[PutSessionResult]:
    """Write sessions of any tenants; one result per item, in order.

    Users and devices that are named by subject identifiers and are not known yet are made. A user
    who has, or whose device has, an active detection is reassessed soon.
    """
    results: dict[int, PutSessionResult] = {}
    order = sorted(range(len(items)), key=lambda position: items[position].tenant_id)
    for tenant_id, positions in groupby(order, key=lambda position: items[position].tenant_id):
        batch = {position: items[position] for position in positions}
        results |= await _put_of_tenant(connection, tenant_id, batch)
    return [results[position] for position in range(len(items))]


async def end_sessions(connection: Connection, items: Sequence[EndSession]) -> list[bool]:
    """End sessions of any tenants; return for each whether it is known."""
    known: dict[tuple[str, str, str], Session] = {}
    for tenant_id in sorted({item.tenant_id for item in items}):
        keys = {(item.iss, item.sid) for item in items if item.tenant_id == tenant_id}
        found = await store.find_sessions(connection, tenant_id, keys=keys, lock=True)
        known |= {(tenant_id, *key): session for key, session in found.items()}
        ended = [
            replace(session, ended_at=item.at, updated_at=item.at)
            for item in items
            if (session := known.get((item.tenant_id, item.iss, item.sid))) is not None
            and item.tenant_id == tenant_id
            and session.ended_at is None
        ]
        await write_ended(connection, tenant_id, ended)
    return [(item.tenant_id, item.iss, item.sid) in known for item in items]


async def write_ended(connection: Connection, tenant_id: str, ended: Sequence[Session]) -> None:
    """Store sessions that were ended, and what that means for the links of their devices.

    ended: as they were read and locked, with their end.
    """
    await store.write_sessions(connection, ended)
    await _note(connection, ended)
    await _write_session_links(connection, tenant_id, ended)


async def end_all_of_users(
    connection: Connection, tenant_id: str, *, user_ids: Collection[str], now: datetime
) -> Counter[str]:
    """End every session of users that is in the index; return how many, by user."""
    ended: Counter[str] = Counter()
    for _ in range(END_ROUNDS_MAX):
        live = await store.live_of_users(
            connection, tenant_id, user_ids=user_ids, limit=END_AT_ONCE_MAX
        )
        if not live:
            break
        over = [replace(session, ended_at=now, updated_at=now) for session in live]
        await write_ended(connection, tenant_id, over)
        ended.update(session.user_id for session in over)
    return ended


async def get_session(connection: Connection, tenant_id: str, *, iss: str, sid: str) -> Session:
    """Return one session. Raises NotFound."""
    found = await store.find_sessions(connection, tenant_id, keys={(iss, sid)})
    if (iss, sid) not in found:
        raise NotFound("No such session.")
    return found[iss, sid]


async def find_session(
    connection: Connection,
    tenant_id: str,
    *,
    iss: str | None,
    sid: str | None,
    cookie_sha256: str | None = None,
) -> Session | None:
    """Return the session that is meant, by its id or by its cookie; None when there is none.

    Without an issuer the id must be the only one of its name in the tenant. Raises nothing.
    """
    if sid is not None and iss is not None:
        return (await store.find_sessions(connection, tenant_id, keys={(iss, sid)})).get((iss, sid))
    if sid is not None:
        return await store.find_by_sid(connection, tenant_id, sid=sid)
    if cookie_sha256 is not None:
        return await store.find_by_cookie(connection, tenant_id, cookie_sha256=cookie_sha256)
    return None


async def list_sessions(
    connection: Connection, tenant_id: str, *, user: str, after: str = "", limit: int = 50
) -> list[Session]:
    """Return up to `limit` (at most 200) sessions of a user, newest first. Raises NotFound."""
    user_id = await entities.resolve(connection, tenant_id, user)
    return await store.list_sessions(
        connection, tenant_id, user_id=user_id, after=after, limit=min(limit, PAGE_MAX)
    )


PUT_SESSION: Final = Operation(
    name="risk.put_session",
    item=PutSession,
    result=PutSessionResult,
    handle=put_sessions,
    wakes=("signals", "changes"),
)
END_SESSION: Final = Operation(
    name="risk.end_session",
    item=EndSession,
    result=bool,
    handle=end_sessions,
    wakes=("changes",),
)


async def _put_of_tenant(
    connection: Connection, tenant_id: str, batch: Mapping[int, PutSession]
) -> dict[int, PutSessionResult]:
    named = await _resolve(connection, tenant_id, batch)
    # Whoever reports on these devices now has to wait, so it sees the new links or we see its word.
    await entities_store.lock_entities(
        connection, tenant_id, entity_ids={each for each in named.devices.values() if each}
    )
    known = await store.find_sessions(
        connection, tenant_id, keys={(item.iss, item.sid) for item in batch.values()}, lock=True
    )
    results: dict[int, PutSessionResult] = {}
    written: dict[tuple[str, str], Session] = {}
    for position, item in batch.items():
        wanted = _wanted(item, named, position)
        key = (item.iss, item.sid)
        before = written.get(key) or known.get(key)
        outcome = wanted if isinstance(wanted, str) else put(before, wanted)
        if isinstance(outcome, str):
            results[position] = PutSessionResult(refusal=outcome)
            continue
        written[key] = outcome
        results[position] = result_of(before, outcome, item, named.new_keys.get(position, ()))
    await store.write_sessions(connection, list(written.values()))
    await _note(
        connection, [each for key, each in written.items() if is_news(known.get(key), each)]
    )
    moved = [known[key] for key in written if key in known]
    await _write_session_links(connection, tenant_id, [*written.values(), *moved])
    doubted = {(item.iss, item.sid) for item in batch.values() if not item.vouches}
    begun = [session for key, session in written.items() if key not in {*known, *doubted}]
    await findings_store.write_clearances(connection, safe_returns(begun))
    await _reassess_suspects(connection, tenant_id, list(written.values()))
    return results


async def _note(connection: Connection, changed: Iterable[Session]) -> None:
    await note_changes(
        connection, SESSIONS_KIND, [(each.tenant_id, each.session_id) for each in changed]
    )


def _wanted(item: PutSession, named: _Named, position: int) -> Session | str:
    user_id, device_id = named.users[position], named.devices[position]
    if user_id is None:
        return "unknown_user"
    if device_id is None and item.device is not None:
        return "unknown_device"
    return Session(
        tenant_id=item.tenant_id,
        iss=item.iss,
        sid=item.sid,
        session_id=new_id("ses"),
        user_id=user_id,
        device_id=device_id,
        app_id=item.app,
        client=item.client,
        amr=item.amr,
        acr=item.acr,
        started_at=item.started_at,
        expires_at=item.expires_at,
        ended_at=None,
        cookie_sha256=item.cookie_sha256,
        created_at=item.now,
        updated_at=item.now,
        auth_time=item.auth_time,
        binding=item.binding,
    )


async def _resolve(
    connection: Connection, tenant_id: str, batch: Mapping[int, PutSession]
) -> _Named:
    now = max(item.now for item in batch.values())
    users, new_users = await _resolve_kind(
        connection,
        tenant_id,
        kind=EntityKind.USER,
        said={position: item.user for position, item in batch.items()},
        now=now,
    )
    devices, new_devices = await _resolve_kind(
        connection,
        tenant_id,
        kind=EntityKind.DEVICE,
        said={position: item.device for position, item in batch.items()},
        now=now,
    )
    new_keys = {
        position: (*new_users.get(position, ()), *new_devices.get(position, ()))
        for position in batch
    }
    return _Named(users=users, devices=devices, new_keys=new_keys)


async def _resolve_kind(
    connection: Connection,
    tenant_id: str,
    *,
    kind: EntityKind,
    said: Mapping[int, str | list[dict[str, object]] | None],
    now: datetime,
) -> tuple[dict[int, str | None], dict[int, tuple[str, ...]]]:
    """Return entity ids (None: unknown or not named) and new alias keys by position."""
    references = {
        position: parse_reference(text, ID_PREFIX[kind])
        for position, text in said.items()
        if isinstance(text, str)
    }
    subjects = {
        position: keyed(parse_identifiers(identifiers, f"/{kind.value}"))
        for position, identifiers in said.items()
        if isinstance(identifiers, list)
    }
    made, new_keys = await _resolve_subjects(
        connection, tenant_id, kind=kind, subjects=subjects, now=now
    )
    found = await _resolve_references(connection, tenant_id, kind, references)
    return {**dict.fromkeys(said), **found, **made}, new_keys


async def _resolve_references(
    connection: Connection,
    tenant_id: str,
    kind: EntityKind,
    references: Mapping[int, Reference],
) -> dict[int, str | None]:
    if not references:
        return {}
    found = await entities.resolve_all(connection, tenant_id, set(references.values()), kind=kind)
    return {position: found[reference] for position, reference in references.items()}


async def _resolve_subjects(
    connection: Connection,
    tenant_id: str,
    *,
    kind: EntityKind,
    subjects: Mapping[int, Mapping[str, SimpleSubject]],
    now: datetime,
) -> tuple[dict[int, str], dict[int, tuple[str, ...]]]:
    """Return entity ids and new alias keys by position; unknown entities are made."""
    if not subjects:
        return {}, {}
    wanted = {key for named in subjects.values() for key in named}
    known = {
        key: entity_id
        for (found_kind, key), entity_id in (
            await entities_store.find_aliases(connection, tenant_id, alias_keys=wanted)
        ).items()
        if found_kind is kind
    }
    first_names = dict(
        next(iter(named.items()))
        for named in subjects.values()
        if not any(key in known for key in named)
    )
    # In order of the key, so that two transactions that make the same names never deadlock.
    first_names = {key: first_names[key] for key in sorted(first_names)}
    made, new = await entities.make_entities(
        connection, tenant_id, kind=kind, wanted=first_names, now=now
    )
    known |= made
    others = {
        key: (known[first], render_subject(subject))
        for named in subjects.values()
        if (first := next(iter(named))) in new
        for key, subject in named.items()
        if key not in known
    }
    new |= await entities_store.add_aliases(
        connection,
        tenant_id,
        kind=kind,
        names=[(key, *others[key]) for key in sorted(others)],
        now=now,
    )
    return (
        {
            position: next(known[key] for key in named if key in known)
            for position, named in subjects.items()
        },
        {
            position: tuple(key for key in named if key in new)
            for position, named in subjects.items()
        },
    )


async def _write_session_links(
    connection: Connection, tenant_id: str, changed: Sequence[Session]
) -> None:
    """Bring the links of (device, user) pairs in line with all their sessions."""
    pairs = {(session.device_id, session.user_id) for session in changed if session.device_id}
    if not pairs:
        return
    found = await store.spans(connection, tenant_id, pairs=pairs)
    written = [
        Link(
            tenant_id=tenant_id,
            device_id=span.device_id,
            user_id=span.user_id,
            kind=LinkKind.SESSION,
            source=SESSIONS_SOURCE,
            since=span.since,
            until=span.until,
        )
        for span in found
    ]
    moved_away = pairs - {(span.device_id, span.user_id) for span in found}
    written += [
        Link(
            tenant_id=tenant_id,
            device_id=device_id,
            user_id=user_id,
            kind=LinkKind.SESSION,
            source=SESSIONS_SOURCE,
            since=min(session.started_at for session in changed if session.device_id == device_id),
            # The session went on elsewhere: here it ended at the latest when we heard of that.
            until=max(session.updated_at for session in changed),
        )
        for device_id, user_id in sorted(moved_away)
    ]
    await entities_store.write_links(connection, written)


async def _reassess_suspects(
    connection: Connection, tenant_id: str, written: Collection[Session]
) -> None:
    entity_ids = {session.user_id for session in written} | {
        session.device_id for session in written if session.device_id
    }
    suspects = await findings_store.suspects(connection, tenant_id, entity_ids=entity_ids)
    due = {
        session.user_id: session.updated_at
        for session in written
        if session.user_id in suspects or session.device_id in suspects
    }
    await levels_store.schedule(connection, tenant_id, due=due, reason=LINKED)
