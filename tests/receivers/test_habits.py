"""What the conformance suite and vendors in the field send: taken as it is, whatever it means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from receivers.model import SubjectScope
from receivers.registry import service as registry
from receivers.upstreams.model import Action, Auth, OrderState
from runtime.errors import Invalid
from ssf.stream import DeliveryMethod
from ssf.stream_answers import parse_configuration, parse_configurations
from tests.receivers import vendor
from tests.receivers.conftest import Intake, on_one_engine
from tests.receivers.transmitter import STREAM_ID, Transmitter, answer
from tests.receivers.upstream_kit import Dealings

VECTORS = Path(__file__).parents[2] / "conformance/vectors"
SSF_EVENT = "https://schemas.openid.net/secevent/ssf/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
#: what the suite uses as subject of every event, whatever its type (CRC-10)
VALID = {"format": "opaque", "id": "valid"}


@pytest.fixture
async def dealings(intake: Intake, rsa: JWK, ec: JWK) -> Dealings:
    return Dealings.begin(intake, Transmitter((rsa, ec)))


def events_of(*names: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in names:
        value = json.loads((VECTORS / f"{name}.json").read_text())["value"]
        found += value if isinstance(value, list) else [value["events"]]
    return found


@pytest.mark.requirement(
    "CR-6", "CR-7", "CR-21", "CR-22", "CRC-10", "CRC-12", "INT-13", "SSF-SUBJ-10", "SSF-SUBJ-12",
    "POLL-16", "SET-20", "EGW-36")  # fmt: skip
async def test_every_event_type_is_acked_whoever_it_is_about(dealings: Dealings, rsa: JWK) -> None:
    events = [
        *events_of("ex23-session-revoked-set", "ex24-caep-events", "ex25-risc-events"),
        {SSF_EVENT + "verification": {}},
        {SSF_EVENT + "stream-updated": {}},
        {"https://vendor.example/its-own": {"anything": [1, {"at": "all"}]}},
    ]
    types = {next(iter(event)) for event in events}
    assert len(types) >= 8 + 14 + 3
    await dealings.add_polled()
    for number, event in enumerate(events):
        # No txn, as the suite (CRC-9), and times in milliseconds (CR-20).
        ((uri, payload),) = event.items()
        late = {**payload, "event_timestamp": 1_774_000_000_000} if payload else payload
        claims = vendor.claims(jti=f"j-{number}", sub_id=VALID, txn=None, events={uri: late})
        dealings.outside.waiting[f"j-{number}"] = vendor.sign(claims, rsa).decode()
    await dealings.turn()
    await dealings.turn()

    assert dealings.outside.refused == {}
    assert len(dealings.outside.acked) == len(events)
    assert {signal.event_type for signal in await dealings.intake.stored()} == types


@on_one_engine
@pytest.mark.requirement("INT-41", "CAEP-11")
@pytest.mark.parametrize("change", ["create", "revoke", "update", "delete", "something-new"])
async def test_every_change_of_every_credential_is_taken(
    dealings: Dealings, rsa: JWK, change: str
) -> None:
    await dealings.add_polled()
    kinds = [
        "password",
        "pin",
        "x509",
        "fido2-platform",
        "fido2-roaming",
        "fido-u2f",
        "verifiable-credential",
        "phone-voice",
        "phone-sms",
        "app",
        "something-new",
    ]
    for kind in kinds:
        event = {
            "https://schemas.openid.net/secevent/caep/event-type/credential-change": {
                "credential_type": kind,
                "change_type": change,
                # Drafts had a text here (OLD-5).
                "reason_admin": "in one language",
            }
        }
        claims = vendor.claims(jti=kind, sub_id=VALID, events=event)
        dealings.outside.waiting[kind] = vendor.sign(claims, rsa).decode()
    await dealings.turn()
    await dealings.turn()

    assert sorted(dealings.outside.acked) == sorted(kinds)


@pytest.mark.requirement("OLD-3", "OLD-5", "SUB-25", "RISC-25", "SET-10", "SET-31")
@pytest.mark.parametrize(
    "subject",
    [
        {
            "subject_type": "iss-sub",
            "iss": "https://accounts.google.com/",
            "sub": "7375626A656374",
        },
        {"subject_type": "email", "email": "rosa.lind@green.example"},
        {"format": "iss_sub", "iss": "https://accounts.google.com/", "sub": "7375626A656374"},
        {"subject_type": "phone", "phone": "+1 206 555 0123"},
    ],
)
async def test_googles_risc_events_are_read_in_the_old_and_in_a_corrected_form(
    intake: Intake, rsa: JWK, subject: dict[str, str]
) -> None:
    """Reconstructed from developers.google.com/identity/protocols/risc, read 2026-03.

    The subject is inside the event, `typ` is missing, `aud` is our OAuth client at Google.
    """
    provider = await intake.profile(
        issuer="https://accounts.google.com",
        audiences=("123.apps.googleusercontent.com",),
        legacy_subject=True,
        allow_missing_typ=True,
    )
    claims = vendor.claims(
        iss="https://accounts.google.com",
        aud="123.apps.googleusercontent.com",
        sub_id=None,
        txn=None,
        events={RISC + "account-disabled": {"subject": subject, "reason": "hijacking"}},
    )
    outcome = await intake.accept(vendor.sign(claims, rsa, header={"typ": None}), provider)

    assert outcome.value == "stored"
    (signal,) = await intake.stored()
    assert signal.sub_id["format"] in {"iss_sub", "email", "phone_number"}
    assert "subject_type" not in signal.sub_id


@on_one_engine
@pytest.mark.requirement("OLD-1", "SSF-META-1", "CRC-2")
async def test_metadata_of_the_first_draft_is_enough(dealings: Dealings) -> None:
    await dealings.add(metadata_url=f"{vendor.ISSUER}/.well-known/sse-configuration")
    dealings.outside.fail(
        "GET /.well-known/sse-configuration",
        lambda: answer(200, {"issuer": vendor.ISSUER, "delivery_methods_supported": []}),
    )
    found = await dealings.order(Action.DISCOVER)

    assert found.order is not None
    assert found.order.state is OrderState.DONE
    assert found.metadata == {"issuer": vendor.ISSUER, "spec_version": "1_0-ID1"}
    # What it does not offer fails when it is asked for, and only then.
    made = await dealings.order(Action.CREATE)
    assert made.order is not None
    assert made.order.detail == "the upstream's metadata has no configuration_endpoint"


@pytest.mark.requirement("OLD-2", "OLD-10", "CRC-2")
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("https://schemas.openid.net/secevent/risc/delivery-method/push", DeliveryMethod.PUSH),
        ("https://schemas.openid.net/secevent/risc/delivery-method/poll", DeliveryMethod.POLL),
        ("urn:ietf:rfc:8936", DeliveryMethod.POLL),
        ("urn:example:carrier-pigeon", None),
    ],
)
def test_old_names_of_delivery_methods_are_read(
    method: str, expected: DeliveryMethod | None
) -> None:
    body = {
        "stream_id": STREAM_ID,
        "iss": vendor.ISSUER,
        "aud": ["a", "b"],
        "delivery": {"delivery_method": method, "url": "https://x.example/e"},
    }
    told = parse_configuration(json.dumps(body).encode(), vendor.ISSUER)

    assert told.method is expected
    assert told.aud == ("a", "b")
    assert told.events_delivered == ()


@pytest.mark.requirement("SSF-OP-11", "SSF-OP-50")
def test_a_list_may_be_one_object_and_holds_only_streams_of_the_issuer() -> None:
    mine = {"stream_id": "a", "iss": vendor.ISSUER}
    other = {"stream_id": "b", "iss": "https://evil.example"}
    for body in (mine, [mine, other]):
        found = parse_configurations(json.dumps(body).encode(), vendor.ISSUER)
        assert [stream.stream_id for stream in found] == ["a"]
    assert parse_configurations(b"", vendor.ISSUER) == ()


async def test_profiles_know_their_upstream(dealings: Dealings) -> None:
    upstream = await dealings.add_polled()
    profiles = await registry.load_profiles(
        dealings.intake.database, dealings.intake.admin.secrets, upstream.tenant_id
    )
    assert profiles[upstream.provider_id].upstream_id == upstream.upstream_id


@on_one_engine
@pytest.mark.requirement("SSF-SEC-5", "SET-64")
async def test_an_upstream_speaks_only_about_the_subjects_it_was_given(
    dealings: Dealings, rsa: JWK
) -> None:
    upstream = await dealings.add_polled()
    intake = dealings.intake
    provider = await registry.get_provider(intake.admin, "default", upstream.provider_id)
    scope = SubjectScope(domains=frozenset({"green.example"}))
    await registry.update_provider(
        intake.admin,
        replace(provider.settings, subject_scope=scope),
        tenant_id="default",
        provider_id=upstream.provider_id,
    )
    for jti, email in (("ours", "a@green.example"), ("theirs", "a@blue.example")):
        subject = {"format": "email", "email": email}
        claims = vendor.claims(jti=jti, sub_id=subject)
        dealings.outside.waiting[jti] = vendor.sign(claims, rsa).decode()
    await dealings.turn()
    await dealings.turn()

    assert dealings.outside.acked == ["ours"]
    assert dealings.outside.refused["theirs"]["err"] == "access_denied"


@on_one_engine
@pytest.mark.requirement("SUB-21", "SUB-22", "PUSH-9")
async def test_a_member_names_one_principal_of_any_issuer_and_waits_to_be_assessed(
    dealings: Dealings, rsa: JWK
) -> None:
    await dealings.add_polled()
    foreign = {"format": "iss_sub", "iss": "https://login.example", "sub": "7"}
    two = {"format": "complex", "user": [foreign, {**foreign, "sub": "8"}]}
    for jti, changes in (
        ("foreign", {"sub_id": foreign}),
        ("two", {"sub_id": two}),
        ("sub", {"sub_id": foreign, "sub": "7"}),
    ):
        claims = vendor.claims(jti=jti, **changes)
        dealings.outside.waiting[jti] = vendor.sign(claims, rsa).decode()
    await dealings.turn()
    await dealings.turn()

    assert dealings.outside.acked == ["foreign"]
    assert dealings.outside.refused.keys() == {"two", "sub"}
    (signal,) = await dealings.intake.stored()
    assert signal.state.value == "received"


@on_one_engine
@pytest.mark.requirement("POLL-21", "SSF-META-24", "SSF-DEL-6")
@pytest.mark.parametrize("member", ["endpoint_url", "metadata_url", "token_endpoint"])
@pytest.mark.parametrize(
    "url",
    [
        "http://mdm.vendor.example/x",
        "ftp://mdm.vendor.example/x",
        "https://user@mdm.vendor.example/x",
        "https://mdm.vendor.example/x#y",
        "https://mdm.vendor.example\\@evil.example/",
        "https:///x",
        "https://mdm.vendor.example:0/x",
        "x",
    ],
)
async def test_an_address_that_is_no_plain_https_url_is_refused(
    dealings: Dealings, member: str, url: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await dealings.add(**{member: url})

    assert [pointer for pointer, _ in refusal.value.pointers] == [f"/{member}"]


@on_one_engine
@pytest.mark.parametrize(
    ("wrong", "secret", "pointer"),
    [
        ({"auth": Auth.HEADER}, None, "/secret"),
        ({"auth": Auth.HEADER}, "Bearer x\r\nX-Evil: 1", "/secret"),
        ({"auth": Auth.BASIC}, "s", "/client_id"),
        ({"auth": Auth.BASIC, "client_id": "a\nb"}, "s", "/client_id"),
        ({"auth": Auth.POST, "client_id": "a", "scope": "\u00fc"}, "s", "/scope"),
        ({"verify_every_s": 1}, None, "/verify_every_s"),
        ({"verify_every_s": 10**9}, None, "/verify_every_s"),
        ({"events_requested": ("a b",)}, None, "/events_requested"),
        ({"events_requested": tuple(map(str, range(1_000)))}, None, "/events_requested"),
        ({"description": ""}, None, "/description"),
        ({"name": "\u0000"}, None, "/name"),
    ],
)
async def test_settings_that_could_not_work_are_refused(
    dealings: Dealings, wrong: dict[str, Any], secret: str | None, pointer: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await dealings.add(secret=secret, **wrong)

    assert pointer in [place for place, _ in refusal.value.pointers]
