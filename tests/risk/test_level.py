"""The level function: rules one by one, and what holds for every input."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.catalogue import FINDING_TYPES
from risk.level import effective_level, expires_at, level, merge, same_finding, settle
from risk.model import (
    CALLER_ISSUERS,
    SESSIONS_ISSUER,
    SIGHTINGS_MAX,
    SIGN_INS_ISSUER,
    Clearance,
    Detection,
    DetectionState,
    Level,
    Pin,
    Sighting,
    SignalMode,
)
from tests.risk.kit import EDR, MDM, NOW, TENANT, clearance, detection, hours

LATER = NOW + timedelta(days=2)
ISSUERS = (MDM, EDR, "https://casb.vendor.example", *sorted(CALLER_ISSUERS))
CLASSES = ("device", "network", "partner", "session")


def pin(wanted: Level, **more: Any) -> Pin:
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "entity_id": "usr_1",
        "level": wanted,
        "until": NOW + hours(24),
        "reason": "known test",
        "set_by": "soc",
        "set_at": NOW,
    }
    return Pin(**(values | more))


def level_of(*detections: Detection, **more: Any) -> Level:
    inputs: dict[str, Any] = {"clearances": (), "pins": (), "caps": {}, "now": NOW} | more
    return level(detections, inputs.pop("clearances"), **inputs).level


# --- one rule each ------------------------------------------------------------------------------


def test_without_findings_the_level_is_low() -> None:
    result = level((), (), pins=(), caps={}, now=NOW)
    assert (result.level, result.reasons, result.cause_ids) == (Level.LOW, (), ())
    assert result.next_change_at is None


def test_poor_confidence_lowers_one_step() -> None:
    assert level_of(detection(level=Level.HIGH, confidence=0.4)) is Level.MEDIUM
    assert effective_level(detection(level=Level.LOW, confidence=0.4), {}) is None
    assert level_of(detection(level=Level.LOW, confidence=0.4)) is Level.LOW


def test_the_cap_comes_after_confidence() -> None:
    doubtful = detection(level=Level.HIGH, confidence=0.1)
    assert effective_level(doubtful, {MDM: Level.MEDIUM}) is Level.MEDIUM
    assert effective_level(doubtful, {MDM: Level.LOW}) is Level.LOW
    assert effective_level(doubtful, {EDR: Level.LOW}) is Level.MEDIUM


@pytest.mark.parametrize("state", [each for each in DetectionState if each != "active"])
def test_only_active_findings_count(state: DetectionState) -> None:
    assert level_of(detection(level=Level.HIGH, state=state)) is Level.LOW


def test_an_expired_finding_does_not_count() -> None:
    medium = detection(level=Level.MEDIUM)
    result = level([medium], (), pins=(), caps={}, now=NOW + timedelta(days=13))
    assert (result.level, result.next_change_at) == (Level.MEDIUM, NOW + timedelta(days=14))
    assert level_of(medium, now=NOW + timedelta(days=14)) is Level.LOW
    settled = settle(medium, (), now=NOW + timedelta(days=14))
    assert (settled.state, settled.state_by) == (DetectionState.EXPIRED, "expiry")
    assert settled.state_at == NOW + timedelta(days=14)


def test_low_ages_after_thirty_days_and_high_never() -> None:
    assert expires_at(detection(level=Level.LOW)) == NOW + timedelta(days=30)
    assert expires_at(detection(level=Level.HIGH)) is None
    assert level_of(detection(level=Level.HIGH), now=NOW + timedelta(days=4000)) is Level.HIGH


def test_a_finding_type_may_have_a_life_of_its_own() -> None:
    recovery = detection(name="recovery_activated", level=Level.LOW)
    assert expires_at(recovery) == NOW + timedelta(hours=72)


def test_a_remedy_closes_what_is_older_and_keeps_what_is_newer() -> None:
    seen = tuple(Sighting(signal_id=f"sig_{n}", occurred_at=NOW + hours(n)) for n in range(4))
    settled = settle(
        detection(level=Level.HIGH, sightings=seen),
        [clearance(occurred_at=NOW + hours(2))],
        now=LATER,
    )
    assert settled.state is DetectionState.ACTIVE
    assert [each.signal_id for each in settled.sightings] == ["sig_2", "sig_3"]
    assert settled.since == NOW + hours(2)


def test_a_closed_finding_names_the_remedy() -> None:
    settled = settle(
        detection(), [clearance(occurred_at=NOW + hours(1), signal_id="sig_clean")], now=LATER
    )
    assert (settled.state, settled.state_by) == (DetectionState.REMEDIATED, "sig_clean")


@pytest.mark.parametrize(
    "remedy",
    [
        pytest.param({"entity_id": "usr_2"}, id="of another entity"),
        pytest.param({"remedy": "device_healthy"}, id="of another cause"),
        pytest.param({"issuer": EDR}, id="of another issuer"),
        pytest.param({"level": Level.HIGH}, id="that leaves the level where it is"),
        pytest.param({"occurred_at": NOW}, id="of the same time"),
    ],
)
def test_a_remedy_does_not_close(remedy: dict[str, Any]) -> None:
    newer = clearance(**({"occurred_at": NOW + hours(1)} | remedy))
    assert level_of(detection(level=Level.HIGH), clearances=[newer], now=LATER) is Level.HIGH


def test_a_remedy_of_anybody_closes_where_the_issuer_does_not_matter() -> None:
    breached = detection(
        name="password_compromised",
        level=Level.HIGH,
        clears_on=("credential_changed:password", "confirmed_safe"),
    )
    changed = clearance(
        remedy="credential_changed:password", issuer=EDR, occurred_at=NOW + hours(1)
    )
    assert level_of(breached, clearances=[changed], now=LATER) is Level.LOW
    quiet = replace(changed, mode=SignalMode.LOG_ONLY)
    assert level_of(breached, clearances=[quiet], now=LATER) is Level.HIGH


def test_what_callers_say_of_sessions_and_sign_ins_is_one_source() -> None:
    session = detection(issuer=SESSIONS_ISSUER, source_class="session", level=Level.MEDIUM)
    travel = detection(
        detection_id="det_2", issuer=SIGN_INS_ISSUER, source_class="network", level=Level.MEDIUM
    )
    assert level_of(session, travel) is Level.MEDIUM
    assert level_of(session, replace(travel, issuer=EDR)) is Level.HIGH


@pytest.mark.parametrize(
    ("others", "expected"),
    [(("partner",), Level.LOW), (("partner", "device"), Level.MEDIUM),
     (("partner", "session"), Level.MEDIUM), (("session", "network"), Level.LOW)],
)  # fmt: skip
def test_among_three_low_findings_callers_count_once(
    others: tuple[str, ...], expected: Level
) -> None:
    told = [
        detection(detection_id=f"det_{name}", issuer=issuer, source_class=name, level=Level.LOW)
        for issuer, name in ((SESSIONS_ISSUER, "session"), (SIGN_INS_ISSUER, "network"))
    ]
    partners = [
        detection(detection_id=f"det_of_{name}", issuer=EDR, source_class=name, level=Level.LOW)
        for name in others
    ]
    assert level_of(*told, *partners) is expected


def test_a_pin_overrides_and_says_so() -> None:
    result = level([detection(level=Level.HIGH)], (), pins=[pin(Level.LOW)], caps={}, now=NOW)
    assert (result.level, result.cause_ids, result.pinned) == (Level.LOW, (), True)
    assert result.reasons == ("Pinned LOW by soc: known test",)
    assert result.next_change_at == NOW + hours(24)


def test_a_pin_ends() -> None:
    assert level_of(detection(level=Level.HIGH), pins=[pin(Level.LOW)], now=LATER) is Level.HIGH
    endless = pin(Level.HIGH, until=None)
    result = level((), (), pins=[endless], caps={}, now=LATER)
    assert (result.level, result.next_change_at) == (Level.HIGH, None)


def test_the_newest_pin_counts() -> None:
    newer = pin(Level.MEDIUM, set_at=NOW + hours(1))
    assert level_of(pins=[newer, pin(Level.HIGH)], now=NOW + hours(2)) is Level.MEDIUM


def test_a_pin_at_the_computed_level_keeps_the_causes() -> None:
    high = detection(level=Level.HIGH)
    result = level([high], (), pins=[pin(Level.HIGH)], caps={}, now=NOW)
    assert result.cause_ids == ("det_1",)
    assert len(result.reasons) == 2


@pytest.mark.parametrize("name", sorted(each.name for each in FINDING_TYPES.values() if each.floor))
def test_a_low_pin_never_goes_below_a_floor(name: str) -> None:
    result = level(
        [detection(name=name, level=Level.HIGH)], (), pins=[pin(Level.LOW)], caps={}, now=NOW
    )
    assert (result.level, result.pinned, result.cause_ids) == (Level.HIGH, False, ("det_1",))
    assert "not applied" in result.reasons[0]


def test_a_floor_holds_only_while_the_capped_level_is_high() -> None:
    capped = {MDM: Level.MEDIUM}
    compromised = detection(name="device_compromised", level=Level.HIGH)
    assert level_of(compromised, pins=[pin(Level.LOW)], caps=capped) is Level.LOW


def test_the_score_ranks_users_of_one_level() -> None:
    fresh = level([detection(level=Level.HIGH)], (), pins=(), caps={}, now=NOW)
    stale = level([detection(level=Level.HIGH)], (), pins=(), caps={}, now=NOW + timedelta(days=30))
    both = level(
        [
            detection(level=Level.HIGH),
            detection(detection_id="det_2", level=Level.HIGH, source_class="network", issuer=EDR),
        ],
        (),
        pins=(),
        caps={},
        now=NOW,
    )
    assert stale.level is fresh.level is both.level
    assert stale.score < fresh.score < both.score


def test_the_evidence_of_a_floor_does_not_decay() -> None:
    compromised = detection(name="device_compromised", level=Level.HIGH)
    now = level([compromised], (), pins=(), caps={}, now=NOW)
    later = level([compromised], (), pins=(), caps={}, now=NOW + timedelta(days=90))
    assert now.score == later.score


def test_reports_beyond_the_limit_keep_the_first_and_the_newest() -> None:
    joined = detection()
    for hour in range(1, SIGHTINGS_MAX + 10):
        joined = merge(joined, detection(at=NOW + hours(hour), signal_id=f"sig_{hour}"))
    assert len(joined.sightings) == SIGHTINGS_MAX
    assert joined.since == NOW
    assert joined.occurred_at == NOW + hours(SIGHTINGS_MAX + 9)


def test_doubtful_reports_are_no_more_sightings_of_a_sure_finding() -> None:
    sure, doubtful = detection(confidence=0.9), detection(confidence=0.2)
    assert same_finding(sure) != same_finding(doubtful)
    assert same_finding(sure) == same_finding(detection(confidence=0.7))
    assert same_finding(doubtful) == same_finding(detection(confidence=0.1))


# --- what holds for every input -----------------------------------------------------------------

times = st.integers(min_value=0, max_value=60).map(lambda hour: NOW + hours(hour))
TYPES = (
    ("partner_reported_risk", ("partner_lowered", "confirmed_safe")),
    ("device_compromised", ("device_healthy", "confirmed_safe")),
    ("password_compromised", ("confirmed_safe", "credential_changed:password")),
)


@st.composite
def detections(draw: st.DrawFn) -> Detection:
    name, clears_on = draw(st.sampled_from(TYPES))
    seen = draw(st.lists(times, min_size=1, max_size=3, unique=True))
    number = draw(st.integers(min_value=0, max_value=10**9))
    return detection(
        detection_id=f"det_{number}",
        name=name,
        clears_on=clears_on,
        source_class=draw(st.sampled_from(CLASSES)),
        issuer=draw(st.sampled_from(ISSUERS)),
        level=draw(st.sampled_from(Level)),
        confidence=draw(st.sampled_from((0.2, 0.9))),
        sightings=tuple(
            Sighting(signal_id=f"sig_{number}_{position}", occurred_at=at)
            for position, at in enumerate(sorted(seen))
        ),
    )


clearances = st.builds(
    clearance,
    issuer=st.sampled_from(ISSUERS),
    remedy=st.sampled_from(
        ("partner_lowered", "device_healthy", "credential_changed:password", "confirmed_safe")
    ),
    level=st.sampled_from((None, Level.LOW, Level.MEDIUM)),
    occurred_at=times,
    mode=st.sampled_from((SignalMode.ENFORCE, SignalMode.LOG_ONLY)),
)
caps = st.dictionaries(st.sampled_from(ISSUERS), st.sampled_from(Level))
many_detections = st.lists(detections(), max_size=6, unique_by=lambda each: each.detection_id)
many_clearances = st.lists(clearances, max_size=4)


@given(many_detections, many_clearances, caps, st.randoms(use_true_random=False))
def test_the_order_of_inputs_does_not_matter(
    found: list[Detection],
    remedied: list[Clearance],
    capped: dict[str, Level],
    shuffler: random.Random,
) -> None:
    before = level(found, remedied, pins=(), caps=capped, now=LATER)
    shuffler.shuffle(found)
    shuffler.shuffle(remedied)
    assert level(found, remedied, pins=(), caps=capped, now=LATER) == before


@given(many_detections, detections(), many_clearances, caps)
def test_another_finding_never_lowers(
    found: list[Detection],
    more: Detection,
    remedied: list[Clearance],
    capped: dict[str, Level],
) -> None:
    def of(some: list[Detection]) -> Level:
        return level(some, remedied, pins=(), caps=capped, now=LATER).level

    assert of([*found, more]) >= of(found)


@given(many_detections, many_clearances, clearances, caps)
def test_another_remedy_never_raises(
    found: list[Detection],
    remedied: list[Clearance],
    more: Clearance,
    capped: dict[str, Level],
) -> None:
    def of(some: list[Clearance]) -> Level:
        return level(found, some, pins=(), caps=capped, now=LATER).level

    assert of([*remedied, more]) <= of(remedied)


@given(many_detections, caps, st.dictionaries(st.sampled_from(ISSUERS), st.sampled_from(Level)))
def test_a_lower_cap_never_raises(
    found: list[Detection], capped: dict[str, Level], lower: dict[str, Level]
) -> None:
    tighter = {
        issuer: min(capped.get(issuer, Level.HIGH), lower.get(issuer, Level.HIGH))
        for issuer in ISSUERS
    }
    loose = level(found, (), pins=(), caps=capped, now=LATER).level
    assert level(found, (), pins=(), caps=tighter, now=LATER).level <= loose


@given(many_detections, st.sampled_from(Level))
def test_an_issuer_alone_never_exceeds_its_cap(found: list[Detection], cap: Level) -> None:
    alone = [replace(each, issuer=MDM) for each in found]
    assert level(alone, (), pins=(), caps={MDM: cap}, now=LATER).level <= cap


@given(many_detections, caps)
def test_callers_alone_never_confirm_each_other(
    found: list[Detection], capped: dict[str, Level]
) -> None:
    issuers = sorted(CALLER_ISSUERS)
    told = [replace(each, issuer=issuers[place % 2]) for place, each in enumerate(found)]
    counted = [each for one in told if (each := effective_level(one, capped)) is not None]
    highest = max(counted, default=Level.LOW)
    assert level(told, (), pins=(), caps=capped, now=NOW).level <= highest


@given(many_detections, many_clearances)
def test_settling_twice_changes_nothing(found: list[Detection], remedied: list[Clearance]) -> None:
    for each in found:
        once = settle(each, remedied, now=LATER)
        assert settle(once, remedied, now=LATER) == once


@given(detections(), detections())
def test_joining_two_reports_does_not_depend_on_their_order(
    first: Detection, second: Detection
) -> None:
    of_others = tuple(replace(each, signal_id=f"{each.signal_id}_b") for each in second.sightings)
    other = replace(first, sightings=of_others, reasons=("another",), detection_id="det_other")
    assert same_finding(first) == same_finding(other)
    assert merge(first, other) == merge(other, first)


@given(many_detections, many_clearances)
def test_causes_support_the_level(found: list[Detection], remedied: list[Clearance]) -> None:
    """Without its causes the level is lower, or there was nothing to support."""
    result = level(found, remedied, pins=(), caps={}, now=LATER)
    rest = [each for each in found if each.detection_id not in result.cause_ids]
    without = level(rest, remedied, pins=(), caps={}, now=LATER).level
    assert without < result.level or result.level is Level.LOW
