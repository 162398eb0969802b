"""Descriptions of the transmitter's routes, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from hub.admin.operation import ANY_OBJECT, Described

_STREAM_ID: Final = "str_01KJQ2M8D06ZC4T9W6YR0QXN1E"
_SUBJECT: Final = {"format": "email", "email": "rosa.lind@customer.example"}
_SSF_ERRORS: Final = {
    400: "not acceptable",
    401: "no valid access token",
    403: "the token lacks the scope",
}

SSF: Final = (
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
        body=ANY_OBJECT,
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
        method="PATCH",
        operation_id="update_ssf_stream",
        summary="Update what the body names of a stream (SSF 1.0 §8.1.1.3).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=ANY_OBJECT,
        example={"stream_id": _STREAM_ID, "description": "payroll, second floor"},
        answers={200: "the stream configuration", **_SSF_ERRORS, 404: "no such stream"},
    ),
    Described(
        path="/ssf/streams",
        method="PUT",
        operation_id="replace_ssf_stream",
        summary="Replace all that the receiver supplies of a stream (SSF 1.0 §8.1.1.4).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=ANY_OBJECT,
        example={"stream_id": _STREAM_ID, "events_requested": []},
        answers={200: "the stream configuration", **_SSF_ERRORS, 404: "no such stream"},
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
        path="/ssf/status",
        method="POST",
        operation_id="set_ssf_status",
        summary="Enable, pause or disable a stream (SSF 1.0 §8.1.2.2).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=ANY_OBJECT,
        example={"stream_id": _STREAM_ID, "status": "paused", "reason": "upgrade"},
        answers={200: "the status", **_SSF_ERRORS, 404: "no such stream"},
    ),
    Described(
        path="/ssf/subjects:add",
        method="POST",
        operation_id="add_ssf_subject",
        summary="Add a subject to a stream (SSF 1.0 §8.1.3.2).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=ANY_OBJECT,
        example={"stream_id": _STREAM_ID, "subject": _SUBJECT},
        answers={200: "added", **_SSF_ERRORS, 404: "no such stream", 409: "too many subjects"},
    ),
    Described(
        path="/ssf/subjects:remove",
        method="POST",
        operation_id="remove_ssf_subject",
        summary="Remove a subject from a stream, after a time of grace (SSF 1.0 §8.1.3.3).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=ANY_OBJECT,
        example={"stream_id": _STREAM_ID, "subject": _SUBJECT},
        answers={204: "removed", **_SSF_ERRORS, 404: "no such stream", 409: "too many subjects"},
    ),
    Described(
        path="/ssf/verify",
        method="POST",
        operation_id="verify_ssf_stream",
        summary="Ask for a verification event over a stream (SSF 1.0 §8.1.4.2).",
        tag="ssf",
        scopes=("ssf.manage",),
        body=ANY_OBJECT,
        example={"stream_id": _STREAM_ID, "state": "VGhpcyBpcyBhIHN0YXRl"},
        answers={204: "queued", **_SSF_ERRORS, 404: "no such stream", 429: "too often"},
    ),
    Described(
        path="/ssf/poll/{stream_id}",
        method="POST",
        operation_id="poll_ssf_stream",
        summary="Poll for SETs and acknowledge them (RFC 8936).",
        tag="ssf",
        scopes=("ssf.read", "ssf.manage", "ssf.manage.poll"),
        body=ANY_OBJECT,
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
