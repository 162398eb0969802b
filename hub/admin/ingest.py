"""What did not come in, or came in and led to nothing: why, with what was sent, and once more."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

import receivers.refusals.service as refusals_service
import receivers.refusals.store as refusals_store
import receivers.store
from hub.admin.bodies import Body
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from receivers.inbox import store as inbox
from receivers.model import SignalMark, SignalState, StoredSignal
from receivers.refusals.model import ErrorFilter, IngestError, decode, masked
from receivers.refusals.service import REPLAYS_MAX
from receivers.service import find_provider
from receivers.webhooks.service import UNMAPPED, read_message, replay
from runtime.errors import Conflict, Invalid, NotFound

REFUSED: Final = "refused"
SIGNALS_MAX: Final = 1_000
_PREFIX_CHARS: Final = len("ing_")
_KINDS: Final = (REFUSED, SignalState.FAILED.value, SignalState.UNMATCHED.value)


class ReplayBody(Body):
    """Which refused SETs to try again: of a provider, with a code; the newest first."""

    provider_id: str | None = Field(default=None, max_length=64)
    code: str | None = Field(default=None, max_length=64)
    limit: int = Field(default=REPLAYS_MAX, ge=1, le=REPLAYS_MAX)


class RequeueBody(Body):
    """Which signals to assess anew: those in this state, of this type and provider."""

    state: Literal["failed", "ignored", "unmatched"]
    event_type: str | None = Field(default=None, max_length=1024)
    provider_id: str | None = Field(default=None, max_length=64)
    limit: int = Field(default=SIGNALS_MAX, ge=1, le=SIGNALS_MAX)


async def list_errors(admin: Admin, listing: Listing) -> list[Document]:
    """Return refused SETs and signals that failed or are unmatched, newest first."""
    kind = listing.filters.get("kind")
    if kind is not None and kind not in _KINDS:
        rule = f"one of {', '.join(_KINDS)}"
        raise Invalid("Unknown filter value.", pointers=(("kind", rule),))
    # Both kinds of id end in a ULID, which tells the time.
    place = listing.after[_PREFIX_CHARS:]
    provider_id, code = listing.filters.get("provider"), listing.filters.get("code")
    found: list[Document] = []
    async with admin.node.database.snapshot() as connection:
        if kind in {None, REFUSED}:
            errors = await refusals_store.list_errors(
                connection,
                admin.tenant_id,
                ErrorFilter(provider_id=provider_id, code=code),
                before=f"ing_{place}" if place else None,
                limit=listing.limit,
            )
            found += map(_error, errors)
        for state in (SignalState.FAILED, SignalState.UNMATCHED):
            if kind in {None, state.value} and code is None:
                signals = await receivers.store.list_signals(
                    connection,
                    admin.tenant_id,
                    state=state,
                    provider_id=provider_id,
                    before=f"sig_{place}" if place else None,
                    limit=listing.limit,
                )
                found += map(_signal, signals)
    found.sort(key=lambda each: str(each["id"])[_PREFIX_CHARS:], reverse=True)
    return found[: listing.limit]


async def read_error(admin: Admin, error_id: str) -> Document:
    """Return one with its decoded header and claims, secrets masked.

    Whom it is about sees only who may see that of a signal.
    """
    if error_id.startswith("sig_"):
        signal = await _find_signal(admin, error_id)
        if signal.event_type == UNMAPPED:
            return {**_signal(signal), "header": None, "claims": _message(admin, signal)}
        return {**_signal(signal), **_decoded(admin, signal.raw.encode("latin-1", "replace"))}
    error = await refusals_service.find_error(admin.node.database, admin.tenant_id, error_id)
    if error.raw_sealed is None:
        return {**_error(error), "header": None, "claims": None}
    raw = admin.node.box.open(error.raw_sealed).encode("latin-1")
    return {**_error(error), **_decoded(admin, raw)}


def _decoded(admin: Admin, raw: bytes) -> Document:
    shown: Document = masked(decode(raw), with_subjects=_sees_subjects(admin))
    return shown


def _message(admin: Admin, signal: StoredSignal) -> Any:
    """Return a webhook's message; where its subjects stand, only its mapping would know."""
    return (
        masked(read_message(signal.raw.encode()), with_subjects=True)
        if _sees_subjects(admin)
        else None
    )


def _sees_subjects(admin: Admin) -> bool:
    return not admin.caller.scopes.isdisjoint({"risk.read", "risk.write", "admin.write"})


async def replay_error(admin: Admin, error_id: str, _body: None) -> Document:
    """Verify a refused SET again, map a webhook's message again, or assess a signal anew."""
    if error_id.startswith("sig_"):
        signal = await _find_signal(admin, error_id)
        if signal.state not in {SignalState.FAILED, SignalState.UNMATCHED}:
            raise NotFound("No such ingest error.")
        if signal.event_type == UNMAPPED:
            return await _map_again(admin, signal)
        async with admin.node.database.transaction() as connection:
            await inbox.requeue(connection, admin.tenant_id, [error_id], state=signal.state)
        admin.node.notifier.wake("signals")
        return _signal(await _find_signal(admin, error_id))
    error = await refusals_service.find_error(admin.node.database, admin.tenant_id, error_id)
    (tried,) = await _replay(admin, [error])
    return _error(tried)


async def _map_again(admin: Admin, signal: StoredSignal) -> Document:
    deps, now = admin.state.receivers, admin.node.clock.now()
    provider = await find_provider(deps.profiles, admin.tenant_id, signal.provider_id)
    if provider.webhook is None:
        raise Conflict("The provider sends no webhooks any more.")
    outcome = await replay(
        signal, provider=provider, intake=provider.webhook, now=now, writer=deps.writer
    )
    mark = SignalMark(
        tenant_id=admin.tenant_id,
        signal_id=signal.signal_id,
        state=SignalState.IGNORED,
        detail=f"mapped again: {outcome.value}",
    )
    async with admin.node.database.transaction() as connection:
        await receivers.store.mark_signals(connection, [mark], now)
    return _signal(await _find_signal(admin, signal.signal_id))


async def replay_errors(admin: Admin, _id: str, body: ReplayBody) -> Document:
    """Verify all refused SETs of a provider, or with a code, again."""
    async with admin.node.database.snapshot() as connection:
        errors = await refusals_store.list_errors(
            connection,
            admin.tenant_id,
            ErrorFilter(provider_id=body.provider_id, code=body.code, is_open=True),
            limit=body.limit,
        )
    tried = await _replay(admin, errors)
    taken = [each for each in tried if each.state == refusals_service.REPLAYED]
    return {"tried": len(tried), "taken": len(taken), "items": [_error(each) for each in tried]}


async def _replay(admin: Admin, errors: list[IngestError]) -> list[IngestError]:
    return await refusals_service.replay(
        errors,
        tenant_id=admin.tenant_id,
        database=admin.node.database,
        box=admin.node.box,
        intake=admin.state.receivers,
    )


async def summarise(admin: Admin, _id: str, _body: None) -> Document:
    """Return how often each provider was refused with each code, all counted."""
    async with admin.node.database.snapshot() as connection:
        return {"items": await refusals_store.list_counts(connection, admin.tenant_id)}


async def requeue_signals(admin: Admin, _id: str, body: RequeueBody) -> Document:
    """Let signals be assessed anew after a mapping, a user or a bug was mended."""
    async with admin.node.database.transaction() as connection:
        signal_ids = await inbox.signals_to_requeue(
            connection,
            admin.tenant_id,
            state=SignalState(body.state),
            event_type=body.event_type,
            provider_id=body.provider_id,
            limit=body.limit,
        )
        await inbox.requeue(connection, admin.tenant_id, signal_ids, state=SignalState(body.state))
    admin.node.notifier.wake("signals")
    return {"requeued": len(signal_ids)}


async def _find_signal(admin: Admin, signal_id: str) -> StoredSignal:
    async with admin.node.database.snapshot() as connection:
        found = await receivers.store.find_signal(connection, admin.tenant_id, signal_id)
    if found is None:
        raise NotFound("No such ingest error.")
    return found


def _error(error: IngestError) -> Document:
    return {
        "id": error.error_id,
        "kind": REFUSED,
        "provider_id": error.provider_id,
        "code": error.code,
        "requirement": error.requirement,
        "reason": error.reason,
        "jti": error.jti,
        "event_type": error.event_type,
        "peer": error.peer,
        "size_bytes": error.size_bytes,
        "replayable": error.raw_sealed is not None,
        "state": error.state,
        "attempts": error.attempts,
        "at": error.at,
        "tried_at": error.tried_at,
    }


def _signal(signal: StoredSignal) -> Document:
    return {
        "id": signal.signal_id,
        "kind": signal.state.value,
        "provider_id": signal.provider_id,
        "code": None,
        "requirement": "",
        "reason": signal.detail or "",
        "jti": signal.jti,
        "event_type": signal.event_type,
        "peer": "",
        "size_bytes": len(signal.raw),
        "replayable": signal.state in {SignalState.FAILED, SignalState.UNMATCHED},
        "state": "open",
        "attempts": 0,
        "at": signal.received_at,
        "tried_at": signal.assessed_at,
    }


ERRORS: Final = Kind(
    name="ingest-errors",
    item="ingest_error",
    summary="SETs that were refused, and signals that failed or whose subject nobody knows",
    list_page=list_errors,
    read=read_error,
    filters=("kind", "provider", "code"),
    actions=(
        Action(
            name="replay",
            summary="Verify a refused SET again, or assess a signal anew.",
            perform=replay_error,
            outside=True,
        ),
        Action(
            name="replay-all",
            summary="Verify refused SETs of a provider or code again.",
            perform=replay_errors,
            body=ReplayBody,
            on_kind=True,
            outside=True,
            example={"code": "invalid_audience", "limit": 10},
        ),
        Action(
            name="summary",
            summary="Count refused SETs by provider and code.",
            perform=summarise,
            on_kind=True,
            reads=True,
        ),
    ),
)
KINDS: Final = (ERRORS,)
REQUEUE: Final = Action(
    name="requeue",
    summary="Assess signals anew that failed, were unmatched, or had no mapping.",
    perform=requeue_signals,
    body=RequeueBody,
    on_kind=True,
    example={"state": "ignored", "event_type": "https://mdm.vendor.example/event-type/threat"},
)
