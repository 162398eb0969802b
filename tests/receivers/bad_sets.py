"""Every class of bad SET, made with real keys, with the RFC 8935 code it must be refused with."""

from __future__ import annotations

import json

from jwcrypto.common import base64url_encode
from jwcrypto.jwk import JWK

from tests.receivers.vendor import DEVICE_COMPLIANCE_CHANGE, NOW_S, claims, sign


def bad_sets(key: JWK, other: JWK) -> dict[str, tuple[bytes, str]]:
    """Return name -> (SET, code). key: the provider's published key. other: a key it never had."""
    return {**_no_sets(key), **_bad_headers(key, other), **_bad_claims(key), **_bad_contents(key)}


def _no_sets(key: JWK) -> dict[str, tuple[bytes, str]]:
    good = sign(claims(), key)
    texts = {
        "empty": b"",
        "plain text": b"hello",
        "bytes": b"\xff\x00." * 3,
        "two parts": good.rpartition(b".")[0],
        "five parts": good + b".a.b",
        "trailing newline": good + b"\n",
        "padded": good + b"==",
        "broken JSON": sign(b'{"iss": ', key),
        "an array": sign(b"[]", key),
        "duplicate claim": sign(json.dumps(claims())[:-1].encode() + b', "jti": "2"}', key),
        "duplicate member inside": sign(b'{"iss": "a", "events": {"a": {"b": 1, "b": 2}}}', key),
        "NUL in a string": sign(claims(txn="a\0b"), key),
        "deep": sign(b'{"iss": ' + b"[" * 5000 + b"]" * 5000 + b"}", key),
        "not UTF-8": sign(b'{"iss": "\xff"}', key),
    }
    return {name: (raw, "invalid_request") for name, raw in texts.items()}


def _bad_headers(key: JWK, other: JWK) -> dict[str, tuple[bytes, str]]:
    return {
        "typ JWT": (sign(claims(), key, header={"typ": "JWT"}), "invalid_request"),
        "typ logout+jwt": (sign(claims(), key, header={"typ": "logout+jwt"}), "invalid_request"),
        "no typ": (sign(claims(), key, header={"typ": None}), "invalid_request"),
        "crit": (sign(claims(), key, header={"crit": ["b64"], "b64": True}), "invalid_request"),
        "alg none": (_unsigned(), "invalid_key"),
        "alg HS256": (_hmac_with_the_public_key(key), "invalid_key"),
        "wrong key": (sign(claims(), other, header={"kid": key["kid"]}), "authentication_failed"),
        "tampered": (_with_other_payload(sign(claims(), key)), "authentication_failed"),
        "wrong iss": (sign(claims(iss="https://evil.example"), key), "invalid_issuer"),
        "no iss": (sign(claims(iss=None), key), "invalid_issuer"),
        "iss with a slash": (sign(claims(iss=claims()["iss"] + "/"), key), "invalid_issuer"),
    }


def _bad_claims(key: JWK) -> dict[str, tuple[bytes, str]]:
    changes: dict[str, tuple[dict[str, object], str]] = {
        "future iat": ({"iat": NOW_S + 400}, "invalid_request"),
        "no iat": ({"iat": None}, "invalid_request"),
        "iat as text": ({"iat": str(NOW_S)}, "invalid_request"),
        "endless iat": ({"iat": 10**40}, "invalid_request"),
        "wrong aud": ({"aud": ["https://other.example"]}, "invalid_audience"),
        "no aud": ({"aud": None}, "invalid_audience"),
        "exp": ({"exp": NOW_S + 60}, "invalid_request"),
        "sub": ({"sub": "rosa"}, "invalid_request"),
        "no jti": ({"jti": None}, "invalid_request"),
        "jti as number": ({"jti": 7}, "invalid_request"),
        "endless jti": ({"jti": "é" * 300}, "invalid_request"),
        "txn as object": ({"txn": {}}, "invalid_request"),
        "endless toe": ({"toe": 10**40}, "invalid_request"),
        "no events": ({"events": {}}, "invalid_request"),
        "events as array": ({"events": [DEVICE_COMPLIANCE_CHANGE]}, "invalid_request"),
        "event null": ({"events": {"https://a.example": None}}, "invalid_request"),
        "two events": (
            {"events": {"https://a.example": {}, "https://b.example": {}}},
            "invalid_request",
        ),
        "no subject": ({"sub_id": None}, "invalid_request"),
        "subject as text": ({"sub_id": "rosa"}, "invalid_request"),
        "subject without member": ({"sub_id": {"format": "email"}}, "invalid_request"),
    }
    return {name: (sign(claims(**change), key), code) for name, (change, code) in changes.items()}


def _bad_contents(key: JWK) -> dict[str, tuple[bytes, str]]:
    states = {"previous_status": "compliant", "current_status": "not-compliant"}
    payloads: dict[str, dict[str, object]] = {
        "required member missing": {},
        "required member of wrong type": {**states, "current_status": 7},
        "event time before 1970": {**states, "event_timestamp": -1},
        "event time without end": {**states, "event_timestamp": 10**40},
        "event time as text": {**states, "event_timestamp": "now"},
    }
    return {
        name: (sign(claims(events={DEVICE_COMPLIANCE_CHANGE: payload}), key), "invalid_request")
        for name, payload in payloads.items()
    }


def _unsigned() -> bytes:
    header = {"alg": "none", "typ": "secevent+jwt", "kid": "rsa-1"}
    head, body = (base64url_encode(json.dumps(part)) for part in (header, claims()))
    return f"{head}.{body}.".encode()


def _hmac_with_the_public_key(key: JWK) -> bytes:
    """The old trick: an HMAC whose secret is the text of the public key, which everybody knows."""
    secret = JWK(kty="oct", k=base64url_encode(key.export_to_pem()), alg="HS256", kid=key["kid"])
    return sign(claims(), secret)


def _with_other_payload(raw: bytes) -> bytes:
    head, _, signature = raw.split(b".")
    payload = base64url_encode(json.dumps(claims(jti="jti-2"))).encode()
    return b".".join((head, payload, signature))
