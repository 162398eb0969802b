"""Descriptions of the routes that are not admin objects, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from hub.admin.described_doors import DOORS
from hub.admin.described_oauth import OAUTH
from hub.admin.described_risk import INTAKE, RISK_OF_ALL
from hub.admin.described_ssf import SSF
from hub.admin.operation import ANY_OBJECT, Described

_RECEIVERS: Final = (
    Described(
        path="/receivers/{provider}/events",
        method="POST",
        operation_id="receive_set",
        summary="Push one Security Event Token (RFC 8935).",
        tag="receivers",
        body={"type": "string", "description": "compact JWS, typ secevent+jwt"},
        body_type="application/secevent+jwt",
        answers={
            202: "stored",
            400: "refused: err and description as application/json",
            401: "wrong Authorization header",
            404: "no such provider",
            413: "too large",
            415: "not a SET",
            429: "too many: come again after Retry-After",
            503: "undecided: try again after Retry-After",
        },
        prescribed={400: "SETError", 401: "SETError"},
    ),
    Described(
        path="/v1/signals/webhook/{provider}",
        method="POST",
        operation_id="receive_webhook",
        summary="Take a vendor's webhook, signed as its provider is set; a mapping reads it.",
        tag="receivers",
        body={"type": ["object", "array"], "description": "what the vendor sends"},
        answers={
            202: "stored, also for a repeat",
            400: "cannot be mapped: errors say what is missing",
            401: "not signed as it must be",
            404: "no such provider",
            410: "the provider is switched off",
            413: "too large",
            415: "not JSON",
            429: "too many: come again after Retry-After",
            503: "undecided: try again after Retry-After",
        },
    ),
)

_RISK_ERRORS: Final = {
    400: "not acceptable",
    401: "no valid access token",
    403: "the token lacks the scope",
}
_NO_USER: Final = {404: "no such user"}
_READ_RISK: Final = ("risk.read", "risk.write")
_READ_SESSIONS: Final = ("sessions.read", "sessions.write", "sessions.evaluate", "risk.read")
_PAGING: Final = ("cursor", "limit")

_RISK: Final = (
    Described(
        path="/api/v1/users/{user}/risk",
        method="GET",
        operation_id="read_user_risk",
        summary="A user's level in the short form. user: usr_…, email:…, ext:… or iss_sub:…|….",
        tag="risk",
        scopes=_READ_RISK,
        answers={200: "the level", **_RISK_ERRORS, **_NO_USER},
    ),
    Described(
        path="/api/v1/users/{user}/risk",
        method="PUT",
        operation_id="set_user_risk",
        summary="Set a user's level; the answer shows the effective one and why.",
        tag="risk",
        scopes=("risk.write",),
        body={
            "type": "object",
            "required": ["riskLevel"],
            "properties": {
                "riskLevel": {"enum": ["LOW", "MEDIUM", "HIGH"]},
                "riskReason": {"type": "string", "maxLength": 500},
            },
        },
        example={"riskLevel": "HIGH", "riskReason": "Reported by the user."},
        answers={200: "set again", 201: "set for the first time", **_RISK_ERRORS, **_NO_USER},
    ),
    Described(
        path="/v1/risk/users",
        method="GET",
        operation_id="list_user_risks",
        summary="Users by level, with reasons.",
        tag="risk",
        scopes=_READ_RISK,
        query=("level", "since", "order", *_PAGING),
        answers={200: "a page", **_RISK_ERRORS},
    ),
    Described(
        path="/v1/risk/users/{user}",
        method="GET",
        operation_id="read_user_risk_in_full",
        summary="A user's level with reasons and causes; asOf: as it was known at a time.",
        tag="risk",
        scopes=_READ_RISK,
        query=("asOf",),
        answers={200: "the level", **_RISK_ERRORS, **_NO_USER},
    ),
    Described(
        path="/v1/risk/users/{user}/history",
        method="GET",
        operation_id="list_user_risk_history",
        summary="How a user's level changed, newest first.",
        tag="risk",
        scopes=_READ_RISK,
        query=_PAGING,
        answers={200: "a page", **_RISK_ERRORS, **_NO_USER},
    ),
    Described(
        path="/v1/risk/users/{user}/explain",
        method="GET",
        operation_id="explain_user_risk",
        summary="Why a user has this level: the evidence, what counts, what would end it.",
        tag="risk",
        scopes=_READ_RISK,
        answers={200: "the explanation", **_RISK_ERRORS, **_NO_USER},
    ),
    Described(
        path="/v1/detections",
        method="GET",
        operation_id="list_detections",
        summary="Detections, newest first; about one entity, of one name, in one state.",
        tag="risk",
        scopes=_READ_RISK,
        query=(
            *("user", "device", "session", "app", "service_account"),
            *("name", "timing", "issuer", "state", *_PAGING),
        ),
        answers={200: "a page", **_RISK_ERRORS, 404: "names nobody"},
    ),
)

_IPS: Final = (
    Described(
        path="/api/v1/risk/events/ip",
        method="POST",
        operation_id="report_ips",
        summary="Report risky IP addresses: at most 20 events per call, 30 calls per minute.",
        tag="risk",
        scopes=("signals.write",),
        body={
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "items": {
                "type": "object",
                "required": ["timestamp", "subjects"],
                "properties": {
                    "timestamp": {"type": "string", "format": "date-time"},
                    "expiresAt": {"type": "string", "format": "date-time"},
                    "subjects": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 100,
                        "items": {
                            "type": "object",
                            "required": ["ip", "riskLevel"],
                            "properties": {
                                "ip": {"type": "string"},
                                "riskLevel": {"enum": ["LOW", "MEDIUM", "HIGH"]},
                                "message": {"type": "string", "maxLength": 512},
                            },
                        },
                    },
                },
            },
        },
        example=[
            {
                "timestamp": "2026-03-02T16:35:00Z",
                "subjects": [
                    {
                        "ip": "198.51.100.7",
                        "riskLevel": "HIGH",
                        "message": "Seen in a credential stuffing campaign.",
                    }
                ],
            }
        ],
        answers={
            202: "stored",
            **_RISK_ERRORS,
            413: "too large",
            415: "not JSON",
            429: "more than 30 calls in a minute: come again after Retry-After",
        },
    ),
    Described(
        path="/v1/ip/{ip}",
        method="GET",
        operation_id="read_ip",
        summary="Who says what of an IP address.",
        tag="risk",
        scopes=_READ_RISK,
        answers={200: "claims and what they add up to", **_RISK_ERRORS},
    ),
)

_SESSION_KEY: Final = ("iss",)
_SESSIONS: Final = (
    Described(
        path="/v1/sessions/{sid}",
        method="PUT",
        operation_id="put_session",
        summary="Register a session, or say something new about it. iss: for a client without app.",
        tag="sessions",
        scopes=("sessions.write",),
        body=ANY_OBJECT,
        example={
            "iss": "https://login.customer.example",
            "user": {"format": "email", "email": "rosa.lind@customer.example"},
            "device": "LT-0091-77",
            "started_at": "2026-03-02T16:20:00Z",
            "amr": ["pwd", "hwk"],
        },
        answers={
            200: "known before",
            201: "registered",
            **_RISK_ERRORS,
            404: "no such user or device",
            409: "ended, or of another user",
        },
    ),
    Described(
        path="/v1/sessions/{sid}",
        method="GET",
        operation_id="read_session",
        summary="Read one session.",
        tag="sessions",
        scopes=_READ_SESSIONS,
        query=_SESSION_KEY,
        answers={200: "the session", **_RISK_ERRORS, 404: "no such session"},
    ),
    Described(
        path="/v1/sessions/{sid}",
        method="DELETE",
        operation_id="end_session",
        summary="End a session.",
        tag="sessions",
        scopes=("sessions.write",),
        query=_SESSION_KEY,
        answers={204: "ended", **_RISK_ERRORS, 404: "no such session"},
    ),
    Described(
        path="/v1/sessions/{sid}/step-ups/{step_up_id}",
        method="POST",
        operation_id="settle_step_up",
        summary="Say how a step-up ended. Passed: the context is accepted. Refused: the end.",
        tag="sessions",
        scopes=("sessions.write",),
        body=ANY_OBJECT,
        example={
            "iss": "https://login.customer.example",
            "outcome": "passed",
            "auth_time": "2026-03-02T16:20:00Z",
            "acr": "urn:customer:acr:mfa",
            "amr": ["pwd", "hwk"],
        },
        answers={
            204: "heard",
            **_RISK_ERRORS,
            404: "no such step-up",
            409: "over before, or nothing that was asked for was proven",
        },
    ),
    Described(
        path="/v1/sessions",
        method="GET",
        operation_id="list_sessions",
        summary="A user's sessions, newest first.",
        tag="sessions",
        scopes=_READ_SESSIONS,
        required_query=("user",),
        query=_PAGING,
        answers={200: "a page", **_RISK_ERRORS, **_NO_USER},
    ),
)

_VERDICT: Final = "the decision: ALLOW, STEP_UP, DENY or TERMINATE, with scope and reasons"
_DECISIONS: Final = (
    Described(
        path="/v1/sign-ins/evaluate",
        method="POST",
        operation_id="evaluate_sign_in",
        summary="May this user sign in, or enrol a factor? Before and after the credential check.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        body={"type": "object", "required": ["user"]},
        example={
            "user": {"format": "email", "email": "rosa.lind@customer.example"},
            "ip": "198.51.100.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "device": {"id": "LT-0091-77", "token_hash": "9f86d081884c7d659a2feaa0c55ad015"},
            "action": "sign_in",
            "phase": "after",
            "outcome": "success",
            "amr": ["pwd", "otp"],
        },
        answers={200: _VERDICT, **_RISK_ERRORS},
    ),
    Described(
        path="/v1/sign-ins",
        method="GET",
        operation_id="list_sign_ins",
        summary="Sign-ins that were judged, newest first, with their risk.",
        tag="decisions",
        scopes=("risk.read", "risk.write"),
        query=("user", "level", *_PAGING),
        answers={200: "a page", **_RISK_ERRORS, **_NO_USER},
    ),
    Described(
        path="/v1/sessions/{sid}/evaluate",
        method="POST",
        operation_id="evaluate_session",
        summary="May this session go on? iss: for a client without app.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        body=ANY_OBJECT,
        example={"iss": "https://login.customer.example"},
        answers={200: _VERDICT, **_RISK_ERRORS},
    ),
)

_REVOCATION: Final = (
    Described(
        path="/v1/global-token-revocation",
        method="POST",
        operation_id="revoke_global_tokens",
        summary="Log a user out everywhere. Also with a signed JWT of a provider that may_revoke.",
        tag="logout",
        scopes=("logout",),
        body={"type": "object", "required": ["sub_id"]},
        example={"sub_id": {"format": "email", "email": "rosa.lind@customer.example"}},
        answers={
            204: "begun: logouts are stored and on their way",
            400: "malformed, or a subject format that names no user",
            401: "no valid token, or the JWT proves nothing",
            403: "the scope is missing, or the provider may not do this to this user",
            404: "no such user",
            413: "too large",
            415: "not JSON",
            422: "held: an administrator has to approve; or a break-glass user",
        },
    ),
)

_HEALTH: Final = (
    Described(
        path="/healthz",
        method="GET",
        operation_id="healthz",
        summary="Is the process alive?",
        tag="operations",
        answers={200: "yes"},
    ),
    Described(
        path="/readyz",
        method="GET",
        operation_id="readyz",
        summary="Can requests be served?",
        tag="operations",
        answers={200: "yes", 503: "not now"},
    ),
    Described(
        path="/metrics",
        method="GET",
        operation_id="metrics",
        summary="Metrics in Prometheus's text form.",
        tag="operations",
        scopes=("admin.read",),
        answers={200: "the metrics", 401: "no valid access token", 403: "scope"},
        answer_type="text/plain",
    ),
    Described(
        path="/openapi.json",
        method="GET",
        operation_id="openapi",
        summary="This document.",
        tag="operations",
        answers={200: "OpenAPI 3.1"},
    ),
)

DESCRIBED: Final = (
    *_RECEIVERS,
    *SSF,
    *OAUTH,
    *INTAKE,
    *_RISK,
    *RISK_OF_ALL,
    *_IPS,
    *_SESSIONS,
    *_DECISIONS,
    *DOORS,
    *_REVOCATION,
    *_HEALTH,
)
