"""JSON shapes of risk for every kind of entity. Pure; times are RFC 3339."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from risk import level as levels
from risk import standing
from risk.baselines.model import EVENTS_MIN, Baseline
from risk.feedback.model import Feedback
from risk.inline.model import Stand
from risk.model import EntityKind, Level
from risk.ranking import Ranking
from risk.rendering import render_detection, render_link, render_pin
from risk.standing import Change, Standing

#: how the paths call the kinds
PLURALS: Final = {
    "users": EntityKind.USER,
    "devices": EntityKind.DEVICE,
    "sessions": EntityKind.SESSION,
    "apps": EntityKind.APP,
    "service-accounts": EntityKind.SERVICE_ACCOUNT,
}


def render_standing(found: Standing, *, as_of: datetime | None = None) -> dict[str, object]:
    """Render the risk of one entity, and an item of a list."""
    subject, result = found.known.subject, found.result
    rendered: dict[str, object] = {
        "kind": subject.kind.value,
        "id": subject.entity_id,
        "level": result.level.name,
        "score": found.ranking.score,
        "reasons": list(result.reasons),
        "cause_ids": list(result.cause_ids),
        "next_change_at": result.next_change_at.isoformat() if result.next_change_at else None,
        "pin": render_pin(found.known.pin) if found.known.pin and result.pinned else None,
    }
    if subject.kind is EntityKind.USER:
        rendered["user_id"] = subject.entity_id
    if subject.session is not None:
        rendered |= {
            "sid": subject.session.sid,
            "iss": subject.session.iss,
            "user_id": subject.session.user_id,
        }
    if as_of is not None:
        rendered["as_of"] = as_of.isoformat()
    return rendered


def render_stand(stand: Stand) -> dict[str, object]:
    """Render what the session check settled about one context of a session."""
    return {
        "level": stand.level,
        "state": stand.state,
        "decision": stand.decision,
        "reasons": list(stand.reasons),
        **{name: stand.context.get(name) for name in ("ip", "asn", "country")},
        "app_id": stand.app_id or None,
        "trace_id": stand.trace_id or None,
        "since": stand.since.isoformat(),
        "at": stand.at.isoformat(),
    }


def render_baseline(known: Baseline) -> dict[str, object]:
    """Render how well a user is known: while it is learned, novelty alone is at most MEDIUM."""
    return {
        "is_learning": known.is_learning,
        "good_sign_ins": known.events,
        "needed": EVENTS_MIN,
    }


def render_past(found: Standing, *, kept: Level | None, as_of: datetime) -> dict[str, object]:
    """Render what was known at a time. kept: the level of a user as it was told then.

    It stands as the level; what a replay gives stands beside it, and differs only when somebody
    changed the caps of issuers since.
    """
    rendered = render_standing(found, as_of=as_of)
    rendered["evidence"] = render_evidence(found)
    if kept is not None:
        rendered["replayed_level"] = rendered["level"]
        rendered["level"] = kept.name
    return rendered


def render_evidence(found: Standing) -> list[dict[str, object]]:
    """Render everything that is known of an entity, and what would end each of it."""
    causes = set(found.result.cause_ids)
    shown: list[dict[str, object]] = []
    for each in sorted(found.known.evidence, key=lambda each: each.detection_id):
        counts_as = found.counts_as.get(each.detection_id)
        expires_at = levels.expires_at(each)
        shown.append(
            {
                **render_detection(each),
                "counts_as": counts_as.name if counts_as else None,
                "is_cause": each.detection_id in causes,
                "via": [render_link(link) for link in standing.via(found.known, each)],
                "expires_at": expires_at.isoformat() if expires_at else None,
            }
        )
    return shown


def render_ranking(ranking: Ranking) -> dict[str, object]:
    """Render a score with its terms: prior and the terms that count add up to it."""
    return {
        "score": ranking.score,
        "prior": ranking.prior,
        "terms": [
            {
                "detection_id": each.detection_id,
                "name": each.name,
                "issuer": each.issuer,
                "source_class": each.source_class,
                "points": each.points,
                "decay": each.decay,
                "reliability": each.reliability,
                "counts": each.counts,
            }
            for each in ranking.terms
        ],
    }


def render_feedback(feedback: Feedback) -> dict[str, object]:
    """Render one word of a person."""
    return {
        "feedback_id": feedback.feedback_id,
        "word": feedback.word.value,
        "level": feedback.level.name if feedback.level else None,
        "detection_id": feedback.detection_id,
        "reason": feedback.reason,
        "by": feedback.by,
        "at": feedback.at.isoformat(),
        "until": feedback.until.isoformat() if feedback.until else None,
        "undone_at": feedback.undone_at.isoformat() if feedback.undone_at else None,
        "undone_by": feedback.undone_by,
    }


def render_replayed(change: Change) -> dict[str, object]:
    """Render one change of a level that is not kept."""
    return {
        "previous_level": change.previous_level.name,
        "level": change.level.name,
        "at": change.at.isoformat(),
        "reasons": list(change.reasons),
        "cause_ids": list(change.cause_ids),
    }
