"""Names meet what we know: who is concerned, who is missing, which sessions end."""

from __future__ import annotations

from typing import Any

import pytest

from risk import assessment, placement
from risk.assessment import UserFacts
from risk.model import EntityKind, Level, Pin, Signal, SignalMode
from risk.placement import Known, Placement
from risk.policy import DEFAULT_POLICY
from risk.sessions.model import Session
from tests.risk.kit import (
    CAEP,
    IDP,
    LAPTOP,
    MDM,
    NOW,
    RISC,
    TENANT,
    TINA,
    compliance,
    detection,
    device_risk,
    hours,
    pair,
    signal,
    user_level,
)
from tests.risk.test_model import owner, session

USER = (EntityKind.USER, "email:tina@customer.example")
DEVICE = (EntityKind.DEVICE, "opaque:LT-1")
SID = {"format": "opaque", "id": "s1"}
EVERY = {"format": "opaque", "id": "ALL"}


def known(*entities: tuple[EntityKind, str], **sessions: Session) -> Known:
    return Known(
        entities={each: f"{each[0].value}_1" for each in entities},
        sessions={(each.iss, each.sid): each for each in sessions.values()},
    )


def place(some: Signal, knowledge: Known) -> Placement:
    return placement.place(placement.draft(some), knowledge)


def revoked(about: dict[str, Any], **more: Any) -> Signal:
    return signal(CAEP + "session-revoked", about=about, iss=IDP, **more)


def outcome(some: Signal, knowledge: Known) -> tuple[str, str, tuple[str, ...]]:
    mark = placement.mark(place(some, knowledge))
    return mark.state, mark.detail, mark.alias_keys


def test_a_known_pair_is_assessed() -> None:
    state, detail, keys = outcome(device_risk("medium"), known(USER, DEVICE))
    assert (state, detail, keys) == ("assessed", "device_healthy, device_at_risk", ())


def test_an_unknown_device_of_a_known_user_is_to_be_made() -> None:
    drafted = [placement.draft(device_risk("high")), placement.draft(compliance("compliant"))]
    assert list(placement.devices_to_make(drafted, known(USER))) == ["opaque:LT-1"]
    assert placement.devices_to_make(drafted, known(USER, DEVICE)) == {}
    assert placement.devices_to_make(drafted, known()) == {}


def test_a_device_that_the_event_is_not_about_is_not_made() -> None:
    drafted = [placement.draft(user_level("HIGH", about=pair(TINA, LAPTOP)))]
    assert placement.devices_to_make(drafted, known(USER)) == {}


@pytest.mark.requirement("SUB-32")
@pytest.mark.parametrize(
    ("some", "knowledge", "expected"),
    [
        (device_risk("high"), known(), ("opaque:LT-1", "email:tina@customer.example")),
        (device_risk("high"), known(DEVICE), ("email:tina@customer.example",)),
        (device_risk("high", about=LAPTOP), known(), ("opaque:LT-1",)),
        (user_level("HIGH", about=pair(TINA, LAPTOP)), known(), ("email:tina@customer.example",)),
    ],
)
def test_who_is_missing_is_told_by_alias_key(
    some: Signal, knowledge: Known, expected: tuple[str, ...]
) -> None:
    state, _, keys = outcome(some, knowledge)
    assert (state, set(keys)) == ("unmatched", set(expected))


def test_a_device_event_about_an_account_is_kept_with_the_user() -> None:
    some = device_risk("high", about={"format": "opaque", "id": "u-1"})
    placed = place(some, known((EntityKind.USER, "opaque:u-1")))
    (found,) = assessment.findings(placed, new_id=lambda: "det_1", now=NOW)
    assert (found.entity_kind, found.entity_id) == (EntityKind.USER, "user_1")


def test_what_is_about_an_unknown_device_is_not_put_on_somebody_else() -> None:
    some = device_risk("high", about={"format": "complex", "device": LAPTOP})
    placed = place(some, known())
    assert assessment.findings(placed, new_id=lambda: "det_1", now=NOW) == []
    healthy = compliance("compliant", about={"format": "complex", "device": LAPTOP})
    assert assessment.remedies(place(healthy, known())) == []


def test_a_signal_that_names_nobody_we_can_know_stays_visible() -> None:
    about = {"format": "complex", "tenant": {"format": "opaque", "id": "t"}}
    assert outcome(user_level("HIGH", about=about), known())[:2] == (
        "unmatched",
        "names nobody we can know",
    )


def test_the_detail_of_a_mark_names_what_was_said() -> None:
    knowledge = known(USER)
    assert outcome(revoked(TINA), knowledge)[1] == "session_end"
    assert outcome(signal(CAEP + "session-presented", iss=IDP), knowledge)[1] == "session_seen"
    assert outcome(signal(RISC + "opt-in"), knowledge)[:2] == ("ignored", "says nothing about risk")
    quiet = device_risk("high", mode=SignalMode.NONE)
    assert outcome(quiet, knowledge)[:2] == ("ignored", "the provider's mode is none")


def test_a_session_tells_whose_it_is() -> None:
    about = {"format": "complex", "session": SID}
    event = {"principal": "SESSION", "current_level": "HIGH"}
    some = signal(CAEP + "risk-level-change", event, about=about, iss=IDP)
    placed = place(some, known(one=session(user_id="usr_9")))
    assert placed.user_id == "usr_9"
    assert placement.mark(placed).state == "assessed"


# --- which sessions end -------------------------------------------------------------------------


def ended(some: Signal, knowledge: Known, *live: Session) -> list[str]:
    return [each.sid for each in placement.sessions_to_end(place(some, knowledge), live)]


@pytest.mark.requirement("SET-19")
def test_a_session_that_began_after_the_revocation_stays() -> None:
    earlier = session(user_id="user_1", started_at=NOW - hours(1))
    later = session(user_id="user_1", sid="s2", started_at=NOW + hours(1))
    some = revoked(TINA, at=NOW, received_at=NOW + hours(2))
    assert ended(some, known(USER), earlier, later) == ["s1"]


@pytest.mark.requirement("SUB-34", "CAEP-10")
@pytest.mark.parametrize(
    ("about", "sids"),
    [
        pytest.param(TINA, ["s1", "s2"], id="all of the user"),
        pytest.param(pair(TINA, LAPTOP), ["s1"], id="those on the device"),
        pytest.param({"format": "complex", "user": TINA, "session": SID}, ["s1"], id="one"),
        pytest.param(
            {"format": "complex", "user": TINA, "session": EVERY}, ["s1", "s2"], id="Keycloak's all"
        ),
        pytest.param({"format": "complex", "session": EVERY}, [], id="all of nobody"),
        pytest.param(SID, ["s1"], id="one by its bare id"),
        pytest.param(
            {"format": "complex", "session": {"format": "opaque", "id": "none"}}, [], id="unknown"
        ),
        pytest.param(
            {"format": "complex", "user": TINA, "device": {"format": "opaque", "id": "none"}},
            [],
            id="on an unknown device",
        ),
    ],
)
def test_every_session_that_matches_all_members_ends(
    about: dict[str, Any], sids: list[str]
) -> None:
    one = session(user_id="user_1", device_id="device_1")
    two = session(user_id="user_1", device_id="dev_2", sid="s2")
    assert ended(revoked(about), known(USER, DEVICE, one=one), one, two) == sids


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"iss": MDM}, id="of another issuer"),
        pytest.param({"ended_at": NOW}, id="that ended before"),
    ],
)
def test_a_session_stays_as_it_is(other: dict[str, Any]) -> None:
    assert ended(revoked(TINA), known(USER), session(user_id="user_1", **other)) == []


def test_a_named_session_of_another_user_does_not_end() -> None:
    about = {"format": "complex", "user": TINA, "session": SID}
    stranger = session(user_id="usr_other")
    assert ended(revoked(about), known(USER, one=stranger), stranger) == []


# --- the judgement ------------------------------------------------------------------------------


def test_a_pin_above_low_is_a_cause_of_its_own() -> None:
    pin = Pin(
        tenant_id=TENANT,
        entity_id="usr_1",
        level=Level.HIGH,
        until=None,
        reason="confirmed",
        set_by="soc",
        set_at=NOW,
    )
    facts = UserFacts(user_id="usr_1", evidence=(), pin=pin, groups=(), caps={})
    (cause,) = assessment.judge(facts, DEFAULT_POLICY, now=NOW).causes
    assert (cause.detection_id, cause.name, cause.level) == (
        "pin_usr_1",
        "admin_pin",
        Level.HIGH,
    )


def test_a_detection_counts_once_however_many_links_lead_to_it() -> None:
    on_device = detection(entity_kind=EntityKind.DEVICE, entity_id="dev_1")
    grouped = assessment.by_subject([on_device])
    links = [owner("usr_1", NOW), owner("usr_1", NOW, source="admin")]
    assert assessment.evidence_of("usr_1", links, grouped) == [on_device]
    gone = [owner("usr_1", NOW - hours(2), until=NOW - hours(1))]
    assert assessment.evidence_of("usr_1", gone, grouped) == []
