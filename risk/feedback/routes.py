"""HTTP of feedback: confirm compromised, confirm safe, dismiss, undo.

`POST {base}/v1/risk/{users|devices|sessions|apps|service-accounts}/{id}/{word}`, and the same below
`/v1/detections/{id}` about one finding. Scope `risk.write`: analysts and above (contracts §8).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from risk import rendering, standing
from risk.deps import RiskDeps
from risk.feedback import service
from risk.feedback.model import Word, parse_said
from risk.feedback.service import UNDOABLE, Given
from risk.lookups import rendering as shapes
from risk.lookups import service as lookups
from risk.lookups.rendering import PLURALS
from risk.lookups.routes import parameter_of, reference_of, subject_of, weights_of
from risk.lookups.service import Subject
from risk.model import Detection, EntityKind
from risk.routes import BY_CHARS_MAX, REF_CHARS_MAX, WRITE_SCOPES, entered, json_answer, json_object
from risk.sql.store import Connection
from runtime.audit import AuditNote
from runtime.caller import Caller
from runtime.deadlocks import repeated
from runtime.errors import Invalid

UNDO: Final = "undo"
METHOD_NOT_ALLOWED: Final = 405


async def say(request: Request, word: Word | None, kind: EntityKind | None) -> Response:
    """Do what a person says, or take the newest word back; the answer shows what came of it.

    Body `{reason?, until?}`, or none. word: None to undo. kind: None for one detection.
    """
    caller, deps = entered(request, WRITE_SCOPES)
    now = deps.clock.now()
    body = await json_object(request) if await request.body() else {}
    by = caller.client_id[:BY_CHARS_MAX]
    said = None if word is None else parse_said(word, body, by=by, now=now)
    if word is None and body:
        raise Invalid("undo takes no body.", pointers=(("", "empty"),))
    tenant_ids = {caller.tenant_id}

    async def done() -> dict[str, object]:
        async with deps.db.transaction() as connection:
            await deps.add_audit(connection, _note(request, caller, word, body), now=now)
            await deps.lock(connection, tenant_ids)
            caps = await deps.caps(connection, tenant_ids)
            subject, only = await _named(request, connection, caller, kind)
            about = (connection, caller.tenant_id, subject)
            if said is None:
                given = await service.undo(*about, by=by, caps=caps, now=now)
            else:
                given = await service.give(*about, replace(said, only=only), caps=caps, now=now)
            await deps.respond(connection, given.assessments, now=now)
            return await _shown(connection, deps, caller.tenant_id, subject, given)

    shown = await repeated(done)
    deps.responded()
    return json_answer({"word": UNDO if word is None else word.value, **shown})


async def _named(
    request: Request,
    connection: Connection,
    caller: Caller,
    kind: EntityKind | None,
) -> tuple[Subject, Detection | None]:
    """Return what the address names, and the finding when it names one. Raises NotFound."""
    if kind is None:
        only = await lookups.get_detection(connection, caller.tenant_id, reference_of(request))
        return await lookups.subject_of(connection, caller.tenant_id, only), only
    return await subject_of(request, connection, kind), None


async def _shown(
    connection: Connection, deps: RiskDeps, tenant_id: str, subject: Subject, given: Given
) -> dict[str, object]:
    weights = await weights_of(connection, deps, tenant_id)
    known = await standing.known_now(connection, tenant_id, subject, now=weights.now)
    found = standing.stand(known, weights)
    made = next((each for each in given.assessments if each.user_id == subject.entity_id), None)
    return {
        **shapes.render_standing(found),
        "changed": given.feedback is not None,
        "feedback": shapes.render_feedback(given.feedback) if given.feedback else None,
        "previous_level": made.previous_level.name if made else None,
        "closed": [rendering.render_detection(each) for each in given.outcome.closed],
        "kept": [rendering.render_detection(each) for each in given.outcome.kept],
        "users": [
            {
                "user_id": each.user_id,
                "previous_level": each.previous_level.name,
                "level": each.level.name,
                "actions": sorted(each.actions),
                "would_have": sorted(each.would_have),
            }
            for each in given.assessments
        ],
    }


def _note(request: Request, caller: Caller, word: Word | None, body: dict[str, Any]) -> AuditNote:
    reference = reference_of(request)
    return AuditNote(
        tenant_id=caller.tenant_id,
        actor=caller.client_id,
        action=f"risk.{UNDO if word is None else word.value}",
        ref=reference[:REF_CHARS_MAX],
        detail={"path": request.url.path[:REF_CHARS_MAX], **body},
    )


async def _no_reading(_request: Request) -> Response:
    # The path of a lookup takes any name; it must not read what is said here.
    raise HTTPException(METHOD_NOT_ALLOWED, headers={"Allow": "POST"})


def _routes_below(at: str, kind: EntityKind | None) -> tuple[Route, ...]:
    words: dict[str, Word | None] = {**{each.value: each for each in UNDOABLE}, UNDO: None}
    return tuple(
        route
        for name, word in words.items()
        for route in (
            Route(f"{at}/{name}", partial(say, word=word, kind=kind), methods=["POST"]),
            Route(f"{at}/{name}", _no_reading, methods=["GET"], include_in_schema=False),
        )
    )


ROUTES: Final = (
    *(
        route
        for plural, kind in PLURALS.items()
        for route in _routes_below(f"/v1/risk/{plural}/{parameter_of(kind)}", kind)
    ),
    *_routes_below("/v1/detections/{detection}", None),
)
