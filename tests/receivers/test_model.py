"""The pure rules: scope of a provider's word, modes, times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from receivers.model import (
    ProviderMode,
    ProviderSettings,
    ProviderStatus,
    SubjectScope,
    bounded_occurrence,
    check_subject,
    effective_mode,
    milder_mode,
)
from receivers.registry.settings import check_authorization_header, check_settings
from runtime.clock import from_epoch_s
from runtime.errors import Invalid
from ssf.errors import SETError
from ssf.events.common import UnknownEvent
from ssf.secevent import SecurityEventToken
from ssf.subject import parse_subject
from tests.receivers import vendor

SCOPE = SubjectScope(
    domains=frozenset({"green.example", "xn--bcher-kva.example"}),
    issuers=frozenset({"https://login.green.example"}),
)
ROSA = {"format": "email", "email": "Rosa@Green.Example"}
EVE = {"format": "email", "email": "eve@evil.example"}
DEVICE = {"format": "opaque", "id": "LT-1"}


def _token(sub_id: dict[str, Any]) -> SecurityEventToken:
    uri = "https://vendor.example/event"
    return SecurityEventToken(
        iss=vendor.ISSUER,
        jti="jti-1",
        iat=vendor.NOW_S,
        aud=(vendor.AUDIENCE,),
        sub_id=parse_subject(sub_id),
        event=UnknownEvent(type_uri=uri, payload={}),
        event_type=uri,
    )


@pytest.mark.requirement("SET-64")
@pytest.mark.parametrize(
    "sub_id",
    [
        ROSA,
        {"format": "account", "uri": "acct:rosa@green.example"},
        {"format": "email", "email": "eva@bücher.example"},
        {"format": "iss_sub", "iss": "https://login.green.example", "sub": "u-1"},
        {
            "format": "saml_assertion_id",
            "issuer": "https://login.green.example",
            "assertion_id": "a",
        },
        {"format": "jwt_id", "iss": "https://login.green.example", "jti": "a"},
        {"format": "complex", "user": ROSA, "device": DEVICE},
        {"format": "aliases", "identifiers": [ROSA, DEVICE]},
    ],
)
def test_a_subject_of_the_providers_own_domains_and_issuers_is_in_scope(
    sub_id: dict[str, Any],
) -> None:
    check_subject(_token(sub_id), SCOPE)


@pytest.mark.requirement("SET-64")
@pytest.mark.parametrize(
    "sub_id",
    [
        EVE,
        DEVICE,
        {"format": "email", "email": "rosa@mail.green.example"},
        {"format": "email", "email": '"x@green.example"@evil.example'},
        {"format": "email", "email": "x" * 600 + "@green.example"},
        {"format": "iss_sub", "iss": "https://login.green.example/", "sub": "u-1"},
        {"format": "phone_number", "phone_number": "+12065550123"},
        {"format": "complex", "user": EVE, "device": DEVICE},
        {"format": "aliases", "identifiers": [ROSA, EVE]},
    ],
)
def test_a_subject_that_is_not_all_inside_or_belongs_nowhere_is_out_of_scope(
    sub_id: dict[str, Any],
) -> None:
    with pytest.raises(SETError) as refused:
        check_subject(_token(sub_id), SCOPE)

    assert refused.value.code == "access_denied"


def test_without_a_scope_every_subject_is_inside() -> None:
    check_subject(_token(EVE), None)


def test_a_waiting_signal_loses_weight_with_its_provider_and_never_gains_any() -> None:
    enforce, log_only, none = ProviderMode.ENFORCE, ProviderMode.LOG_ONLY, ProviderMode.NONE

    assert milder_mode(enforce, log_only) is log_only
    assert milder_mode(log_only, enforce) is log_only
    assert milder_mode(enforce, none) is none
    assert milder_mode(enforce, enforce) is enforce


def test_only_an_active_provider_can_be_enforced() -> None:
    assert effective_mode(ProviderMode.ENFORCE, ProviderStatus.ACTIVE) is ProviderMode.ENFORCE
    for status in (ProviderStatus.INACTIVE, ProviderStatus.QUARANTINED):
        assert effective_mode(ProviderMode.ENFORCE, status) is ProviderMode.LOG_ONLY


@pytest.mark.requirement("SET-18")
def test_an_event_is_never_later_than_now_plus_the_allowed_skew() -> None:
    now = from_epoch_s(vendor.NOW_S)
    skew = timedelta(seconds=300)

    assert bounded_occurrence(now - skew, now) == now - skew
    assert bounded_occurrence(now + timedelta(days=9), now) == now + skew


def _settings(**changes: Any) -> ProviderSettings:
    good: dict[str, Any] = {
        "name": "mdm",
        "issuer": vendor.ISSUER,
        "audiences": (vendor.AUDIENCE,),
        "jwks_uri": vendor.JWKS_URI,
    }
    return ProviderSettings(**{**good, **changes})


@pytest.mark.requirement("SET-33", "SET-35", "SET-57")
def test_settings_out_of_bounds_are_refused_with_a_pointer_each(rsa: JWK) -> None:
    private = {"keys": [rsa.export_private(as_dict=True)]}
    unusable: dict[str, tuple[dict[str, Any], str]] = {
        "no name": ({"name": ""}, "/name"),
        "blank at the end": ({"name": "mdm "}, "/name"),
        "control character": ({"name": "m\x07"}, "/name"),
        "blank in the issuer": ({"issuer": "https://a b"}, "/issuer"),
        "endless issuer": ({"issuer": "https://" + "a" * 700}, "/issuer"),
        "no keys at all": ({"jwks_uri": None}, "/jwks_uri"),
        "keys twice": ({"jwks": vendor.jwks(rsa)}, "/jwks_uri"),
        "http": ({"jwks_uri": "http://vendor.example/jwks"}, "/jwks_uri"),
        "file": ({"jwks_uri": "file:///etc/passwd"}, "/jwks_uri"),
        "no host": ({"jwks_uri": "https:///jwks"}, "/jwks_uri"),
        "broken URL": ({"jwks_uri": "https://[::1/jwks"}, "/jwks_uri"),
        "bad port": ({"jwks_uri": "https://a.example:99999/"}, "/jwks_uri"),
        "credentials": ({"jwks_uri": "https://a:b@vendor.example/"}, "/jwks_uri"),
        "empty key set": ({"jwks_uri": None, "jwks": {"keys": []}}, "/jwks/keys"),
        "no key set": ({"jwks_uri": None, "jwks": {}}, "/jwks/keys"),
        "no JWK": ({"jwks_uri": None, "jwks": {"keys": ["k"]}}, "/jwks/keys/0"),
        "private key": ({"jwks_uri": None, "jwks": private}, "/jwks/keys/0"),
        "no audience": ({"audiences": ()}, "/audiences"),
        "empty audience": ({"audiences": ("",)}, "/audiences"),
        "misspelt event type": (
            {"event_types": frozenset({"session-revoked"})},
            "/event_types",
        ),
        "no event type": ({"event_types": frozenset()}, "/event_types"),
        "critical member": (
            {"critical_subject_members": frozenset({"a b"})},
            "/critical_subject_members",
        ),
        "HS256": ({"algorithms": frozenset({"HS256"})}, "/algorithms"),
        "none": ({"algorithms": frozenset({"none", "RS256"})}, "/algorithms"),
        "no algorithm": ({"algorithms": frozenset()}, "/algorithms"),
        "empty scope": ({"subject_scope": SubjectScope()}, "/subject_scope"),
        "no domain": (
            {"subject_scope": SubjectScope(domains=frozenset({"Green.Example"}))},
            "/subject_scope/domains",
        ),
        "no issuer": (
            {"subject_scope": SubjectScope(issuers=frozenset({" "}))},
            "/subject_scope/issuers",
        ),
        "level": ({"level_cap": "high"}, "/level_cap"),
        "source class": ({"source_class": "Not one"}, "/source_class"),
    }
    pointers = {}
    for name, (changes, _) in unusable.items():
        with pytest.raises(Invalid) as refused:
            check_settings(_settings(**changes), dev_insecure=False)
        pointers[name] = refused.value.pointers[0][0]

    assert pointers == {name: pointer for name, (_, pointer) in unusable.items()}


def test_an_inline_key_set_is_bounded_in_bytes(rsa: JWK) -> None:
    padded = {**vendor.jwks(rsa), "comment": "x" * 65_536}

    with pytest.raises(Invalid) as refused:
        check_settings(_settings(jwks_uri=None, jwks=padded), dev_insecure=False)

    assert refused.value.pointers[0][0] == "/jwks"


def test_good_settings_pass_and_development_mode_also_takes_http(rsa: JWK) -> None:
    check_settings(_settings(), dev_insecure=False)
    check_settings(_settings(jwks_uri=None, jwks=vendor.jwks(rsa)), dev_insecure=False)
    check_settings(_settings(subject_scope=SCOPE, level_cap="MEDIUM"), dev_insecure=False)
    check_settings(_settings(jwks_uri="http://127.0.0.1:8080/jwks"), dev_insecure=True)


@pytest.mark.requirement("PUSH-5")
def test_an_authorization_value_must_be_able_to_be_a_header() -> None:
    check_authorization_header(None)
    check_authorization_header("Bearer abc.def")
    for value in ("", " ", "Bearer x\r\nevil: 1", "Bearer é", "x" * 5000):
        with pytest.raises(Invalid):
            check_authorization_header(value)
