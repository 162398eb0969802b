"""What each event means, and whom it names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk import catalogue, mapping, naming
from risk.drafts import ClearanceDraft, DetectionDraft, SessionEndDraft, SessionSeenDraft
from risk.model import REASON_CHARS_MAX, EntityKind, Level
from ssf.events.registry import STANDARD_EVENT_TYPES
from tests.risk.kit import CAEP, IDP, LAPTOP, NOW, OKTA, RISC, TINA, hours, pair, signal

SCIM = "urn:ietf:params:scim:event:prov:"


def drafts(event: str, payload: dict[str, Any] | None = None) -> list[Any]:
    return list(mapping.drafts(signal(event, payload)))


def level_change(principal: str, current: str) -> dict[str, str]:
    return {"principal": principal, "current_level": current}


def vendor_levels(current: str, previous: str = "none") -> dict[str, str]:
    return {"current_level": current, "previous_level": previous}


@pytest.mark.requirement("CAEP-22", "CAEP-28", "CAEP-29", "RISC-3", "RISC-7")
@pytest.mark.parametrize(
    ("event", "payload", "name", "level", "kind"),
    [
        (OKTA + "device-risk-change", vendor_levels("high"),
         "device_compromised", Level.HIGH, EntityKind.DEVICE),
        (OKTA + "device-risk-change", vendor_levels("medium"),
         "device_at_risk", Level.MEDIUM, EntityKind.DEVICE),
        (OKTA + "user-risk-change", vendor_levels("high"),
         "partner_reported_risk", Level.HIGH, EntityKind.USER),
        (OKTA + "user-risk-change", vendor_levels("medium"),
         "partner_reported_risk", Level.MEDIUM, EntityKind.USER),
        (OKTA + "user-risk-change", vendor_levels("low", "secure"),
         "partner_reported_risk", Level.LOW, EntityKind.USER),
        (CAEP + "device-compliance-change",
         {"previous_status": "compliant", "current_status": "not-compliant"},
         "device_not_compliant", Level.HIGH, EntityKind.DEVICE),
        (CAEP + "risk-level-change", level_change("USER", "HIGH"),
         "partner_reported_risk", Level.HIGH, EntityKind.USER),
        (CAEP + "risk-level-change", level_change("DEVICE", "HIGH"),
         "device_compromised", Level.HIGH, EntityKind.DEVICE),
        (CAEP + "risk-level-change", level_change("SESSION", "HIGH"),
         "session_influenced_user_risk", Level.MEDIUM, EntityKind.USER),
        (CAEP + "assurance-level-change",
         {"namespace": "NIST-AAL", "current_level": "aal1", "change_direction": "decrease"},
         "assurance_lowered", Level.LOW, EntityKind.USER),
        (RISC + "credential-compromise", {"credential_type": "password"},
         "password_compromised", Level.HIGH, EntityKind.USER),
        (RISC + "credential-compromise", {"credential_type": "pin"},
         "credential_compromised", Level.HIGH, EntityKind.USER),
        (RISC + "account-credential-change-required", {},
         "credential_change_required", Level.MEDIUM, EntityKind.USER),
        (RISC + "account-disabled", {"reason": "hijacking"},
         "account_hijacked", Level.HIGH, EntityKind.USER),
        (RISC + "account-disabled", {"reason": "bulk-account"},
         "account_fraudulent", Level.MEDIUM, EntityKind.USER),
        (RISC + "account-disabled", {}, "account_disabled", Level.LOW, EntityKind.USER),
        (RISC + "recovery-activated", {}, "recovery_activated", Level.LOW, EntityKind.USER),
        (RISC + "recovery-information-changed", {},
         "recovery_information_changed", Level.LOW, EntityKind.USER),
        (SCIM + "deactivate", {}, "account_disabled", Level.LOW, EntityKind.USER),
    ],
)  # fmt: skip
def test_an_event_becomes_a_finding(
    event: str, payload: dict[str, Any], name: str, level: Level, kind: EntityKind
) -> None:
    # What is said of a session is kept with the session as well.
    found, *others = [each for each in drafts(event, payload) if isinstance(each, DetectionDraft)]
    assert all(each.kind is EntityKind.SESSION for each in others)
    assert (found.name, found.level, found.kind) == (name, level, kind)
    assert catalogue.CONFIRMED_SAFE in found.clears_on
    assert found.name in catalogue.FINDING_TYPES


@pytest.mark.parametrize(
    ("event", "payload", "remedy", "level"),
    [
        (OKTA + "device-risk-change", vendor_levels("low"), "device_healthy", None),
        (OKTA + "device-risk-change", vendor_levels("secure"), "device_healthy", None),
        (OKTA + "device-risk-change", vendor_levels("none"), "device_healthy", None),
        (OKTA + "device-risk-change", vendor_levels("medium"), "device_healthy", Level.MEDIUM),
        (OKTA + "user-risk-change", vendor_levels("low", "high"), "partner_lowered", None),
        (OKTA + "user-risk-change", vendor_levels("low", "none"), "partner_lowered", Level.LOW),
        (OKTA + "user-risk-change", vendor_levels("none"), "partner_lowered", None),
        (OKTA + "user-risk-change", vendor_levels("medium"), "partner_lowered", Level.MEDIUM),
        (CAEP + "device-compliance-change",
         {"previous_status": "not-compliant", "current_status": "compliant"},
         "device_healthy", None),
        (CAEP + "risk-level-change", level_change("USER", "LOW"), "partner_lowered", None),
        (CAEP + "risk-level-change", level_change("DEVICE", "LOW"), "device_healthy", None),
        (CAEP + "risk-level-change", level_change("SESSION", "LOW"), "session_risk_lowered", None),
        (CAEP + "credential-change", {"credential_type": "password", "change_type": "create"},
         "credential_changed:password", None),
        (CAEP + "credential-change", {"credential_type": "pin", "change_type": "delete"},
         "credential_changed:pin", None),
        (RISC + "account-enabled", {}, "account_enabled", None),
        (SCIM + "activate", {}, "account_enabled", None),
    ],
)  # fmt: skip
def test_an_event_becomes_a_remedy(
    event: str, payload: dict[str, Any], remedy: str, level: Level | None
) -> None:
    found, *others = [each for each in drafts(event, payload) if isinstance(each, ClearanceDraft)]
    assert all(each.kind is EntityKind.SESSION for each in others)
    assert (found.remedy, found.level) == (remedy, level)


@pytest.mark.requirement("RISC-14", "SCIM-7", "OLD-4")
@pytest.mark.parametrize(
    "event",
    [
        CAEP + "session-revoked",
        RISC + "sessions-revoked",
        RISC + "account-purged",
        RISC + "account-disabled",
        SCIM + "delete",
        SCIM + "deactivate",
    ],
)
def test_an_event_ends_sessions(event: str) -> None:
    assert SessionEndDraft() in drafts(event)


def test_session_events_feed_the_index() -> None:
    established = drafts(CAEP + "session-established", {"acr": "AAL2", "amr": ["pwd", "otp"]})
    assert established == [SessionSeenDraft(acr="AAL2", amr=("pwd", "otp"))]
    assert drafts(CAEP + "session-presented") == [SessionSeenDraft()]


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (CAEP + "token-claims-change", {"claims": {"role": "x"}}),
        (CAEP + "credential-change", {"credential_type": "pin", "change_type": "create"}),
        (CAEP + "assurance-level-change", {"namespace": "NIST-AAL", "current_level": "aal2"}),
        (CAEP + "risk-level-change", level_change("TENANT", "HIGH")),
        (CAEP + "risk-level-change", level_change("USER", "EXTREME")),
        (CAEP + "risk-level-change", level_change("DEVICE", "EXTREME")),
        (CAEP + "risk-level-change", level_change("SESSION", "EXTREME")),
        (RISC + "opt-in", {}),
        (RISC + "identifier-changed", {}),
        (OKTA + "ip-change", {"current_ip_address": "192.0.2.1", "previous_ip_address": "::1"}),
        ("https://schemas.openid.net/secevent/ssf/event-type/verification", {}),
        ("https://vendor.example/event-type/odd", {"a": 1}),
    ],
)
def test_an_event_without_a_meaning_for_risk_gives_nothing(
    event: str, payload: dict[str, Any]
) -> None:
    assert drafts(event, payload) == []


def test_the_reason_is_english_if_there_is_one_and_bounded() -> None:
    def reason(texts: dict[str, str]) -> str:
        payload = vendor_levels("high") | {"reason_admin": texts}
        (found,) = drafts(OKTA + "device-risk-change", payload)
        assert isinstance(found, DetectionDraft)
        return found.reason

    assert reason({"de": "Schadsoftware", "en": "Malware"}) == "Malware"
    assert reason({"fr": "Maliciel", "de": "Schadsoftware"}) == "Schadsoftware"
    assert len(reason({"en": "x" * 9000})) == REASON_CHARS_MAX


def test_every_kind_of_finding_carries_attack_ids() -> None:
    assert all(finding.mitre for finding in catalogue.FINDING_TYPES.values())


def test_a_credential_type_from_outside_is_bounded() -> None:
    assert len(catalogue.credential_changed("x" * 5000)) < 96


@given(st.sampled_from(sorted(STANDARD_EVENT_TYPES)), st.text(max_size=20))
def test_mapping_is_total(event_type: str, text: str) -> None:
    payload: dict[str, Any] = {
        "principal": text,
        "current_level": text,
        "previous_level": text,
        "current_status": text,
        "previous_status": text,
        "credential_type": text,
        "change_type": text,
        "namespace": text,
        "claims": {"a": text},
        "reason": text,
    }
    if event_type.startswith("urn:"):
        payload = {"attributes": [text]} if event_type.endswith("notice") else {"data": {}}
    for draft in drafts(event_type, payload):
        assert not isinstance(draft, DetectionDraft) or draft.name in catalogue.FINDING_TYPES


# --- whom it names ------------------------------------------------------------------------------


def test_a_complex_subject_names_user_device_and_session() -> None:
    about = pair(TINA, LAPTOP) | {
        "session": {"format": "opaque", "id": "s1"},
        "tenant": {"format": "opaque", "id": "t"},
    }
    names = naming.names(signal(CAEP + "session-revoked", about=about))
    assert [each.key for each in names.user] == ["email:tina@customer.example"]
    assert [each.key for each in names.device] == ["opaque:LT-1"]
    assert [each.get("id") for each in names.sessions] == ["s1"]
    assert (names.unsure, names.maybe_sessions) == ((), ())


def test_a_simple_subject_of_a_device_event_is_a_device_unless_it_is_a_persons_name() -> None:
    event, payload = OKTA + "device-risk-change", vendor_levels("high")
    opaque = naming.names(signal(event, payload, about=LAPTOP))
    assert [each.kinds for each in opaque.unsure] == [(EntityKind.DEVICE, EntityKind.USER)]
    email = naming.names(signal(event, payload, about=TINA))
    assert [each.kinds for each in email.user] == [(EntityKind.USER,)]


def test_a_simple_subject_of_another_event_is_a_user() -> None:
    names = naming.names(signal(RISC + "account-enabled", about=LAPTOP))
    assert [each.kinds for each in names.unsure] == [(EntityKind.USER,)]


def test_one_persons_name_among_aliases_tells_what_all_are() -> None:
    about = {"format": "aliases", "identifiers": [LAPTOP, TINA]}
    names = naming.names(signal(RISC + "account-enabled", about=about))
    assert {each.key for each in names.user} == {"opaque:LT-1", "email:tina@customer.example"}


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (CAEP + "session-revoked", {}),
        (CAEP + "session-presented", {}),
        (CAEP + "risk-level-change", level_change("SESSION", "HIGH")),
    ],
)
def test_a_simple_subject_of_a_session_event_may_be_a_session(
    event: str, payload: dict[str, Any]
) -> None:
    names = naming.names(signal(event, payload, about={"format": "opaque", "id": "s1"}))
    assert len(names.maybe_sessions) == 1


@pytest.mark.requirement("SET-18")
def test_nothing_occurs_later_than_we_heard_of_it() -> None:
    ahead = signal(CAEP + "session-revoked", iss=IDP, at=NOW + hours(5), received_at=NOW)
    assert naming.occurred_at(ahead) == NOW
    behind = signal(CAEP + "session-revoked", iss=IDP, at=NOW - hours(5))
    assert naming.occurred_at(behind) == NOW - hours(5)


def test_what_a_session_leads_to_ends_as_the_catalogue_says() -> None:
    """Nothing but a person's word ended it: the mapping left the remedies out."""
    found = [
        each
        for each in drafts(CAEP + "risk-level-change", level_change("SESSION", "HIGH"))
        if isinstance(each, DetectionDraft)
    ]
    assert [each.name for each in found] == ["session_influenced_user_risk", "session_risk"]
    for each in found:
        assert each.clears_on == catalogue.finding_type(each.name).clears_on
