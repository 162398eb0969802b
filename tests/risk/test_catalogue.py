"""The catalogue of detections: whole, consistent, and told truthfully in its page."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from risk import announced, catalogue
from risk.catalogue_entries import ENTRIES, LAUNCH, TWELVE
from risk.catalogue_page import render_page
from risk.drafts import DetectionDraft
from risk.finding_type import SOURCE_CLASSES, CauseClass, FindingType
from risk.mapping import shipped_mappings
from risk.mappings.defaults import DEFAULT_MAPPINGS
from risk.mappings.model import Raise
from risk.model import EntityKind, Level
from runtime.errors import Invalid

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("finding", ENTRIES, ids=lambda each: each.name)
RAISABLE = [each for each in ENTRIES if each.is_raisable]


# --- the entries --------------------------------------------------------------------------------


def test_row_7_the_twelve_and_the_launch_list_are_there() -> None:
    assert len(TWELVE) == 12
    assert {"impossible_travel", "new_country", "push_harassment", "push_spray", "fraud_report",
            "anomalous_token", "aitm_replay", "mass_app_access", "dormant_account_use",
            "privileged_change", "device_signal_lost", "honeytoken_use"} <= set(LAUNCH)  # fmt: skip
    assert len({each.name for each in ENTRIES}) == len(ENTRIES)


@EVERY
def test_row_7_every_detection_carries_attack_ids(finding: FindingType) -> None:
    assert finding.tactics, "no tactic"
    assert finding.mitre, "no technique"
    assert all(re.fullmatch(r"TA\d{4}", each) for each in finding.tactics)
    assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", each) for each in finding.mitre)


@EVERY
def test_every_detection_says_what_people_need_to_know(finding: FindingType) -> None:
    assert re.fullmatch(r"[a-z_]{3,64}", finding.name)
    assert finding.source_class in SOURCE_CLASSES
    assert all((finding.title, finding.fires_when, finding.twin, finding.suggested))
    assert 0 < finding.confidence_min <= 1
    assert finding.clears_on[-1] == catalogue.CONFIRMED_SAFE


@EVERY
def test_row_5_low_and_medium_age_and_high_stays(finding: FindingType) -> None:
    expected = {
        CauseClass.BRUTE_FORCE: timedelta(hours=24),
        CauseClass.THREAT_IP: timedelta(days=7),
        CauseClass.TRAVEL: timedelta(hours=72),
    }.get(finding.cause)
    by_level = {Level.LOW: timedelta(days=30), Level.MEDIUM: timedelta(days=14), Level.HIGH: None}
    assert catalogue.life(finding.name, finding.level) == (
        finding.life or expected or by_level[finding.level]
    )
    if finding.floor:
        assert catalogue.life(finding.name, Level.HIGH) is None


def test_what_events_of_providers_raise_is_in_the_catalogue_at_no_lower_level() -> None:
    raised = [
        effect
        for mapping in DEFAULT_MAPPINGS
        for rule in mapping.rules
        for effect in rule.then
        if isinstance(effect, Raise)
    ]
    for each in raised:
        known = catalogue.FINDING_TYPES[each.detection]
        assert Level[each.level] <= known.level
        assert each.about == known.about.value
    assert not announced.TYPES & set(shipped_mappings())


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "detections.md").read_text()
    assert page == render_page(), "python -m risk.catalogue_page > docs/detections.md"


# --- said by name -------------------------------------------------------------------------------


@pytest.mark.parametrize("finding", RAISABLE, ids=lambda each: each.name)
def test_a_detection_by_name_has_what_the_catalogue_says(finding: FindingType) -> None:
    said = announced.parse_detection({"name": finding.name, "reasons": ["seen", "twice"]})
    assert said == DetectionDraft(
        kind=finding.about,
        name=finding.name,
        level=finding.level,
        clears_on=finding.clears_on,
        reason="seen; twice",
        confidence=1.0,
        source_class=finding.source_class,
    )


def test_a_detection_may_claim_less_but_not_more() -> None:
    less = announced.parse_detection({"name": "threat_intelligence", "level": "LOW"})
    assert less.level is Level.LOW
    with pytest.raises(Invalid) as refused:
        announced.parse_detection({"name": "brute_force_attack", "level": "HIGH"})
    assert refused.value.pointers[0][0] == "/level"


def test_a_name_of_ones_own_may_claim_anything() -> None:
    said = announced.parse_detection({"name": "x_badge_shared", "level": "HIGH"})
    assert (said.level, said.clears_on) == (Level.HIGH, (catalogue.CONFIRMED_SAFE,))


def test_apps_and_service_accounts_are_named_by_id() -> None:
    said = announced.parse_detection(
        {"name": "anomalous_token", "entity_kind": "app", "entity_id": "app_1"}
    )
    assert (said.kind, said.entity_id) == (EntityKind.APP, "app_1")


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": "no_such_thing"}, "/name"),
        ({"name": "admin_confirmed_compromised"}, "/name"),
        ({"name": "admin_reported_user_risk"}, "/name"),
        ({"name": "session_risk"}, "/name"),
        ({"name": "brute_force_attack", "level": "high"}, "/level"),
        ({"name": "brute_force_attack", "level": 3}, "/level"),
        ({"name": "brute_force_attack", "confidence": True}, "/confidence"),
        ({"name": "brute_force_attack", "confidence": 1.01}, "/confidence"),
        ({"name": "brute_force_attack", "confidence": "1"}, "/confidence"),
        ({"name": "brute_force_attack", "reasons": "seen"}, "/reasons"),
        ({"name": "brute_force_attack", "reasons": ["a\nb"]}, "/reasons"),
        ({"name": "brute_force_attack", "reasons": ["x"] * 21}, "/reasons"),
        ({"name": "brute_force_attack", "clears_on": ["logout"]}, "/clears_on"),
        ({"name": "brute_force_attack", "entity_kind": "user"}, "/entity_kind"),
        ({"name": "device_compromised", "entity_kind": "app"}, "/entity_kind"),
        ({"name": "brute_force_attack", "entity_kind": "app"}, "/entity_id"),
        ({"name": "brute_force_attack", "entity_kind": "app", "entity_id": "é"}, "/entity_id"),
    ],
)
def test_a_detection_that_is_none_is_refused(payload: dict[str, object], pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        announced.parse_detection(payload)
    assert refused.value.pointers[0][0] == pointer


@pytest.mark.parametrize(
    "remedy",
    ["confirmed_safe", "confirmed_safe:brute_force_attack", "admin_lowered", "sessions_secured",
     "session_risk_lowered", "credential_changed:", "x_own", "logout", 7, None],
)  # fmt: skip
def test_what_people_say_or_what_follows_is_no_remedy_by_name(remedy: object) -> None:
    with pytest.raises(Invalid):
        announced.parse_remedy({"remedy": remedy})


def test_the_catalogue_says_which_findings_the_hub_makes_itself() -> None:
    """Each of them has a detector, and a test of it over HTTP."""
    assert {each.name for each in ENTRIES if each.by_hub} == {
        "brute_force_attack",
        "dormant_account_use",
        "entity_critical_action_from_high_threat_ip",
        "impossible_travel",
        "new_country",
        "suspicious_app_access",
    }
