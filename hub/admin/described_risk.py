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
    Described(
        path="/v1/signals/posture",
        method="POST",
        operation_id="post_posture",
        summary="Tell signals of devices; sessions on them are judged again.",
        tag="receivers",
        scopes=("signals.write",),
        body=_one_or_many(
            "signals",
            {
                "signals": {"type": "object", "minProperties": 1, "maxProperties": 32},
                "old": {"type": "object", "maxProperties": 32},
            },
        ),
        example={
            "id": "evt-20417-3",
            "signals": {"firewall": "off"},
            "old": {"firewall": "on"},
            "sub_id": {"format": "opaque", "id": "LT-0091-77"},
        },
        answers=_INTAKE_ANSWERS,
    ),
)

_READ: Final = ("risk.read", "risk.write")
_PAGING: Final = ("cursor", "limit")
_WORD_ERRORS: Final = {**_ERRORS, 404: "names nobody"}
_REASON: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 500},
        "until": {"type": "string", "format": "date-time"},
    },
}
_WORDS: Final = {
    "confirm-compromised": "Confirm that it is compromised: HIGH at once, and a floor.",
    "confirm-safe": "Confirm that the findings are false: closed, quiet for a while, learned.",
    "dismiss": "Dismiss the findings: closed, nothing is learned; a floor stays.",
    "undo": "Take the newest of these words back.",
}


def _reads_of(plural: str, item: str) -> tuple[Described, ...]:
    at, name = f"/v1/risk/{plural}", item.replace(" ", "_")
    missing = {**_ERRORS, 404: f"no such {item}"}
    return (
        Described(
            path=at,
            method="GET",
            operation_id=f"list_{name}_risks",
            summary=f"Every {item} with active findings of its own, with level and score.",
            tag="risk",
            scopes=_READ,
            query=("level", "since", *_PAGING),
            answers={200: "a page", **_ERRORS},
        ),
        Described(
            path=f"{at}/{{id}}",
            method="GET",
            operation_id=f"read_{name}_risk",
            summary=f"The risk of one {item}; asOf: as it was known at a time.",
            tag="risk",
            scopes=_READ,
            query=("asOf",),
            answers={200: "the risk", **missing},
        ),
        Described(
            path=f"{at}/{{id}}/history",
            method="GET",
            operation_id=f"list_{name}_risk_history",
            summary="How the level changed, newest first.",
            tag="risk",
            scopes=_READ,
            query=_PAGING,
            answers={200: "a page", **missing},
        ),
        Described(
            path=f"{at}/{{id}}/explain",
            method="GET",
            operation_id=f"explain_{name}_risk",
            summary="The evidence, what counts, what would end it, what people said.",
            tag="risk",
            scopes=_READ,
            answers={200: "the explanation", **missing},
        ),
    )


def _words_of(at: str, name: str) -> tuple[Described, ...]:
    return tuple(
        Described(
            path=f"{at}/{word}",
            method="POST",
            operation_id=f"{word.replace('-', '_')}_{name}",
            summary=summary,
            tag="risk",
            scopes=("risk.write",),
            body=None if word == "undo" else _REASON,
            example=None if word == "undo" else {"reason": "Known test of the red team."},
            answers={
                200: "what came of it",
                **_WORD_ERRORS,
                **({409: "nobody said anything"} if word == "undo" else {}),
            },
        )
        for word, summary in _WORDS.items()
    )


RISK_OF_ALL: Final = (
    *_words_of("/v1/risk/users/{user}", "user"),
    *(
        described
        for plural, item in (
            ("devices", "device"),
            ("sessions", "session"),
            ("apps", "app"),
            ("service-accounts", "service account"),
        )
        for described in (
            *_reads_of(plural, item),
            *_words_of(f"/v1/risk/{plural}/{{id}}", item.replace(" ", "_")),
        )
    ),
    Described(
        path="/v1/detections/{detection}",
        method="GET",
        operation_id="read_detection",
        summary="One detection as it stands.",
        tag="risk",
        scopes=_READ,
        answers={200: "the detection", **_ERRORS, 404: "no such detection"},
    ),
    *_words_of("/v1/detections/{detection}", "detection"),
)
