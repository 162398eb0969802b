"""Rotation of signing keys: no receiver ever meets a signature whose key it cannot find.

    prepare ─▶ next ──activate──▶ current ──(the next one is activated)──▶ retired ──withdraw──▶

A key is published for a while before it signs, because receivers keep our key set for a while, and
stays published for a while after, because what it signed may still be under way. `at_once` leaves
out both waits: for a key that fell into other hands.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from runtime import store
from runtime.clock import Clock
from runtime.database import serialize
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump
from runtime.keyring import ALGORITHMS, PURPOSES, RS256, new_key
from runtime.secrets import SecretBox
from runtime.store import StoredKey

#: longer than receivers keep a key set: ours says a minute, libraries go up to an hour
PUBLISHED_FIRST: Final = timedelta(hours=1)
#: longer than a SET is tried again after it was signed (a day), and than it takes to be verified
PUBLISHED_AFTER: Final = timedelta(hours=25)


async def prepare_key(
    connection: AsyncConnection,
    tenant_id: str,
    purpose: str,
    *,
    box: SecretBox,
    clock: Clock,
    alg: str = RS256,
) -> StoredKey:
    """Make and publish the next key of a purpose. Raises Invalid, Conflict when there is one.

    alg: what it will sign with. RS256 is what every receiver takes and the interoperability
    profile demands (SET-34); ES256, for SETs only, signs more than ten times as fast.
    """
    if purpose not in PURPOSES:
        known = ", ".join(PURPOSES)
        raise Invalid("No such purpose.", pointers=(("/purpose", f"one of {known}"),))
    allowed = ALGORITHMS if purpose == "set" else (RS256,)
    if alg not in allowed:
        known = ", ".join(allowed)
        raise Invalid("No such algorithm.", pointers=(("/alg", f"one of {known}"),))
    keys = await _locked(connection, tenant_id)
    if any(key.purpose == purpose and key.state == "next" for key in keys):
        raise Conflict(f"There is a next key for {purpose} already: activate or withdraw it.")
    made = await asyncio.to_thread(new_key, box, clock, tenant_id, purpose, alg=alg, state="next")
    await store.add_key(connection, made)
    await bump(connection, tenant_id, "keys")
    return made


async def activate_key(
    connection: AsyncConnection, tenant_id: str, kid: str, *, now: datetime, at_once: bool = False
) -> StoredKey:
    """Let a next key sign from now on; the one that did is retired and stays published.

    Raises NotFound, and Conflict when it is no next key or was not published for long enough.
    """
    keys = await _locked(connection, tenant_id)
    key = _find(keys, kid)
    if key.state != "next":
        raise Conflict(f"The key is {key.state}, not next.")
    if not at_once:
        _wait_until(key.changed_at + PUBLISHED_FIRST, now, "Receivers may not have it yet")
    for other in keys:
        if other.purpose == key.purpose and other.state == "current":
            await store.set_key_state(connection, tenant_id, other.kid, state="retired", now=now)
    await store.set_key_state(connection, tenant_id, kid, state="current", now=now)
    await bump(connection, tenant_id, "keys")
    return await _reread(connection, tenant_id, kid)


async def withdraw_key(
    connection: AsyncConnection, tenant_id: str, kid: str, *, now: datetime, at_once: bool = False
) -> StoredKey:
    """Publish a retired or next key no more; what it signed does not verify from then on.

    SETs that wait to be delivered again are then signed with the current key. Raises NotFound, and
    Conflict for the key that signs, and for one that was retired only a while ago.
    """
    key = _find(await _locked(connection, tenant_id), kid)
    if key.state not in {"next", "retired"}:
        reason = "another must be activated first" if key.state == "current" else "it is gone"
        raise Conflict(f"The key is {key.state}: {reason}.")
    if key.state == "retired" and not at_once:
        _wait_until(key.changed_at + PUBLISHED_AFTER, now, "What it signed may be under way")
    await store.set_key_state(connection, tenant_id, kid, state="withdrawn", now=now)
    await bump(connection, tenant_id, "keys")
    return await _reread(connection, tenant_id, kid)


async def _locked(connection: AsyncConnection, tenant_id: str) -> list[StoredKey]:
    await serialize(connection, "keys", tenant_id)
    return await store.list_keys(connection, tenant_id)


async def _reread(connection: AsyncConnection, tenant_id: str, kid: str) -> StoredKey:
    return _find(await store.list_keys(connection, tenant_id), kid)


def _find(keys: list[StoredKey], kid: str) -> StoredKey:
    for key in keys:
        if key.kid == kid:
            return key
    raise NotFound("No such key.")


def _wait_until(moment: datetime, now: datetime, reason: str) -> None:
    if now < moment:
        shown = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
        raise Conflict(f"{reason}: possible from {shown}, or with at_once now.")
