"""The module of the CAEP interoperability profile (CT-22), and what the whole run saw."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.transmitter.expect import need_object, status_is
from conformance.suite.transmitter.options import Profile
from conformance.suite.transmitter.party import INTEROP_EVENTS, Transmitter
from conformance.suite.transmitter.secevents import SET_RULES, judge_set
from conformance.suite.transmitter.status import read_status
from conformance.suite.transmitter.streams import OpenStream, Received
from conformance.suite.transmitter.verification import verified
from ssf.events.caep import CAEP_BASE, CredentialChange, DeviceComplianceChange, SessionRevoked
from ssf.events.ssf import SSF_BASE, StreamUpdated

checks: Checks[Transmitter] = Checks()
check = checks.check

OK: Final = 200
#: within this time the operator's event has to arrive (CE-5)
OPERATOR_S: Final = 60.0
INITIATORS: Final = frozenset({"admin", "user", "policy", "system"})
COMPLIANCE: Final = frozenset({"compliant", "not-compliant"})
CHANGES: Final = frozenset({"create", "revoke", "update", "delete"})
MILLISECONDS_ABOVE: Final = 10**11
#: what the suite asks a trigger to emit, per event type
EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    SessionRevoked.type_uri: {},
    CredentialChange.type_uri: {"credential_type": "password", "change_type": "update"},
    DeviceComplianceChange.type_uri: {
        "current_status": "not-compliant",
        "previous_status": "compliant",
    },
}


@check(
    "CT-22",
    "INT-11",
    "INT-14",
    "INT-40",
    "INT-41",
    "INT-42",
    "CAEP-1",
    "CAEP-2",
    "CAEP-3",
    "CAEP-4",
    "SSF-VER-1",
    *SET_RULES,
    group="each",
)
async def caep_events(tx: Transmitter, v: Verdict) -> None:
    """One event of each CAEP type arrives and is sound."""
    if not tx.options.trigger.is_there and tx.options.profile is Profile.SSF:
        v.stop(*v.allowed, why="needs --trigger-url or --trigger-command to make events happen")
    stream = await tx.create()
    await tx.fetch_keys()
    need_object(v, await tx.manage("GET", query=stream.query), OK, "CT-22", "INT-11")
    if tx.endpoint("status_endpoint"):
        status_is(v, await read_status(tx, stream.query), OK, "CT-22", "INT-11")
    if tx.endpoint("verification_endpoint"):
        await verified(tx, v, stream, "CT-22", "SSF-VER-1")
    delivered = stream.configuration.get("events_delivered")
    wanted = [one for one in INTEROP_EVENTS if one in (delivered or [])]
    v.need(wanted, "CT-22", told=f"at least one CAEP type is delivered: {delivered!r}")
    for event_type in wanted:
        await _one_event(tx, v, stream, event_type)
    foreign = [
        type_uri
        for one in stream.arrived
        for type_uri in one.events
        if not type_uri.startswith((CAEP_BASE, SSF_BASE))
    ]
    v.must(not foreign, "CT-22", told=f"only CAEP and SSF events arrive: {foreign}")
    deleted = await stream.delete()
    v.need(deleted.status == 204, "CT-22", told=f"204: {deleted.told()}")  # noqa: PLR2004


async def _one_event(tx: Transmitter, v: Verdict, stream: OpenStream, event_type: str) -> None:
    if not tx.options.trigger.is_there:
        sys.stderr.write(f"Now make {event_type} happen for stream {stream.stream_id} ...\n")
    common = {
        "event_timestamp": int(time.time()),  # noqa: TID251 - the operator's own clock
        "initiating_entity": "admin",
        "reason_admin": {"en": "conformance check"},
    }
    await tx.trigger(stream, event_type, {**common, **EXAMPLES[event_type]})
    received = await stream.wait(lambda one: event_type in one.events, OPERATOR_S)
    v.need(received, "CT-22", told=f"{event_type} arrives within {OPERATOR_S:g} s")
    assert received is not None  # noqa: S101 - needed above
    judge_set(tx, v, received, stream)
    _judge_subject(v, received)
    payload = received.events.get(event_type)
    _judge_common(v, payload if isinstance(payload, dict) else {})
    _JUDGES[event_type](v, payload if isinstance(payload, dict) else {})


def _judge_subject(v: Verdict, received: Received) -> None:
    sub_id = received.claims.get("sub_id")
    subject = sub_id if isinstance(sub_id, dict) else {}
    inner = subject.get("user")
    formats = {subject.get("format"), inner.get("format") if isinstance(inner, dict) else None}
    known = formats & {"email", "iss_sub"}
    v.should(known, "INT-14", told=f"the subject is email or iss_sub: {sub_id!r}")


def _judge_common(v: Verdict, event: Mapping[str, Any]) -> None:
    when = event.get("event_timestamp")
    number = isinstance(when, int | float) and not isinstance(when, bool)
    ok = when is None or (number and when < MILLISECONDS_ABOVE)
    v.must(ok, "CAEP-1", told=f"event_timestamp is in seconds: {when!r}")
    who = event.get("initiating_entity")
    v.must(who is None or who in INITIATORS, "CAEP-2", told=f"initiating_entity: {who!r}")
    for name, requirement_id in (("reason_admin", "CAEP-3"), ("reason_user", "CAEP-4")):
        reason = event.get(name)
        texts = isinstance(reason, dict) and reason
        ok = reason is None or (texts and all(isinstance(one, str) for one in reason.values()))
        v.must(ok, requirement_id, told=f"{name} is language to text: {reason!r}")


def _judge_revoked(v: Verdict, event: Mapping[str, Any]) -> None:
    v.must(event.get("reason_admin"), "INT-40", told="session-revoked has a reason_admin")


def _judge_credential(v: Verdict, event: Mapping[str, Any]) -> None:
    kind, change = event.get("credential_type"), event.get("change_type")
    ok = isinstance(kind, str) and isinstance(change, str)
    v.must(ok, "INT-41", told=f"credential_type and change_type: {kind!r}, {change!r}")
    v.should(change in CHANGES, "INT-41", told=f"change_type is a standard one: {change!r}")


def _judge_compliance(v: Verdict, event: Mapping[str, Any]) -> None:
    both = {event.get("current_status"), event.get("previous_status")}
    v.must(both <= COMPLIANCE, "INT-42", told=f"both statuses are standard ones: {both}")


_JUDGES: Final = {
    SessionRevoked.type_uri: _judge_revoked,
    CredentialChange.type_uri: _judge_credential,
    DeviceComplianceChange.type_uri: _judge_compliance,
}


@check("SSF-UPD-1", "SET-5", group="last")
async def what_arrived(tx: Transmitter, v: Verdict) -> None:
    """Over the whole run: every jti names one SET; stream-updated events have their form."""
    await asyncio.sleep(0)
    by_jti: dict[str, Mapping[str, Any]] = {}
    for claims in tx.seen:
        jti = str(claims.get("jti"))
        v.must(by_jti.setdefault(jti, claims) == claims, "SET-5", told=f"jti {jti} names one SET")
    updates = [
        (claims, event)
        for claims in tx.seen
        for type_uri, event in (claims.get("events") or {}).items()
        if type_uri == StreamUpdated.type_uri
    ]
    for claims, event in updates:
        status = event.get("status") if isinstance(event, dict) else None
        sub_id = claims.get("sub_id")
        opaque = isinstance(sub_id, dict) and sub_id.get("format") == "opaque"
        ok = status in {"enabled", "paused", "disabled"} and opaque
        v.must(ok, "SSF-UPD-1", told=f"stream-updated has a status and names its stream: {event}")
    if not updates:
        v.skip("SSF-UPD-1", why="the transmitter changed no stream by itself during the run")
