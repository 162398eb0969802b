"""Try refused SETs again, once their cause is mended: keys, audience, scope, allowed types."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from receivers.refusals import store
from receivers.refusals.model import IngestError
from receivers.service import ReceiversDeps, accept, find_provider
from runtime.database import Database
from runtime.errors import Conflict, NotFound, Unavailable
from runtime.secrets import SecretBox
from ssf.errors import SETError

REPLAYS_MAX: Final = 100
#: replaying several stops here; an unreachable key server must not hold the request for long
REPLAY_S: Final = 20.0
REPLAYED: Final = "replayed"


async def find_error(database: Database, tenant_id: str, error_id: str) -> IngestError:
    """Return one refused SET. Raises NotFound."""
    async with database.snapshot() as connection:
        found = await store.find_error(connection, tenant_id, error_id)
    if found is None:
        raise NotFound("No such ingest error.")
    return found


async def replay(
    errors: Sequence[IngestError],
    *,
    tenant_id: str,
    database: Database,
    box: SecretBox,
    intake: ReceiversDeps,
) -> list[IngestError]:
    """Put refused SETs through intake again; return those that were tried, as they stand now.

    Each is verified from its first byte by the provider's present settings: nothing is trusted
    because it was kept. Not inside a transaction: keys may have to be fetched. Raises Conflict
    when a single one was kept without its body.
    """
    if len(errors) == 1 and errors[0].raw_sealed is None:
        raise Conflict("Its body was never read: the sender has to send it again.")
    tried: list[IngestError] = []
    until = time.monotonic() + REPLAY_S
    for error in errors[:REPLAYS_MAX]:
        if time.monotonic() > until:
            break
        if error.raw_sealed is None:
            continue
        now = intake.clock.now()
        after = await _try_again(
            error, box.open(error.raw_sealed).encode("latin-1"), tenant_id, intake=intake, now=now
        )
        async with database.transaction() as connection:
            await store.write_attempt(connection, tenant_id, after, at=now)
        tried.append(replace(after, attempts=after.attempts + 1, tried_at=now))
    return tried


async def _try_again(
    error: IngestError, raw: bytes, tenant_id: str, *, intake: ReceiversDeps, now: datetime
) -> IngestError:
    try:
        provider = await find_provider(intake.profiles, tenant_id, error.provider_id)
        outcome = await accept(
            raw, provider=provider, now=now, keys=intake.keys, writer=intake.writer
        )
    except SETError as refusal:
        return replace(
            error, requirement=refusal.requirement, reason=f"{refusal.code}: {refusal.description}"
        )
    except (Unavailable, NotFound) as trouble:
        return replace(error, requirement="", reason=trouble.detail)
    return replace(error, state=REPLAYED, reason=f"taken in: {outcome.value}")
