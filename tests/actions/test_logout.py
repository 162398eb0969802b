"""Global Token Revocation and Back-Channel Logout: what is sent, what an answer means."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from actions import backchannel, gtr, logout
from actions.logout import LogoutMessage
from actions.model import LogoutMethod, Proof
from actions.outcomes import OutcomeClass
from runtime.outbound import OutboundRequest
from ssf.jose import SigningKey, signing_key
from tests.actions.kit import EMAIL, ISS_SUB

CALLED = st.sampled_from([LogoutMethod.GTR, LogoutMethod.BCL])


@pytest.fixture(scope="module")
def jwk() -> JWK:
    return JWK.generate(kty="RSA", size=2048, kid="hub-gtr-1", use="sig", alg="RS256")


@pytest.fixture(scope="module")
def key(jwk: JWK) -> SigningKey:
    return signing_key(jwk.export(private_key=True, as_dict=True))


def message(**changes: Any) -> LogoutMessage:
    members: dict[str, Any] = {
        "endpoint_url": "https://payroll.green.example/global-token-revocation",
        "issuer": "https://hub.acme-signals.example/t/blue",
        "client_id": "payroll-app",
        "subject": ISS_SUB,
        "jti": "c0f7b0a1",
        "issued_at_s": 1_774_000_600,
    }
    return LogoutMessage(**{**members, **changes})


def token_of(request: OutboundRequest) -> str:
    if "authorization" in request.headers:
        return request.headers["authorization"].removeprefix("Bearer ")
    return parse_qs(request.body.decode())["logout_token"][0]


def opened(request: OutboundRequest, jwk: JWK) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, verified by another JOSE implementation than the one that signed."""
    raw = token_of(request)
    JWT(jwt=raw, key=JWK(**jwk.export_public(as_dict=True)), check_claims={}, algs=["RS256"])
    parts = [part + "=" * (-len(part) % 4) for part in raw.split(".")[:2]]
    header, claims = (json.loads(base64.urlsafe_b64decode(part)) for part in parts)
    return header, claims


@pytest.mark.requirement("GTR-1", "GTR-2", "GTR-3", "GTR-20")
def test_a_revocation_request_is_a_json_post_with_the_subject_and_a_signed_bearer_token(
    key: SigningKey, jwk: JWK
) -> None:
    request = logout.build_request(LogoutMethod.GTR, message(), key=key)

    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {"sub_id": ISS_SUB}
    header, _ = opened(request, jwk)
    assert header == {"alg": "RS256", "typ": "global-token-revocation+jwt", "kid": "hub-gtr-1"}


@pytest.mark.requirement("GTR-21", "GTR-23", "EGW-48")
def test_the_revocation_token_names_the_endpoint_and_us_but_never_the_user(
    key: SigningKey, jwk: JWK
) -> None:
    _, claims = opened(gtr.build_request(message(), key), jwk)

    assert claims == {
        "iss": "https://hub.acme-signals.example/t/blue",
        "sub": "payroll-app",
        "aud": "https://payroll.green.example/global-token-revocation",
        "jti": "c0f7b0a1",
        "iat": 1_774_000_600,
        "nbf": 1_774_000_300,
        "exp": 1_774_000_900,
    }


@pytest.mark.requirement("BCL-3", "BCL-4", "BCL-5", "BCL-6", "BCL-7", "BCL-8", "BCL-12")
def test_a_logout_token_is_a_form_post_for_all_sessions_of_the_user(
    key: SigningKey, jwk: JWK
) -> None:
    request = logout.build_request(LogoutMethod.BCL, message(client_id="client-7781"), key=key)

    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    header, claims = opened(request, jwk)
    assert header["typ"] == "logout+jwt"
    assert claims == {
        "iss": "https://hub.acme-signals.example/t/blue",
        "aud": "client-7781",
        "sub": "u-20417",
        "iat": 1_774_000_600,
        "exp": 1_774_000_720,
        "jti": "c0f7b0a1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    }


def test_a_logout_token_can_name_the_user_by_mail_address() -> None:
    assert backchannel.render_claims(message(subject=EMAIL))["sub"] == EMAIL["email"]


def test_a_subject_without_a_single_value_makes_no_logout_token() -> None:
    with pytest.raises(ValueError, match="no value"):
        backchannel.render_claims(message(subject={"format": "aliases", "identifiers": []}))


def test_session_revoked_is_published_and_never_called(key: SigningKey) -> None:
    with pytest.raises(ValueError, match="stream"):
        logout.build_request(LogoutMethod.SSF, message(), key=key)


@pytest.mark.requirement("GTR-7", "GTR-8", "GTR-12", "EGW-47")
@pytest.mark.parametrize(
    ("status", "klass", "proof"),
    [
        (200, OutcomeClass.DONE, Proof.ACCEPTED),
        (202, OutcomeClass.DONE, Proof.ACCEPTED),
        (204, OutcomeClass.DONE, Proof.ACCEPTED),
        (301, OutcomeClass.PERMANENT, Proof.NOTHING),
        (400, OutcomeClass.NEXT_FORMAT, Proof.NOTHING),
        (401, OutcomeClass.CREDENTIALS, Proof.NOTHING),
        (403, OutcomeClass.CREDENTIALS, Proof.NOTHING),
        (404, OutcomeClass.DONE, Proof.EFFECTIVE),
        (409, OutcomeClass.PERMANENT, Proof.NOTHING),
        (422, OutcomeClass.NEXT_FORMAT, Proof.NOTHING),
        (429, OutcomeClass.TRANSIENT, Proof.NOTHING),
        (500, OutcomeClass.TRANSIENT, Proof.NOTHING),
        (503, OutcomeClass.TRANSIENT, Proof.NOTHING),
        (0, OutcomeClass.TRANSIENT, Proof.NOTHING),
    ],
)
def test_each_answer_to_a_revocation_has_one_meaning(
    status: int, klass: OutcomeClass, proof: Proof
) -> None:
    outcome = gtr.classify_answer(status, 7.0)

    assert (outcome.klass, outcome.proves) == (klass, proof)
    assert outcome.status == status


@pytest.mark.requirement("BCL-11")
@pytest.mark.parametrize(
    ("status", "klass"),
    [
        (200, OutcomeClass.DONE),
        (204, OutcomeClass.DONE),
        (202, OutcomeClass.PERMANENT),
        (400, OutcomeClass.NEXT_FORMAT),
        (404, OutcomeClass.PERMANENT),
        (501, OutcomeClass.PERMANENT),
        (502, OutcomeClass.TRANSIENT),
    ],
)
def test_each_answer_to_a_logout_token_has_one_meaning(status: int, klass: OutcomeClass) -> None:
    assert backchannel.classify_answer(status, None).klass is klass


@given(method=CALLED, status=st.integers(-10, 1000), wait=st.none() | st.floats(0, 1e6))
def test_every_status_is_classified(method: LogoutMethod, status: int, wait: float | None) -> None:
    outcome = logout.classify_answer(method, status=status, retry_after_s=wait)

    assert isinstance(outcome.klass, OutcomeClass)
    if outcome.proves:
        assert outcome.klass is OutcomeClass.DONE
