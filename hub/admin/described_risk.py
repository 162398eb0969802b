"""Descriptions of intake by name and of the risk API beyond users, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from hub.admin.operation import Described

_ERRORS: Final = {
    400: "not acceptable",
    401: "no valid access token",
    403: "the token lacks the scope",
}
_ENVELOPE: Final[dict[str, Any]] = {
    "id": {"type": "string", "maxLength": 200},
    "sub_id": {"type": "object"},
    "entity": {"type": "object"},
    "occurred_at": {"type": "string", "format": "date-time"},
}
_INTAKE_ANSWERS: Final = {
    202: "stored, also for repeats",
    400: "not acceptable: errors say what",
    401: "no valid access token",
    403: "the token lacks the scope, or no provider is bound to the client, or out of its scope",
    404: "entity names nobody",
    413: "too large",
    415: "not JSON",
    429: "too many: come again after Retry-After",
    503: "undecided: try again after Retry-After",
}


def _one_or_many(required: str, members: dict[str, Any]) -> dict[str, Any]:
    one = {"type": "object", "required": [required], "properties": {**_ENVELOPE, **members}}
    return {"oneOf": [one, {"type": "array", "minItems": 1, "maxItems": 100, "items": one}]}


INTAKE: Final = (
    Described(
        path="/v1/signals/detections",
        method="POST",
        operation_id="post_detections",
        summary="Raise detections by name, about a subject (sub_id) or an entity of ours.",
        tag="receivers",
        scopes=("signals.write",),
        body=_one_or_many(
            "name",
            {
                "name": {"type": "string", "maxLength": 64},
                "level": {"enum": ["LOW", "MEDIUM", "HIGH"]},
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                "reasons": {"type": "array", "maxItems": 20, "items": {"type": "string"}},
            },
        ),
        example={
            "id": "evt-20417-1",
            "name": "brute_force_attack",
            "sub_id": {"format": "email", "email": "rosa.lind@customer.example"},
            "confidence": 0.8,
            "reasons": ["40 wrong passwords in 5 minutes"],
        },
        answers=_INTAKE_ANSWERS,
    ),
    Described(
        path="/v1/signals/remedies",
        method="POST",
        operation_id="post_remedies",
        summary="Say that a cause is remedied: it ends the detections that this ends, no others.",
        tag="receivers",
        scopes=("signals.write",),
        body=_one_or_many("remedy", {"remedy": {"type": "string", "maxLength": 96}}),
        example={
            "id": "evt-20417-2",
            "remedy": "credential_changed:password",
            "sub_id": {"format": "email", "email": "rosa.lind@customer.example"},
        },
        answers=_INTAKE_ANSWERS,
    ),
)
