"""Descriptions of the routes that are not admin objects, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

JSON: Final = "application/json"
_SSF_ERRORS: Final = {
    400: "not acceptable",
    401: "no valid access token",
    403: "the token lacks the scope",
}
_OBJECT: Final[dict[str, Any]] = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One operation: who may call it (`scopes`, empty for public), with what, answered how."""

    path: str
    method: str
    operation_id: str
    summary: str
    tag: str
    answers: Mapping[int, str]
    scopes: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    required_query: tuple[str, ...] = ()
    body: dict[str, Any] | None = None
    body_type: str = JSON
    example: Any = None
    answer_type: str | None = JSON

    def query_parameters(self) -> list[dict[str, Any]]:
        """Return its query parameters as OpenAPI has them."""
        return [
            {
                "name": name,
                "in": "query",
                "required": name in self.required_query,
                "schema": {"type": "string"},
            }
            for name in (*self.required_query, *self.query)
        ]


_SSF: Final = (
    Described(
        path="/.well-known/ssf-configuration",
        method="GET",
        operation_id="ssf_configuration",
        summary="Transmitter metadata (SSF 1.0 §7.1).",
        tag="ssf",
        answers={200: "the metadata"},
    ),
    Described(
        path="/jwks.json",
        method="GET",
        operation_id="jwks",
        summary="Keys that sign SETs, logout tokens and revocation requests (RFC 7517).",
        tag="ssf",
        answers={200: "the JWK Set"},
    ),
    Described(
        path="/ssf/streams",
        method="POST",
        operation_id="create_ssf_stream",
        summary="Create a stream (SSF 1.0 §8.1.1.1).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=_OBJECT,
        example={
            "delivery": {
                "method": "urn:ietf:rfc:8935",
                "endpoint_url": "https://payroll.customer.example/hooks/ssf",
                "authorization_header": "Bearer push-secret",
            },
            "events_requested": [
                "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
            ],
            "description": "payroll production",
        },
        answers={201: "the stream configuration", **_SSF_ERRORS, 409: "too many streams"},
    ),
    Described(
        path="/ssf/streams",
        method="GET",
        operation_id="read_ssf_streams",
        summary="Read one stream, or all of the caller's (SSF 1.0 §8.1.1.2).",
        tag="ssf",
        scopes=("ssf.read", "ssf.manage"),
        query=("stream_id",),
        answers={200: "one configuration, or an array", **_SSF_ERRORS, 404: "no such stream"},
    ),
    Described(
        path="/ssf/streams",
        method="DELETE",
        operation_id="delete_ssf_stream",
        summary="Delete a stream (SSF 1.0 §8.1.1.5).",
        tag="ssf",
        scopes=("ssf.manage",),
        required_query=("stream_id",),
        answers={204: "deleted", **_SSF_ERRORS, 404: "no such stream"},
    ),
    Described(
        path="/ssf/status",
        method="GET",
        operation_id="read_ssf_status",
        summary="Read a stream's status (SSF 1.0 §8.1.2.1).",
        tag="ssf",
        scopes=("ssf.read", "ssf.manage"),
        required_query=("stream_id",),
        answers={200: "the status", **_SSF_ERRORS, 404: "no such stream"},
    ),
    Described(
        path="/ssf/poll/{stream_id}",
        method="POST",
        operation_id="poll_ssf_stream",
        summary="Poll for SETs and acknowledge them (RFC 8936).",
        tag="ssf",
        scopes=("ssf.read", "ssf.manage", "ssf.manage.poll"),
        body=_OBJECT,
        example={"maxEvents": 25, "returnImmediately": True},
        answers={
            200: "sets, and whether more are available",
            **_SSF_ERRORS,
            404: "no such stream",
            413: "too large",
            415: "not JSON",
        },
    ),
)

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
_READ_SESSIONS: Final = ("sessions.write", "sessions.evaluate", "risk.read")
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
        query=("level", "since", *_PAGING),
        answers={200: "a page", **_RISK_ERRORS},
    ),
    Described(
        path="/v1/risk/users/{user}",
        method="GET",
        operation_id="read_user_risk_in_full",
        summary="A user's level with reasons and causes.",
        tag="risk",
        scopes=_READ_RISK,
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
        summary="Detections, newest first; of one user or device, in one state.",
        tag="risk",
        scopes=_READ_RISK,
        query=("user", "device", "state", *_PAGING),
        answers={200: "a page", **_RISK_ERRORS, 404: "no such user or device"},
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
        body=_OBJECT,
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

_VERDICT: Final = "the decision: ALLOW, DENY or TERMINATE, with scope and reasons"
_DECISIONS: Final = (
    Described(
        path="/v1/sign-ins/evaluate",
        method="POST",
        operation_id="evaluate_sign_in",
        summary="May this user sign in? user: a reference or a subject identifier.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        body={"type": "object", "required": ["user"]},
        example={"user": {"format": "email", "email": "rosa.lind@customer.example"}},
        answers={200: _VERDICT, **_RISK_ERRORS},
    ),
    Described(
        path="/v1/sessions/{sid}/evaluate",
        method="POST",
        operation_id="evaluate_session",
        summary="May this session go on? iss: for a client without app.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        body=_OBJECT,
        example={"iss": "https://login.customer.example"},
        answers={200: _VERDICT, **_RISK_ERRORS},
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

DESCRIBED: Final = (*_RECEIVERS, *_SSF, *_RISK, *_SESSIONS, *_DECISIONS, *_HEALTH)
