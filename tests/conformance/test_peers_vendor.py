"""The vendor: what it signs, how patiently it pushes, and how it misbehaves on order."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jwcrypto.jwk import JWK
from starlette.responses import JSONResponse, Response

from conformance.peers.options import VendorOptions
from conformance.peers.outbox import DeliveryState, classify, retry_delay_s
from ssf.errors import SETError
from ssf.events.caep import CAEP_BASE
from ssf.events.registry import OKTA_BASE
from ssf.jose import CompactJWS, check_header, split_jws, verify
from ssf.jwks import JWKSet, parse_jwks
from ssf.secevent import Expectation, SecurityEventToken, parse_set
from ssf.subject import render_subject
from tests.conformance.conftest import Running, running
from tests.conformance.stand_in import StandIn, eventually

pytestmark = pytest.mark.scenario

USER = "tina@green.example"
DEVICE = "LT-0091-77"
AUDIENCE = "https://hub.example"
FAR_FUTURE_S = 4_000_000_000


@pytest.fixture(scope="module")
def vendor(hub: StandIn) -> Iterator[Running]:
    options = {
        "push_url": hub.push_url,
        "audience": AUDIENCE,
        "authorization": "Bearer push-secret",
        "retry_first_s": 0.01,
        "retry_ceiling_s": 0.02,
        "retry_after_ceiling_s": 0.01,
    }
    with running("vendor", "--config", json.dumps(options)) as peer:
        yield peer


def _emit(vendor: Running, shape: str, **order: object) -> dict[str, Any]:
    answer = vendor.post("/control/emit", {"shape": shape, **order})
    assert answer.status_code == 200, answer.text
    emitted: dict[str, Any] = answer.json()
    return emitted


def _keys(vendor: Running) -> JWKSet:
    return parse_jwks(vendor.http.get("/jwks.json").content)


def _verified(vendor: Running, raw: str) -> CompactJWS:
    jws = split_jws(raw.encode())
    check_header(jws.header)
    key = _keys(vendor).find(jws.header.kid, jws.header.alg)
    assert key is not None
    verify(jws, key)
    return jws


def _read(vendor: Running, raw: str) -> SecurityEventToken:
    jws = _verified(vendor, raw)
    expected = Expectation(
        issuer=vendor.urls["issuer"], audiences=frozenset({AUDIENCE}), legacy_subject=True
    )
    return parse_set(jws.payload, expected, FAR_FUTURE_S)


def test_metadata_names_issuer_and_keys(vendor: Running) -> None:
    metadata = vendor.http.get("/.well-known/ssf-configuration").json()
    assert metadata["issuer"] == vendor.urls["issuer"]
    assert metadata["jwks_uri"] == vendor.urls["jwks_uri"]


def test_the_published_key_is_rs256_of_2048_bits_without_private_members(vendor: Running) -> None:
    keys = vendor.http.get("/jwks.json").json()["keys"]
    assert len(keys) == 1
    assert keys[0]["alg"] == "RS256"
    assert keys[0]["use"] == "sig"
    assert not {"d", "p", "q"} & keys[0].keys()


def test_device_risk_change_carries_the_old_subject_inside_the_event(vendor: Running) -> None:
    emitted = _emit(
        vendor, "device-risk-change", user=USER, device=DEVICE, level="high", event_timestamp=1000
    )
    claims = json.loads(_verified(vendor, emitted["set"]).payload)
    assert "sub_id" not in claims
    event = claims["events"][OKTA_BASE + "device-risk-change"]
    assert event["subject"] == {
        "user": {"format": "email", "email": USER},
        "device": {"format": "opaque", "id": DEVICE},
    }
    assert (event["current_level"], event["previous_level"]) == ("high", "low")
    assert event["initiating_entity"] == "policy"
    assert event["reason_admin"]["en"]
    token = _read(vendor, emitted["set"])
    assert token.occurred_at_s == 1000
    assert render_subject(token.sub_id)["format"] == "complex"


def test_device_compliance_change_has_a_complex_sub_id(vendor: Running) -> None:
    emitted = _emit(vendor, "device-compliance-change", user=USER, device=DEVICE, txn="cause-1")
    claims = json.loads(_verified(vendor, emitted["set"]).payload)
    assert claims["sub_id"]["format"] == "complex"
    assert claims["txn"] == "cause-1"
    event = claims["events"][CAEP_BASE + "device-compliance-change"]
    assert (event["current_status"], event["previous_status"]) == ("not-compliant", "compliant")


@pytest.mark.parametrize(
    "shape",
    [
        "device-risk-change",
        "user-risk-change",
        "device-compliance-change",
        "risk-level-change",
        "session-revoked",
        "credential-compromise",
    ],
)
def test_every_shape_is_a_set_by_the_rules(vendor: Running, shape: str) -> None:
    emitted = _emit(vendor, shape, user=USER, jti=f"jti-{shape}")
    token = _read(vendor, emitted["set"])
    assert token.jti == emitted["jti"] == f"jti-{shape}"
    assert token.event_type.endswith(shape)


def test_a_push_has_the_headers_of_rfc_8935(vendor: Running, hub: StandIn) -> None:
    emitted = _emit(vendor, "session-revoked", user=USER)
    assert (emitted["state"], emitted["status"], emitted["attempts"]) == ("delivered", 202, 1)
    headers, body = hub.pushes[-1]
    assert headers["content-type"] == "application/secevent+jwt"
    assert headers["accept"] == "application/json"
    assert headers["authorization"] == "Bearer push-secret"
    assert body == emitted["set"]


def test_a_set_is_pushed_again_with_the_same_jti_until_it_is_taken(
    vendor: Running, hub: StandIn
) -> None:
    before = len(hub.pushes)
    hub.push_answers = [
        Response(status_code=503, headers={"retry-after": "30"}),
        Response(status_code=500),
        Response(status_code=429),
    ]
    emitted = _emit(vendor, "session-revoked", user=USER)
    assert (emitted["state"], emitted["attempts"]) == ("delivered", 4)
    assert {body for _, body in hub.pushes[before:]} == {emitted["set"]}
    statuses = [e["status"] for e in vendor.ledger(what="push.", request_id=emitted["jti"])]
    assert statuses == [503, 500, 429, 202]


def test_a_refused_set_is_not_pushed_again(vendor: Running, hub: StandIn) -> None:
    hub.push_answers = [JSONResponse({"err": "invalid_key", "description": "no"}, 400)]
    emitted = _emit(vendor, "session-revoked", user=USER)
    assert (emitted["state"], emitted["status"], emitted["attempts"]) == ("refused", 400, 1)
    assert "invalid_key" in emitted["answer"]


def test_an_unreachable_hub_is_tried_until_the_attempts_are_used_up(vendor: Running) -> None:
    emitted = _emit(
        vendor, "session-revoked", user=USER, push_url="http://127.0.0.1:1/x", attempts_max=3
    )
    assert (emitted["state"], emitted["status"], emitted["attempts"]) == ("gave_up", 0, 3)


def test_sets_about_one_subject_are_delivered_in_order(vendor: Running, hub: StandIn) -> None:
    before = len(hub.pushes)
    hub.push_answers = [Response(status_code=503)] * 3
    for number in range(3):
        _emit(vendor, "session-revoked", user="order@x.example", jti=f"order-{number}", wait=False)
    assert eventually(lambda: len(vendor.ledger(what="set.delivered", request_id="order-2")) == 1)
    sent = [json.loads(split_jws(body.encode()).payload)["jti"] for _, body in hub.pushes[before:]]
    assert sent == ["order-0"] * 4 + ["order-1", "order-2"]


def test_what_is_pending_can_be_given_up(vendor: Running) -> None:
    emitted = _emit(
        vendor, "session-revoked", user=USER, push_url="http://127.0.0.1:1/x", wait=False
    )
    assert emitted["state"] == "pending"
    assert vendor.post("/control/give-up").json() == {"gave_up": 1}
    states = {each["jti"]: each["state"] for each in vendor.http.get("/outbox").json()}
    assert states[emitted["jti"]] == "gave_up"


def test_a_set_can_be_built_without_sending_it(vendor: Running, hub: StandIn) -> None:
    before = len(hub.pushes)
    emitted = _emit(vendor, "session-revoked", user=USER, deliver=False)
    assert emitted["state"] == "not_sent"
    assert _read(vendor, emitted["set"]).jti == emitted["jti"]
    assert len(hub.pushes) == before


def test_claims_and_header_can_be_bent(vendor: Running) -> None:
    bent = _emit(
        vendor,
        "session-revoked",
        user=USER,
        claims={"exp": 1, "aud": None},
        header={"typ": "JWT", "kid": None},
        deliver=False,
    )
    jws = split_jws(bent["set"].encode())
    claims = json.loads(jws.payload)
    assert claims["exp"] == 1
    assert "aud" not in claims
    assert (jws.header.typ, jws.header.kid) == ("JWT", None)
    key = _keys(vendor).keys[0]
    verify(jws, key)


def test_raw_signs_any_text(vendor: Running) -> None:
    text = '{"iss":"a","iss":"b"}'
    emitted = _emit(vendor, "raw", payload_text=text, deliver=False)
    payload = emitted["set"].split(".")[1]
    assert base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode() == text


def test_attackers_keys_are_at_hand(vendor: Running) -> None:
    foreign = split_jws(
        _emit(vendor, "session-revoked", key="foreign", deliver=False)["set"].encode()
    )
    key = _keys(vendor).keys[0]
    assert foreign.header.kid == key.kid
    with pytest.raises(SETError):
        verify(foreign, key)
    unsigned = _emit(vendor, "session-revoked", key="none", deliver=False)["set"]
    assert unsigned.endswith(".")
    confused = _emit(vendor, "session-revoked", key="public_as_hmac", deliver=False)["set"]
    jws = split_jws(confused.encode())
    pem = JWK(**vendor.http.get("/jwks.json").json()["keys"][0]).export_to_pem()
    assert jws.header.alg == "HS256"
    assert jws.signature == hmac.digest(pem, jws.signing_input, "sha256")


def test_any_body_can_be_sent(vendor: Running, hub: StandIn) -> None:
    emitted = _emit(vendor, "raw", body="{", content_type="application/json", authorization=None)
    headers, body = hub.pushes[-1]
    assert emitted["state"] == "delivered"
    assert body == "{"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    "order",
    [
        {"shape": "nothing"},
        {"shape": "raw", "unknown": 1},
        {"shape": "raw", "body_base64": "%"},
        {"user": USER},
    ],
)
def test_a_broken_order_is_refused(vendor: Running, order: dict[str, object]) -> None:
    assert vendor.post("/control/emit", order).status_code == 400


def test_the_keys_can_be_out_of_order_and_back(vendor: Running) -> None:
    own = vendor.http.get("/jwks.json").json()
    vendor.post("/control/jwks", {"mode": "error", "status": 502})
    assert vendor.http.get("/jwks.json").status_code == 502
    vendor.post("/control/jwks", {"mode": "unknown_kid"})
    assert vendor.http.get("/jwks.json").json()["keys"][0]["kid"] == "unrelated"
    vendor.post("/control/jwks", {"mode": "hang", "for_s": 0.2, "status": 504})
    assert vendor.http.get("/jwks.json").status_code == 504
    vendor.post("/control/jwks", {"mode": "ok"})
    assert vendor.http.get("/jwks.json").json() == own


def test_a_rotated_key_signs_and_the_old_one_stays_published(hub: StandIn) -> None:
    with running("vendor", "--push-url", hub.push_url, "--audience", AUDIENCE) as own:
        before = _emit(own, "session-revoked", user=USER)["set"]
        kid = own.post("/control/rotate", {"kid": "second"}).json()["kid"]
        after = _emit(own, "session-revoked", user=USER)["set"]
        assert _verified(own, before).header.kid != kid
        assert _verified(own, after).header.kid == kid == "second"
        own.post("/control/rotate", {"keep_old": False})
        assert len(own.http.get("/jwks.json").json()["keys"]) == 1


def test_every_status_has_one_meaning() -> None:
    assert {status for status in range(1, 600) if classify(status) is DeliveryState.DELIVERED} == {
        200,
        202,
        204,
    }
    again = {status for status in range(600) if classify(status) is None}
    assert again == {0, 408, 425, 429, *range(500, 600)}


def test_the_wait_grows_to_its_ceiling_and_obeys_the_hub_within_reason() -> None:
    options = VendorOptions(retry_first_s=1, retry_ceiling_s=3, retry_after_ceiling_s=5)
    assert [retry_delay_s(n, None, options) for n in (1, 2, 3, 1000)] == [1, 2, 3, 3]
    assert retry_delay_s(1, 4.0, options) == 4
    assert retry_delay_s(1, 60.0, options) == 5
