"""Descriptions of the front doors that others prescribe: AuthZEN, and gateways."""

from __future__ import annotations

from typing import Any, Final

from hub.admin.operation import Described

_ENTITY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "id"],
    "properties": {
        "type": {"type": "string"},
        "id": {"type": "string"},
        "properties": {"type": ["object", "null"]},
    },
}
_ACTION: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "properties": {"type": ["object", "null"]}},
}
_MEMBERS: Final[dict[str, Any]] = {
    "subject": _ENTITY,
    "action": _ACTION,
    "resource": _ENTITY,
    "context": {"type": ["object", "null"]},
}
_EVALUATION: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["subject", "action", "resource"],
    "properties": _MEMBERS,
}
_SEMANTICS: Final = ["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
_EVALUATIONS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        **_MEMBERS,
        "evaluations": {"type": ["array", "null"], "maxItems": 100},
        "options": {
            "type": ["object", "null"],
            "properties": {"evaluations_semantic": {"type": "string", "enum": _SEMANTICS}},
        },
    },
}
_ERRORS: Final = {
    400: "not acceptable",
    401: "no valid credentials",
    403: "the scope is missing, or the app is another's",
    413: "too large",
}
_GATEWAY: Final = {
    200: "let it pass",
    302: "send the browser there",
    401: "sign in, or step up: WWW-Authenticate says which",
    403: "keep it out; X-Signalhub-Decision says why",
    503: "undecided, where the app leaves that to Envoy",
}
_PLAIN: Final = frozenset({400, 401, 403})
_SESSION: Final = {"type": "session", "id": "sess-31b9"}
_ACCESS: Final = {"name": "access"}

DOORS: Final = (
    Described(
        path="/access/v1/evaluation",
        method="POST",
        operation_id="authzen_evaluation",
        summary="May the subject do this? AuthZEN Authorization API 1.0; a denial is 200.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        body=_EVALUATION,
        example={
            "subject": _SESSION,
            "action": _ACCESS,
            "resource": {"type": "app", "id": "app_01KJQ2M80000ZC4T9W6YR0QXN1"},
            "context": {"ip": "198.51.100.24", "ua": "Mozilla/5.0 (X11; Linux x86_64)"},
        },
        answers={200: "decision (boolean) and context", **_ERRORS},
        plain=_PLAIN,
    ),
    Described(
        path="/access/v1/evaluations",
        method="POST",
        operation_id="authzen_evaluations",
        summary="The same for several questions with defaults, or for one.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        body=_EVALUATIONS,
        example={
            "subject": _SESSION,
            "action": _ACCESS,
            "options": {"evaluations_semantic": "deny_on_first_deny"},
            "evaluations": [
                {"resource": {"type": "app", "id": "app_01KJQ2M80000ZC4T9W6YR0QXN1"}},
                {"resource": {"type": "app", "id": "app_01KJQ2M80000ZC4T9W6YR0QXN2"}},
            ],
        },
        answers={200: "evaluations: one decision per item, in order", **_ERRORS},
        plain=_PLAIN,
    ),
    Described(
        path="/.well-known/authzen-configuration",
        method="GET",
        operation_id="authzen_metadata",
        summary="Metadata of the policy decision point (AuthZEN).",
        tag="decisions",
        answers={200: "the metadata"},
    ),
    Described(
        path="/v1/forward-auth",
        method="GET",
        operation_id="forward_auth",
        summary="A gateway asks about the request it holds; any method. See integrate-gateway.md.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        query=("dialect", "app"),
        answers=_GATEWAY,
        answer_type=None,
        plain=frozenset({401, 403, 503}),
    ),
    Described(
        path="/v1/forward-auth/{tail}",
        method="GET",
        operation_id="forward_auth_below",
        summary="The same for Envoy, with the original path behind and app and dialect in headers.",
        tag="decisions",
        scopes=("sessions.evaluate",),
        answers=_GATEWAY,
        answer_type=None,
        plain=frozenset({401, 403, 503}),
    ),
)
