"""HTTP of risk for every kind of entity: levels, the past, explanations, detections.

Scope `risk.read` (contracts §8, §9). `risk.feedback.routes` changes what is shown here.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from risk import explanation, rendering, standing
from risk.baselines import store as baselines
from risk.baselines.codec import decode
from risk.deps import RiskDeps
from risk.feedback import store as feedback_store
from risk.feedback.service import LISTED_MAX
from risk.finding_type import Timing
from risk.inline.store import newest_stands
from risk.lookups import rendering as shapes
from risk.lookups import service, store
from risk.lookups.rendering import PLURALS
from risk.lookups.service import DetectionQuery, Subject
from risk.model import DetectionState, EntityKind, parse_level
from risk.routes import READ_SCOPES, entered, json_answer, listed, page_of
from risk.sessions.model import parse_moment
from risk.sql.store import Connection
from risk.standing import Wanted, Weights
from runtime.errors import Invalid

#: users that are looked at to rank them
RANKED_MAX: Final = 1_000
ISSUER_CHARS_MAX: Final = 1024
NAME_CHARS_MAX: Final = 64

_Word = TypeVar("_Word", DetectionState, Timing)


async def list_risks(request: Request, kind: EntityKind) -> Response:
    """List entities of a kind: `?level=&since=&cursor=&limit=`; users also `?order=score`.

    Of users everybody who was ever assessed; of the others those with active findings.
    """
    caller, deps = entered(request, READ_SCOPES)
    level = request.query_params.get("level")
    cursor, limit = page_of(request)
    wanted = Wanted(
        level=None if level is None else parse_level(level),
        since=parse_moment(request.query_params.get("since"), "since"),
        after=cursor,
        limit=limit,
    )
    order = request.query_params.get("order", "id")
    if order not in {"id", "score"} or (order == "score" and kind is not EntityKind.USER):
        raise Invalid("order is id, or score for users.", pointers=(("order", "id or score"),))
    async with deps.db.snapshot() as connection:
        weights = await weights_of(connection, deps, caller.tenant_id)
        if kind is EntityKind.USER:
            by_score = order == "score"
            return await _list_users(connection, caller.tenant_id, wanted, weights, by_score)
        found, after = await standing.list_at_risk(
            connection, caller.tenant_id, kind, wanted, weights
        )
    page: dict[str, object] = {"items": [shapes.render_standing(each) for each in found]}
    if after is not None:
        page["next_cursor"] = after
    return json_answer(page)


async def _list_users(
    connection: Connection,
    tenant_id: str,
    wanted: Wanted,
    weights: Weights,
    by_score: bool,  # noqa: FBT001 - of this module
) -> Response:
    found = await explanation.list_user_risks(
        connection,
        tenant_id,
        level=wanted.level,
        since=wanted.since,
        after="" if by_score else wanted.after,
        limit=RANKED_MAX if by_score else wanted.limit,
    )
    subjects = [Subject(kind=EntityKind.USER, entity_id=each.user_id) for each in found]
    known = await standing.known_of(connection, tenant_id, subjects, now=weights.now)
    scores = {each.subject.entity_id: standing.stand(each, weights).ranking.score for each in known}
    if by_score:
        found = sorted(found, key=lambda each: (-each.level, -scores[each.user_id], each.user_id))
        found = found[: wanted.limit]
    items = [rendering.render_user(each) | {"score": scores[each.user_id]} for each in found]
    if by_score:
        return json_answer({"items": items})
    return listed(items, wanted.limit, [each.user_id for each in found])


async def get_risk(request: Request, kind: EntityKind) -> Response:
    """Answer the risk of one entity; `?asOf=` as it was known at a time."""
    caller, deps = entered(request, READ_SCOPES)
    as_of = _as_of(request, deps)
    async with deps.db.snapshot() as connection:
        subject = await subject_of(request, connection, kind)
        weights = await weights_of(connection, deps, caller.tenant_id, now=as_of)
        is_user = subject.kind is EntityKind.USER
        if as_of is not None:
            known = await standing.known_at(connection, caller.tenant_id, subject, at=as_of)
            kept = None
            if is_user:
                kept = await store.level_at(
                    connection, caller.tenant_id, entity_id=subject.entity_id, at=as_of
                )
            past = standing.stand(known, weights)
            return json_answer(shapes.render_past(past, kept=kept, as_of=as_of))
        known = await standing.known_now(connection, caller.tenant_id, subject, now=weights.now)
        now = standing.stand(known, weights)
        if not is_user:
            return json_answer(
                shapes.render_standing(now) | await _contexts(connection, caller.tenant_id, subject)
            )
        kept_risk = await explanation.user_risk(connection, caller.tenant_id, subject.entity_id)
        found = await baselines.read_baselines(connection, caller.tenant_id, [subject.entity_id])
    shown = rendering.render_user(kept_risk) | {
        "score": now.ranking.score,
        "baseline": shapes.render_baseline(decode(found.get(subject.entity_id, b""))),
    }
    return json_answer(shown)


async def _contexts(connection: Connection, tenant_id: str, subject: Subject) -> dict[str, object]:
    """Return what a session's contexts were settled at, newest first; nothing of other kinds."""
    if subject.kind is not EntityKind.SESSION:
        return {}
    session_id = subject.entity_id
    found = await newest_stands(connection, tenant_id, session_ids=[session_id])
    return {"contexts": [shapes.render_stand(each) for each in found.get(session_id, ())]}


async def get_history(request: Request, kind: EntityKind) -> Response:
    """List how a level changed, newest first."""
    caller, deps = entered(request, READ_SCOPES)
    cursor, limit = page_of(request)
    async with deps.db.snapshot() as connection:
        subject = await subject_of(request, connection, kind)
        if subject.kind is EntityKind.USER:
            found = await explanation.history(
                connection, caller.tenant_id, subject.entity_id, before=cursor, limit=limit
            )
            items = [rendering.render_change(each) for each in found]
            return listed(items, limit, [each.history_id for each in found])
        weights = await weights_of(connection, deps, caller.tenant_id)
        changes = await standing.history(connection, caller.tenant_id, subject, weights)
    skipped = _position(cursor)
    page = [shapes.render_replayed(each) for each in changes[skipped : skipped + limit]]
    return listed(page, limit, [str(skipped + number + 1) for number in range(len(page))])


async def get_explanation(request: Request, kind: EntityKind) -> Response:
    """Explain a level: the evidence, what counts, what would end each finding, what people said."""
    caller, deps = entered(request, READ_SCOPES)
    async with deps.db.snapshot() as connection:
        subject = await subject_of(request, connection, kind)
        weights = await weights_of(connection, deps, caller.tenant_id)
        known = await standing.known_now(connection, caller.tenant_id, subject, now=weights.now)
        found = standing.stand(known, weights)
        said = await feedback_store.list_of(
            connection, caller.tenant_id, subject.entity_id, limit=LISTED_MAX
        )
        if subject.kind is EntityKind.USER:
            caps = await deps.caps(connection, {caller.tenant_id})
            explained = await explanation.explain(
                connection, caller.tenant_id, subject.entity_id, caps=caps, now=weights.now
            )
            shown = rendering.render_explanation(explained)
        else:
            shown = shapes.render_standing(found) | {"evidence": shapes.render_evidence(found)}
            shown |= await _contexts(connection, caller.tenant_id, subject)
    shown["score"] = found.ranking.score
    shown["ranking"] = shapes.render_ranking(found.ranking)
    shown["feedback"] = [shapes.render_feedback(each) for each in said]
    return json_answer(shown)


async def list_detections(request: Request) -> Response:
    """List detections, newest first.

    `?user=|device=|session=|app=|service_account=&name=&timing=&issuer=&state=&cursor=&limit=`.
    """
    caller, deps = entered(request, READ_SCOPES)
    cursor, limit = page_of(request)
    params = request.query_params
    async with deps.db.snapshot() as connection:
        subject = await _filtered_by(request, connection, deps, caller.tenant_id)
        query = DetectionQuery(
            entity_id=None if subject is None else subject.entity_id,
            state=_one_of(params.get("state"), DetectionState, "state"),
            timing=_one_of(params.get("timing"), Timing, "timing"),
            issuer=_text(params.get("issuer"), "issuer", ISSUER_CHARS_MAX),
            name=_text(params.get("name"), "name", NAME_CHARS_MAX),
            before=cursor,
            limit=limit,
        )
        found = await service.list_detections(connection, caller.tenant_id, query)
    items = [rendering.render_detection(each) for each in found]
    return listed(items, limit, [each.detection_id for each in found])


async def get_detection(request: Request) -> Response:
    """Answer one detection as it stands."""
    caller, deps = entered(request, READ_SCOPES)
    detection_id = reference_of(request)
    async with deps.db.snapshot() as connection:
        found = await service.get_detection(connection, caller.tenant_id, detection_id)
    return json_answer(rendering.render_detection(found))


# --- reading requests ---------------------------------------------------------------------------


async def weights_of(
    connection: Connection, deps: RiskDeps, tenant_id: str, *, now: datetime | None = None
) -> Weights:
    """Return what findings of a tenant are weighed with; now: None for the present."""
    caps = await deps.caps(connection, {tenant_id})
    return Weights(
        caps={issuer: cap for (tenant, issuer), cap in caps.items() if tenant == tenant_id},
        reliability=await feedback_store.reliability(connection, tenant_id),
        now=deps.clock.now() if now is None else now,
    )


async def _filtered_by(
    request: Request, connection: Connection, deps: RiskDeps, tenant_id: str
) -> Subject | None:
    for kind in PLURALS.values():
        if reference := request.query_params.get(kind.value):
            return await service.find(
                connection, tenant_id, kind=kind, reference=reference, has_app=deps.has_app
            )
    return None


def _as_of(request: Request, deps: RiskDeps) -> datetime | None:
    # A `+` in a query string is a space to those who forget to write %2B.
    text = request.query_params.get("asOf")
    moment = parse_moment(None if text is None else text.replace(" ", "+"), "asOf")
    if moment is not None and moment > deps.clock.now():
        raise Invalid("asOf is in the future.", pointers=(("asOf", "not later than now"),))
    return moment


def _one_of(wanted: str | None, words: type[_Word], at: str) -> _Word | None:
    if wanted is None:
        return None
    if wanted not in {each.value for each in words}:
        raise Invalid(f"{at} is one of {', '.join(words)}.", pointers=((at, "unknown"),))
    return words(wanted)


def _text(wanted: str | None, at: str, chars_max: int) -> str | None:
    if wanted is not None and (len(wanted) > chars_max or not wanted.isprintable()):
        raise Invalid(f"{at} is too long, or no text.", pointers=((at, "unreadable"),))
    return wanted


def _position(cursor: str) -> int:
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 6):  # noqa: PLR2004 - digits
        raise Invalid("The cursor is not one of ours.", pointers=(("cursor", "unreadable"),))
    return int(cursor)


async def subject_of(request: Request, connection: Connection, kind: EntityKind) -> Subject:
    """Return the entity that the address names. Raises NotFound, Invalid."""
    return await service.find(
        connection,
        request.state.caller.tenant_id,
        kind=kind,
        reference=reference_of(request),
        has_app=request.app.state.risk.has_app,
    )


def reference_of(request: Request) -> str:
    """Return what the address names: it has one parameter."""
    (reference,) = request.path_params.values()
    return str(reference)


def parameter_of(kind: EntityKind) -> str:
    """Return the parameter of a path. References hold slashes (`iss_sub:https://…|…`)."""
    return "{user:path}" if kind is EntityKind.USER else "{id:path}"


def routes_of(plural: str, kind: EntityKind) -> tuple[Route, ...]:
    """Return the routes of a kind."""
    at = f"/v1/risk/{plural}"
    reads = {"/history": get_history, "/explain": get_explanation, "": get_risk}
    return (
        *(
            Route(f"{at}/{parameter_of(kind)}{below}", partial(read, kind=kind), methods=["GET"])
            for below, read in reads.items()
        ),
        Route(at, partial(list_risks, kind=kind), methods=["GET"]),
    )


ROUTES: Final = (
    *(route for plural, kind in PLURALS.items() for route in routes_of(plural, kind)),
    Route("/v1/detections/{detection}", get_detection, methods=["GET"]),
    Route("/v1/detections", list_detections, methods=["GET"]),
)
