"""One SET through the verification order of standards §1.4, on both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from jwcrypto.jwk import JWK

from receivers.model import (
    AcceptOutcome,
    ProviderMode,
    ProviderStatus,
    SignalState,
    SubjectScope,
)
from receivers.service import accept
from runtime.clock import from_epoch_s
from runtime.errors import Overloaded, TimedOut, Unavailable
from runtime.notify import Notifier
from runtime.writer import LocalWriter
from ssf.errors import SETError
from tests.receivers import vendor
from tests.receivers.bad_sets import bad_sets
from tests.receivers.conftest import Intake, on_one_engine
from tests.receivers.vendor import JWKSHost, claims, sign


@pytest.mark.requirement("SET-65", "PUSH-11", "PUSH-19")
async def test_a_good_set_is_stored_with_its_original_before_accept_returns(
    intake: Intake, rsa: JWK
) -> None:
    provider = await intake.profile()
    raw = sign(claims(), rsa)

    assert await intake.accept(raw, provider) is AcceptOutcome.STORED

    (signal,) = await intake.stored()
    assert signal.raw.encode() == raw
    assert (signal.iss, signal.jti, signal.txn) == (vendor.ISSUER, "jti-1", "txn-1")
    assert signal.event_type == vendor.DEVICE_COMPLIANCE_CHANGE
    assert signal.sub_id["user"] == {"format": "email", "email": "rosa.lind@green.example"}
    assert signal.payload["current_status"] == "not-compliant"
    assert (signal.state, signal.mode) == (SignalState.RECEIVED, ProviderMode.ENFORCE)
    assert signal.occurred_at == from_epoch_s(vendor.NOW_S - 10)
    assert signal.received_at == intake.clock.now()


@on_one_engine
async def test_an_es256_set_is_verified_with_the_key_its_kid_names(intake: Intake, ec: JWK) -> None:
    provider = await intake.profile()

    assert await intake.accept(sign(claims(), ec), provider) is AcceptOutcome.STORED


@on_one_engine
async def test_inline_keys_need_no_fetch(intake: Intake, rsa: JWK, jwks_host: JWKSHost) -> None:
    provider = await intake.profile(jwks_uri=None, jwks=vendor.jwks(rsa))

    assert await intake.accept(sign(claims(), rsa), provider) is AcceptOutcome.STORED
    assert jwks_host.requests == []


@pytest.mark.requirement("SET-6", "SET-61", "PUSH-10")
async def test_a_replay_is_a_duplicate_and_stores_nothing_again(intake: Intake, rsa: JWK) -> None:
    provider = await intake.profile()
    raw = sign(claims(), rsa)
    await intake.accept(raw, provider)

    assert await intake.accept(raw, provider) is AcceptOutcome.DUPLICATE
    assert len(await intake.stored()) == 1


async def test_of_simultaneous_copies_exactly_one_is_stored(intake: Intake, rsa: JWK) -> None:
    provider = await intake.profile()
    raw = sign(claims(), rsa)

    outcomes = await asyncio.gather(*(intake.accept(raw, provider) for _ in range(20)))

    assert sorted(outcomes) == [AcceptOutcome.DUPLICATE] * 19 + [AcceptOutcome.STORED]
    assert len(await intake.stored()) == 1


async def test_the_same_jti_in_another_tenant_is_another_set(intake: Intake, rsa: JWK) -> None:
    here = await intake.profile()
    there = await intake.profile(tenant_id="blue")
    raw = sign(claims(), rsa)

    assert await intake.accept(raw, here) is AcceptOutcome.STORED
    assert await intake.accept(raw, there) is AcceptOutcome.STORED
    assert len(await intake.stored("blue")) == 1


@pytest.mark.requirement(
    "SET-31", "SET-33", "SET-37", "SET-43", "SET-51", "SET-52", "SET-53", "SET-55", "SET-56",
    "SET-57", "SET-58", "SET-59", "SET-63", "EGW-46",
)  # fmt: skip
async def test_every_class_of_bad_set_gets_its_code_and_stores_nothing(
    intake: Intake, rsa: JWK, next_rsa: JWK
) -> None:
    provider = await intake.profile()
    cases = bad_sets(rsa, next_rsa)
    answers: dict[str, str] = {}
    for name, (raw, _) in cases.items():
        with pytest.raises(SETError) as refused:
            await intake.accept(raw, provider)
        answers[name] = refused.value.code

    assert answers == {name: code for name, (_, code) in cases.items()}
    assert await intake.stored() == []


@pytest.mark.requirement("SET-53", "SET-54", "SET-55")
@on_one_engine
async def test_of_several_faults_the_first_in_the_order_counts(
    intake: Intake, rsa: JWK, next_rsa: JWK
) -> None:
    provider = await intake.profile()
    forged = sign(claims(iss="https://e.example", aud=None), next_rsa)
    known_kid = sign(claims(aud=None, iat=None), next_rsa, header={"kid": "rsa-1"})
    undated = sign(claims(aud=None, iat=None), rsa)

    codes = []
    for raw in (forged, known_kid, undated):
        with pytest.raises(SETError) as refused:
            await intake.accept(raw, provider)
        codes.append((refused.value.code, refused.value.requirement))

    assert codes == [
        ("invalid_issuer", "SET-53"),
        ("authentication_failed", "SET-55"),
        ("invalid_request", "SET-56"),
    ]


@pytest.mark.requirement("SET-31", "SET-10", "SUB-25")
@on_one_engine
async def test_a_legacy_feed_may_lack_typ_and_carry_its_subject_inside_the_event(
    intake: Intake, rsa: JWK
) -> None:
    provider = await intake.profile(allow_missing_typ=True, legacy_subject=True)
    event = {
        "subject": {"user": {"format": "email", "email": "rosa.lind@green.example"}},
        "previous_level": "low",
        "current_level": "high",
    }
    uri = "https://schemas.okta.com/secevent/okta/event-type/device-risk-change"
    raw = sign(claims(sub_id=None, events={uri: event}), rsa, header={"typ": None})

    assert await intake.accept(raw, provider) is AcceptOutcome.STORED
    (signal,) = await intake.stored()
    assert signal.sub_id == {
        "format": "complex",
        "user": {"format": "email", "email": "rosa.lind@green.example"},
    }


@pytest.mark.requirement("SET-57", "SET-13")
@on_one_engine
async def test_one_of_several_audiences_is_enough(intake: Intake, rsa: JWK) -> None:
    provider = await intake.profile()

    outcome = await intake.accept(sign(claims(aud=["x", vendor.AUDIENCE]), rsa), provider)

    assert outcome is AcceptOutcome.STORED


@pytest.mark.requirement("SET-59", "SUB-13", "SET-63")
async def test_unknown_formats_and_event_types_are_accepted_as_they_came(
    intake: Intake, rsa: JWK
) -> None:
    provider = await intake.profile()
    subject = {"format": "catalog_item", "catalog_id": "c1/235"}
    # 2**70 fits no machine integer: it must survive the trip to the writer too.
    event = {"https://vendor.example/events/odd": {"count": 2**70, "nested": [{"a": None}]}}

    await intake.accept(sign(claims(sub_id=subject, events=event), rsa), provider)

    (signal,) = await intake.stored()
    assert signal.sub_id == subject
    assert signal.payload == {"count": 2**70, "nested": [{"a": None}]}
    assert signal.state is SignalState.RECEIVED


@pytest.mark.requirement("SET-18")
@on_one_engine
async def test_an_event_time_in_the_future_is_taken_for_now(intake: Intake, rsa: JWK) -> None:
    """A provider that dates its word decades ahead would otherwise never be contradicted."""
    provider = await intake.profile()
    event = {
        "previous_status": "compliant",
        "current_status": "not-compliant",
        "event_timestamp": vendor.NOW_S + 10**9,
    }

    await intake.accept(
        sign(claims(events={vendor.DEVICE_COMPLIANCE_CHANGE: event}), rsa), provider
    )

    (signal,) = await intake.stored()
    assert signal.occurred_at == intake.clock.now() + timedelta(seconds=300)


@pytest.mark.requirement("SET-60", "SUB-33")
@on_one_engine
async def test_an_event_with_an_unknown_critical_member_is_acknowledged_and_discarded(
    intake: Intake, rsa: JWK
) -> None:
    provider = await intake.profile(critical_subject_members=frozenset({"vault"}))
    subject = {"format": "complex", "vault": {"format": "opaque", "id": "v1"}}

    assert await intake.accept(sign(claims(sub_id=subject), rsa), provider) is AcceptOutcome.STORED
    (signal,) = await intake.stored()
    assert signal.state is SignalState.IGNORED


@pytest.mark.requirement("SSF-VER-10", "EGW-25", "EGW-26")
@on_one_engine
async def test_a_verification_event_passes_every_filter_and_is_only_recorded(
    intake: Intake, rsa: JWK
) -> None:
    provider = await intake.profile(
        event_types=frozenset({vendor.DEVICE_COMPLIANCE_CHANGE}),
        subject_scope=SubjectScope(domains=frozenset({"green.example"})),
    )
    stream = {"format": "opaque", "id": "str-1"}
    payloads: list[dict[str, str]] = [{}, {"state": "VGhpcyBpcyBhbiBleGFtcGxl"}]

    for number, payload in enumerate(payloads):
        events = {vendor.VERIFICATION: payload}
        raw = sign(claims(jti=f"jti-{number}", sub_id=stream, events=events), rsa)
        assert await intake.accept(raw, provider) is AcceptOutcome.STORED

    recorded = await intake.stored()
    assert [signal.payload for signal in reversed(recorded)] == payloads
    assert {signal.state for signal in recorded} == {SignalState.IGNORED}


@pytest.mark.requirement("SET-64")
@on_one_engine
async def test_an_event_type_that_was_not_agreed_is_denied(intake: Intake, rsa: JWK) -> None:
    provider = await intake.profile(event_types=frozenset({"https://vendor.example/other"}))

    with pytest.raises(SETError) as refused:
        await intake.accept(sign(claims(), rsa), provider)

    assert refused.value.code == "access_denied"
    assert await intake.stored() == []


@pytest.mark.requirement("SET-64")
@on_one_engine
async def test_a_subject_outside_the_scope_is_denied(intake: Intake, rsa: JWK) -> None:
    provider = await intake.profile(subject_scope=SubjectScope(domains=frozenset({"blue.example"})))

    with pytest.raises(SETError) as refused:
        await intake.accept(sign(claims(), rsa), provider)

    assert (refused.value.code, refused.value.requirement) == ("access_denied", "SET-64")
    assert await intake.stored() == []


@on_one_engine
async def test_the_providers_mode_and_status_decide_what_its_word_leads_to(
    intake: Intake, rsa: JWK
) -> None:
    active, quarantined = ProviderStatus.ACTIVE, ProviderStatus.QUARANTINED
    expected = {
        (ProviderMode.ENFORCE, active): (ProviderMode.ENFORCE, SignalState.RECEIVED),
        (ProviderMode.LOG_ONLY, active): (ProviderMode.LOG_ONLY, SignalState.RECEIVED),
        (ProviderMode.NONE, active): (ProviderMode.NONE, SignalState.IGNORED),
        (ProviderMode.ENFORCE, quarantined): (ProviderMode.LOG_ONLY, SignalState.RECEIVED),
        (ProviderMode.NONE, quarantined): (ProviderMode.NONE, SignalState.IGNORED),
    }
    seen = {}
    for number, (mode, status) in enumerate(expected):
        provider = await intake.profile(name=f"mdm-{number}", mode=mode, status=status)
        raw = sign(claims(jti=f"jti-{number}"), rsa)
        assert await intake.accept(raw, provider) is AcceptOutcome.STORED
        newest = (await intake.stored())[0]
        seen[mode, status] = (newest.mode, newest.state)

    assert seen == expected


@pytest.mark.requirement("PUSH-35")
@on_one_engine
async def test_an_inactive_provider_is_denied_without_any_work(
    intake: Intake, rsa: JWK, jwks_host: JWKSHost
) -> None:
    provider = await intake.profile(status=ProviderStatus.INACTIVE)

    with pytest.raises(SETError) as refused:
        await intake.accept(sign(claims(), rsa), provider)

    assert (refused.value.code, refused.value.status_hint) == ("access_denied", 400)
    assert jwks_host.requests == []
    assert await intake.stored() == []


@pytest.mark.requirement("SET-54")
async def test_unreachable_keys_leave_the_set_undecided_and_nothing_is_lost(
    intake: Intake, rsa: JWK, jwks_host: JWKSHost
) -> None:
    provider = await intake.profile()
    raw = sign(claims(), rsa)
    jwks_host.failure = TimedOut("no answer")

    with pytest.raises(Unavailable) as undecided:
        await intake.accept(raw, provider)
    assert await intake.stored() == []

    jwks_host.failure = None
    intake.clock.advance(undecided.value.retry_after_s)
    assert await intake.accept(raw, provider) is AcceptOutcome.STORED


@on_one_engine
async def test_a_full_write_queue_is_undecided(intake: Intake, rsa: JWK) -> None:
    provider = await intake.profile()
    full = LocalWriter(intake.database, Notifier(), queue_items_max=0)

    with pytest.raises(Overloaded):
        await accept(
            sign(claims(), rsa),
            provider=provider,
            now=intake.clock.now(),
            keys=intake.deps.keys,
            writer=full,
        )
    assert await intake.stored() == []
