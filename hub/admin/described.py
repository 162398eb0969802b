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
_OBJECT: Final = {"type": "object"}


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

DESCRIBED: Final = (*_RECEIVERS, *_SSF, *_HEALTH)
