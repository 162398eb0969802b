"""What ends each cause, and what does not: the whole matrix of the catalogue (row 5)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from risk import catalogue
from risk.catalogue_entries import ENTRIES
from risk.finding_type import PASSWORD_CHANGED, CauseClass, FindingType
from risk.level import level, settle
from risk.model import Clearance, Detection, DetectionState, Level, SignalMode
from tests.risk.kit import EDR, MDM, NOW, clearance, detection, hours

#: every remedy there is, said about the right entity by the right issuer, a day later
REMEDIES = (
    PASSWORD_CHANGED,
    "credential_changed:fido2-roaming",
    catalogue.DEVICE_HEALTHY,
    catalogue.PARTNER_LOWERED,
    catalogue.ACCOUNT_ENABLED,
    catalogue.SESSION_RISK_LOWERED,
    catalogue.ADMIN_LOWERED,
    catalogue.FACTORS_REVIEWED,
    catalogue.SESSIONS_REVOKED,
    catalogue.PHISHING_RESISTANT_SIGN_IN,
    catalogue.CONFIRMED_SAFE,
)
#: class of a cause -> what ends it at once (threat-protection §1.3); a person's word ends any.
#: Written out here: a slip in the catalogue must not be its own proof.
CLEARED_BY = {
    CauseClass.PASSWORD: {"credential_changed:password"},
    # Which type it was, only the event knows.
    CauseClass.CREDENTIAL: set(),
    # Either half alone is not enough: see below for both.
    CauseClass.SESSION_HIJACK: set(),
    CauseClass.SESSION_RISK: {"session_risk_lowered"},
    CauseClass.DEVICE: {"device_healthy"},
    CauseClass.PARTNER: {"partner_lowered"},
    CauseClass.ACCOUNT: {"account_enabled"},
    CauseClass.USER_REPORT: {"factors_reviewed"},
    CauseClass.ADMIN: {"admin_lowered"},
    # By time and by a person's word alone.
    CauseClass.BRUTE_FORCE: set(),
    CauseClass.THREAT_IP: set(),
    CauseClass.TRAVEL: set(),
    CauseClass.BEHAVIOUR: set(),
}
#: class -> how long it lasts whatever its level, in hours
LASTS_H = {CauseClass.BRUTE_FORCE: 24, CauseClass.THREAT_IP: 7 * 24, CauseClass.TRAVEL: 72}
LATER = NOW + hours(20)
#: of each class one kind that claims the most
ONE_OF_EACH = {each.cause: each for each in sorted(ENTRIES, key=lambda each: each.level)}
HIJACKED = ONE_OF_EACH[CauseClass.SESSION_HIJACK]


def found(finding: FindingType) -> Detection:
    return detection(name=finding.name, level=finding.level, clears_on=finding.clears_on)


def level_after(finding: FindingType, *remedies: Clearance) -> Level:
    return level([found(finding)], remedies, pins=(), caps={}, now=LATER).level


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("cause", list(CauseClass))
def test_row_5_each_cause_is_ended_by_its_own_remedy_and_by_no_other(
    cause: CauseClass, remedy: str
) -> None:
    finding = ONE_OF_EACH[cause]
    after = level_after(finding, clearance(remedy=remedy, occurred_at=NOW + hours(1)))
    ends = remedy in CLEARED_BY[cause] | {"confirmed_safe"}
    assert after is (Level.LOW if ends else finding.level)


def test_the_matrix_covers_every_class_that_has_a_kind() -> None:
    assert set(ONE_OF_EACH) == set(CauseClass) == set(CLEARED_BY)
    named = {remedy for remedies in CLEARED_BY.values() for remedy in remedies}
    assert named < set(REMEDIES)


@pytest.mark.parametrize(
    ("revoked_h", "returned_h", "ends"),
    [
        pytest.param(1, 2, True, id="revoked, then back"),
        pytest.param(1, 1, True, id="at once"),
        pytest.param(2, 1, False, id="back before the end of all sessions"),
        pytest.param(0, 2, False, id="revoked at the time of the finding"),
        pytest.param(-1, 2, False, id="revoked before the finding"),
    ],
)
def test_row_5_a_hijack_ends_by_the_end_of_all_sessions_and_a_safe_return(
    revoked_h: float, returned_h: float, *, ends: bool
) -> None:
    remedies = [
        clearance(remedy=catalogue.SESSIONS_REVOKED, occurred_at=NOW + hours(revoked_h)),
        clearance(
            remedy=catalogue.PHISHING_RESISTANT_SIGN_IN,
            issuer=EDR,
            occurred_at=NOW + hours(returned_h),
        ),
    ]
    assert level_after(HIJACKED, *remedies) is (Level.LOW if ends else Level.HIGH)
    assert level_after(HIJACKED, *reversed(remedies)) is (Level.LOW if ends else Level.HIGH)


def test_the_word_of_a_log_only_issuer_does_not_secure_sessions() -> None:
    revoked = clearance(remedy=catalogue.SESSIONS_REVOKED, occurred_at=NOW + hours(1))
    back = clearance(
        remedy=catalogue.PHISHING_RESISTANT_SIGN_IN,
        issuer=EDR,
        occurred_at=NOW + hours(2),
        mode=SignalMode.LOG_ONLY,
    )
    assert level_after(HIJACKED, revoked, back) is Level.HIGH


def test_the_sessions_of_somebody_else_do_not_count() -> None:
    revoked = clearance(remedy=catalogue.SESSIONS_REVOKED, occurred_at=NOW + hours(1))
    back = clearance(
        remedy=catalogue.PHISHING_RESISTANT_SIGN_IN,
        occurred_at=NOW + hours(2),
        entity_id="usr_2",
    )
    assert level_after(HIJACKED, revoked, back) is Level.HIGH


def test_row_5_a_second_open_cause_keeps_the_level_up() -> None:
    password, hijack = ONE_OF_EACH[CauseClass.PASSWORD], HIJACKED
    both = [found(password), detection(detection_id="det_2", name=hijack.name, level=Level.HIGH,
                                       clears_on=hijack.clears_on)]  # fmt: skip
    changed = clearance(remedy=PASSWORD_CHANGED, occurred_at=NOW + hours(1))
    result = level(both, [changed], pins=(), caps={}, now=LATER)
    assert (result.level, result.cause_ids) == (Level.HIGH, ("det_2",))


@pytest.mark.parametrize("cause", sorted(LASTS_H))
def test_row_5_time_ends_what_only_time_ends(cause: CauseClass) -> None:
    finding, lasts = ONE_OF_EACH[cause], timedelta(hours=LASTS_H[cause])
    for at, expected in ((lasts - timedelta(seconds=1), finding.level), (lasts, Level.LOW)):
        result = level([found(finding)], (), pins=(), caps={}, now=NOW + at)
        assert result.level is expected


def test_row_5_low_expires_at_thirty_days_and_high_never_does() -> None:
    low = detection(name="account_disabled", level=Level.LOW)
    before = level([low], (), pins=(), caps={}, now=NOW + timedelta(days=29))
    assert before.cause_ids == ("det_1",)
    assert not level([low], (), pins=(), caps={}, now=NOW + timedelta(days=30)).cause_ids
    high = found(HIJACKED)
    assert level([high], (), pins=(), caps={}, now=NOW + timedelta(days=9_000)).level is Level.HIGH


def test_what_a_person_called_safe_stays_quiet_for_that_kind_and_issuer_alone() -> None:
    safe = clearance(
        remedy=catalogue.confirmed_safe("aitm_replay"), occurred_at=NOW + timedelta(days=7)
    )
    again = detection(
        name="aitm_replay", level=Level.HIGH, at=NOW + hours(1), clears_on=HIJACKED.clears_on
    )
    settled = settle(again, [safe], now=NOW + hours(2))
    assert (settled.state, settled.state_by) == (DetectionState.CONFIRMED_SAFE, safe.signal_id)
    assert settled.state_at == NOW + hours(2)
    after = detection(
        name="aitm_replay", level=Level.HIGH, at=NOW + timedelta(days=7), clears_on=()
    )
    others = [
        detection(name="anomalous_token", level=Level.HIGH, at=NOW + hours(1)),
        detection(name="aitm_replay", level=Level.HIGH, at=NOW + hours(1), issuer=EDR),
        after,
    ]
    for each in others:
        assert settle(each, [safe], now=NOW + timedelta(days=8)).state is DetectionState.ACTIVE
    assert safe.issuer == MDM
