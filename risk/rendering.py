"""JSON shapes of the risk API. Pure; times are RFC 3339."""

from __future__ import annotations

from risk import catalogue
from risk.assessment import Judgement
from risk.entities.model import Link
from risk.explanation import Evidence, Explanation, UserRisk
from risk.levels.model import LevelChange
from risk.model import Assessment, Cause, Clearance, Detection, Pin


def render_short(risk: UserRisk) -> dict[str, object]:
    """Render `GET /api/v1/users/{id}/risk`. riskReason: the first of the reasons."""
    reasons = list(risk.record.reasons) if risk.record else []
    rendered: dict[str, object] = {
        "userId": risk.user_id,
        "riskLevel": risk.level.name,
        "riskReason": reasons[0] if reasons else "",
        "reasons": reasons,
        "score": risk.record.score if risk.record else None,
        "computedAt": risk.record.computed_at.isoformat() if risk.record else None,
    }
    if risk.pin:
        rendered["pin"] = render_pin(risk.pin)
    return rendered


def render_set(assessment: Assessment) -> dict[str, object]:
    """Render the answer to `PUT /api/v1/users/{id}/risk`: the effective level and why."""
    return {
        "userId": assessment.user_id,
        "riskLevel": assessment.level.name,
        "previousLevel": assessment.previous_level.name,
        "riskReason": assessment.reasons[0] if assessment.reasons else "",
        "reasons": list(assessment.reasons),
        "score": assessment.score,
        "causes": [render_cause(cause) for cause in assessment.causes],
        "wouldHave": sorted(assessment.would_have),
        "traceId": assessment.trace_id,
    }


def render_user(risk: UserRisk) -> dict[str, object]:
    """Render `GET /v1/risk/users/{id}` and an item of the list."""
    record = risk.record
    return {
        "user_id": risk.user_id,
        "label": risk.label,
        "level": risk.level.name,
        "score": record.score if record else None,
        "reasons": list(record.reasons) if record else [],
        "cause_ids": list(record.cause_ids) if record else [],
        "computed_at": record.computed_at.isoformat() if record else None,
        "pin": render_pin(risk.pin) if risk.pin else None,
    }


def render_change(change: LevelChange) -> dict[str, object]:
    """Render one line of a user's history."""
    return {
        "history_id": change.history_id,
        "previous_level": change.previous_level.name,
        "level": change.level.name,
        "at": change.at.isoformat(),
        "reasons": list(change.reasons),
        "cause_ids": list(change.cause_ids),
        "trace_id": change.trace_id,
    }


def render_explanation(explanation: Explanation) -> dict[str, object]:
    """Render `GET /v1/risk/users/{id}/explain`."""
    return {
        "user_id": explanation.user_id,
        **_render_judgement(explanation.judgement),
        "pin": render_pin(explanation.pin) if explanation.pin else None,
        "evidence": [_render_evidence(each) for each in explanation.evidence],
        "remedies": [_render_remedy(each) for each in explanation.remedies],
    }


def render_detection(detection: Detection) -> dict[str, object]:
    """Render a detection as it stands."""
    finding = catalogue.finding_type(detection.name)
    return {
        "detection_id": detection.detection_id,
        "revision": detection.revision,
        "name": detection.name,
        "title": finding.title,
        "timing": finding.timing.value,
        "tactics": list(finding.tactics),
        "suggested": finding.suggested,
        "mitre": list(finding.mitre),
        "level": detection.level.name,
        "confidence": detection.confidence,
        "source_class": detection.source_class,
        "mode": detection.mode.value,
        "entity": {"kind": detection.entity_kind.value, "id": detection.entity_id},
        "related": list(detection.related),
        "issuer": detection.issuer,
        "occurred_at": detection.occurred_at.isoformat(),
        "first_seen_at": detection.since.isoformat(),
        "detected_at": detection.detected_at.isoformat(),
        "reasons": list(detection.reasons),
        "evidence": [
            {"signal_id": seen.signal_id, "occurred_at": seen.occurred_at.isoformat()}
            for seen in detection.sightings
        ],
        "clears_on": list(detection.clears_on),
        "state": detection.state.value,
        "state_at": detection.state_at.isoformat(),
        "state_by": detection.state_by,
    }


def render_cause(cause: Cause) -> dict[str, object]:
    """Render a cause of a level."""
    return {
        "detection_id": cause.detection_id,
        "name": cause.name,
        "level": cause.level.name,
        "issuer": cause.issuer,
        "summary": cause.summary,
    }


def render_pin(pin: Pin) -> dict[str, object]:
    """Render a pin."""
    return {
        "level": pin.level.name,
        "until": pin.until.isoformat() if pin.until else None,
        "reason": pin.reason,
        "set_by": pin.set_by,
        "set_at": pin.set_at.isoformat(),
    }


def render_link(link: Link) -> dict[str, object]:
    """Render a link from a device to its user."""
    return {
        "device_id": link.device_id,
        "kind": link.kind.value,
        "source": link.source,
        "since": link.since.isoformat(),
        "until": link.until.isoformat() if link.until else None,
    }


def _render_judgement(judgement: Judgement) -> dict[str, object]:
    result = judgement.result
    return {
        "level": result.level.name,
        "score": result.score,
        "reasons": list(result.reasons),
        "causes": [render_cause(cause) for cause in judgement.causes],
        "next_change_at": result.next_change_at.isoformat() if result.next_change_at else None,
        "policy": {
            "rule": judgement.decision.rule,
            "mode": judgement.decision.mode.value,
            "actions": sorted(judgement.decision.actions),
            "would_have": sorted(judgement.would_have),
        },
    }


def _render_evidence(evidence: Evidence) -> dict[str, object]:
    return {
        **render_detection(evidence.detection),
        "counts_as": evidence.counts_as.name if evidence.counts_as else None,
        "is_cause": evidence.is_cause,
        "via": [render_link(link) for link in evidence.via],
        "expires_at": evidence.expires_at.isoformat() if evidence.expires_at else None,
    }


def _render_remedy(remedy: Clearance) -> dict[str, object]:
    return {
        "remedy": remedy.remedy,
        "entity_id": remedy.entity_id,
        "issuer": remedy.issuer,
        "level": remedy.level.name if remedy.level else None,
        "occurred_at": remedy.occurred_at.isoformat(),
        "signal_id": remedy.signal_id,
    }
