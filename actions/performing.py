"""One attempt of one task: the calls it makes and what they mean. Outside any transaction.

    Work ──▶ perform ──▶ Performed(outcome, payload)
               │
               ├─ quarantine_add     look first (stored before anything is changed), then add
               ├─ quarantine_remove  remove, then read back
               ├─ idp_logout, app_logout   sign, send, classify
               └─ notify             sign, send, classify

Only `Unavailable` and bugs are raised; the worker turns both into outcomes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import msgspec

from actions import logout, scim, webhook
from actions.drafts import ACTIVE
from actions.messages import Event, Step, Story, render_notification
from actions.model import (
    App,
    Cause,
    Containment,
    LogoutMethod,
    Proof,
    Task,
    TaskKind,
    TaskPayload,
)
from actions.outcomes import Outcome, OutcomeClass, classify_failure, classify_status
from actions.registry.store import SealedApp, SealedWebhook
from actions.subjects import next_subject, scim_value
from runtime.clock import Clock, epoch_s
from runtime.errors import Unavailable
from runtime.ids import new_ulid
from runtime.keyring import Keyring
from runtime.outbound import Outbound
from runtime.secrets import SecretBox
from ssf.jose import SigningKey, signing_key

KEYS_HELD_MAX: Final = 1_000
_OK: Final = 200
_BAD_REQUEST: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A task with everything an attempt needs to know; causes and steps only for notifications."""

    task: Task
    containment: Containment
    app: SealedApp | None = None
    webhook: SealedWebhook | None = None
    causes: tuple[Cause, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """How an attempt ended, and what the task knows now."""

    outcome: Outcome
    payload: TaskPayload


class SigningKeys:
    """Parsed signing keys by purpose; a key is parsed once."""

    def __init__(self, keyring: Keyring, *, held_max: int = KEYS_HELD_MAX) -> None:
        self._keyring = keyring
        self._held_max = held_max
        self._parsed: OrderedDict[tuple[str, str], SigningKey] = OrderedDict()

    async def current(self, tenant_id: str, purpose: str) -> SigningKey:
        """Return the key that signs now. Raises NotFound when the tenant has none."""
        jwk = await self._keyring.current(tenant_id, purpose)
        place = (tenant_id, str(jwk.get("kid")))
        if place not in self._parsed:
            self._parsed[place] = signing_key(jwk)
            while len(self._parsed) > self._held_max:
                self._parsed.popitem(last=False)
        return self._parsed[place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What attempts are made with. issuer: the tenant's issuer URL by tenant id."""

    outbound: Outbound
    keys: SigningKeys
    box: SecretBox
    clock: Clock
    issuer: Callable[[str], str]


async def perform(work: Work, tools: Tools) -> Performed:
    """Make one attempt. Raises Unavailable when no answer came."""
    return await _STEPS[work.task.kind](work, tools)


async def _log_out(work: Work, tools: Tools) -> Performed:
    """Send one logout request in the best subject format that was not refused yet (GTR-12)."""
    payload = work.task.payload
    method = LogoutMethod(payload.method)
    app = _usable(work.app)
    if app is None:
        return _refused(work, "the app is no longer registered, or switched off")
    endpoint_url = _endpoint(app, method)
    if endpoint_url is None:
        return _refused(work, f"the app no longer has the logout method {method.value}")
    issuer = app.subject_issuer or app.issuer
    identifiers = payload.identifiers or work.containment.identifiers
    formats = app.subject_formats
    found = next_subject(identifiers, formats, start=payload.format_index, issuer=issuer)
    if found is None:
        known = ", ".join(formats)
        return _refused(work, f"the user has no identifier in a format the app takes ({known})")
    index, subject = found
    message = logout.LogoutMessage(
        endpoint_url=endpoint_url,
        issuer=tools.issuer(work.task.tenant_id),
        client_id=app.client_id_at_app or app.app_id,
        subject=subject,
        jti=new_ulid(),
        issued_at_s=epoch_s(tools.clock.now()),
        sid=(payload.session or {}).get("sid", ""),
    )
    key = await tools.keys.current(work.task.tenant_id, logout.KEY_PURPOSE[method])
    # Signing takes about a millisecond of CPU, which the loop should not wait for.
    request = await asyncio.to_thread(logout.build_request, method, message, key=key)
    answer = await tools.outbound.send(request)
    outcome = logout.classify_answer(
        method, status=answer.status, retry_after_s=answer.retry_after_s
    )
    if outcome.klass is not OutcomeClass.NEXT_FORMAT:
        return Performed(outcome=outcome, payload=payload)
    tried = msgspec.structs.replace(payload, format_index=index + 1)
    more = next_subject(identifiers, formats, start=index + 1, issuer=issuer)
    klass = OutcomeClass.ADVANCE if more else OutcomeClass.PERMANENT
    return Performed(outcome=replace(outcome, klass=klass), payload=tried)


async def _quarantine_add(work: Work, tools: Tools) -> Performed:
    """Put the user into the quarantine group, knowing first whether the user was in it (SCC-19)."""
    service = _scim_service(work, tools)
    payload = work.task.payload
    if service is None or not payload.group_id:
        return _refused(work, "the identity provider has no usable SCIM setting")
    if payload.scim_user_id is None or payload.was_member is None:
        return await _look_up(work, service, tools)
    if payload.was_member:
        return Performed(outcome=_ALREADY_MEMBER, payload=payload)
    request = scim.build_add(service, payload.group_id, payload.scim_user_id)
    answer = await tools.outbound.send(request)
    outcome = scim.classify_add(answer.status, answer.retry_after_s)
    return Performed(outcome=outcome, payload=payload)


async def _look_up(work: Work, service: scim.SCIMService, tools: Tools) -> Performed:
    """Find the user at the IdP and whether the group has the user already; nothing is changed."""
    app = work.app.app if work.app else None
    attribute = service.setting.user_attribute
    issuer = (app.subject_issuer or app.issuer) if app else None
    value = scim_value(work.containment.identifiers, attribute, issuer=issuer)
    if value is None:
        return _refused(work, f"the user has no identifier that can be looked up as {attribute}")
    payload, group_id = work.task.payload, work.task.payload.group_id or ""
    if attribute == "id":
        found = scim.UserLookup(matches=1, user_id=value)
    else:
        answer = await tools.outbound.send(scim.build_lookup(service, value))
        if answer.status != _OK:
            outcome = classify_status(answer.status, answer.retry_after_s)
            return Performed(outcome=outcome, payload=payload)
        parsed = scim.parse_lookup(answer.body)
        outcome = scim.classify_lookup(answer.status, parsed)
        if parsed is None or outcome.klass is not OutcomeClass.ADVANCE:
            return Performed(outcome=outcome, payload=payload)
        found = parsed
    user_id = found.user_id or value
    member = group_id in found.group_ids if found.group_ids is not None else None
    if member is None:
        member = await _membership(service, group_id, user_id, tools=tools)
    # A server that cannot tell is taken as "not a member": else nobody would ever be released.
    known = msgspec.structs.replace(payload, scim_user_id=user_id, was_member=bool(member))
    return Performed(outcome=_ALREADY_MEMBER if member else _LOOKED_UP, payload=known)


async def _quarantine_remove(work: Work, tools: Tools) -> Performed:
    """Take the user out of the group again, and read back that it worked (SCC-10)."""
    service = _scim_service(work, tools)
    payload = work.task.payload
    if service is None or not payload.group_id or not payload.scim_user_id:
        return _refused(work, "the identity provider has no usable SCIM setting")
    request = scim.build_remove(service, payload.group_id, payload.scim_user_id)
    answer = await tools.outbound.send(request)
    outcome = scim.classify_remove(answer.status, answer.retry_after_s)
    if answer.status == _BAD_REQUEST and not scim.is_no_target(answer.body):
        outcome = classify_status(answer.status, None)
    if outcome.klass is not OutcomeClass.ADVANCE:
        return Performed(outcome=outcome, payload=payload)
    read = await tools.outbound.send(scim.build_user_read(service, payload.scim_user_id))
    groups = scim.parse_groups_of_user(read.body) if read.status == _OK else None
    member = payload.group_id in groups if groups is not None else None
    if member is None:
        member = await _membership(service, payload.group_id, payload.scim_user_id, tools=tools)
    return Performed(outcome=_removed(answer.status, member), payload=payload)


async def _membership(
    service: scim.SCIMService, group_id: str, user_id: str, *, tools: Tools
) -> bool | None:
    """Ask the group whether it has the user; None when the server cannot tell (SCC-20)."""
    request = scim.build_membership_query(service, group_id, user_id)
    answer = await tools.outbound.send(request)
    return scim.parse_membership(answer.body, group_id) if answer.status == _OK else None


async def _notify(work: Work, tools: Tools) -> Performed:
    """Tell one webhook. The body is kept once it was sent: repeats of one id are equal (WH-5)."""
    if work.webhook is None or work.webhook.webhook.status != ACTIVE:
        return _refused(work, "the webhook is no longer registered, or switched off")
    payload = work.task.payload
    body = payload.body.encode() if payload.body else render_notification(_story(work))
    request = webhook.build_request(
        work.webhook.webhook.url,
        tools.box.open(work.webhook.secret_sealed),
        message_id=work.task.task_id,
        timestamp_s=epoch_s(tools.clock.now()),
        body=body,
    )
    try:
        answer = await tools.outbound.send(request)
    except Unavailable as error:
        outcome = classify_failure(error)
    else:
        outcome = webhook.classify_answer(answer.status, answer.retry_after_s)
    sent = msgspec.structs.replace(payload, body=body.decode())
    return Performed(outcome=outcome, payload=sent)


def _story(work: Work) -> Story:
    containment, event = work.containment, Event(work.task.payload.event_type)
    happened_at = containment.opened_at if event is Event.OPENED else work.task.created_at
    return Story(
        event=event,
        happened_at=happened_at,
        containment=containment,
        causes=work.causes,
        steps=work.steps,
        note=work.task.payload.note,
    )


def _removed(status: int, member: bool | None) -> Outcome:  # noqa: FBT001 - three-valued reading
    if member:
        return Outcome(
            klass=OutcomeClass.TRANSIENT, detail="still listed as a member", status=status
        )
    return Outcome(
        klass=OutcomeClass.DONE,
        detail="removed from the quarantine group",
        status=status,
        proves=Proof.ACCEPTED if member is None else Proof.EFFECTIVE,
        residual="membership could not be read back" if member is None else "",
    )


def _scim_service(work: Work, tools: Tools) -> scim.SCIMService | None:
    if work.app is None or work.app.app.scim is None or work.app.scim_token_sealed is None:
        return None
    token = tools.box.open(work.app.scim_token_sealed)
    return scim.SCIMService(setting=work.app.app.scim, token=token)


def _usable(sealed: SealedApp | None) -> App | None:
    return sealed.app if sealed is not None and sealed.app.status == ACTIVE else None


def _endpoint(app: App, method: LogoutMethod) -> str | None:
    for setting in app.logout:
        if setting.method is method:
            return setting.endpoint_url
    return None


def _refused(work: Work, detail: str) -> Performed:
    """End an attempt that cannot even begin; it fails at once, with its reason."""
    outcome = Outcome(klass=OutcomeClass.PERMANENT, detail=detail)
    return Performed(outcome=outcome, payload=work.task.payload)


_LOOKED_UP: Final = Outcome(
    klass=OutcomeClass.ADVANCE, detail="found at the identity provider", status=_OK
)
_ALREADY_MEMBER: Final = Outcome(
    klass=OutcomeClass.DONE,
    detail="was in the quarantine group before us, and is left in it on release",
    status=_OK,
    proves=Proof.EFFECTIVE,
)

_STEPS: Final[Mapping[TaskKind, Callable[[Work, Tools], Awaitable[Performed]]]] = MappingProxyType(
    {
        TaskKind.QUARANTINE_ADD: _quarantine_add,
        TaskKind.QUARANTINE_REMOVE: _quarantine_remove,
        TaskKind.IDP_LOGOUT: _log_out,
        TaskKind.APP_LOGOUT: _log_out,
        TaskKind.NOTIFY: _notify,
    }
)
