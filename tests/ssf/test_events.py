"""Tests of ssf.events."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import EventError
from ssf.events.caep import CredentialChange, RiskLevelChange, SessionEstablished, SessionRevoked
from ssf.events.common import UnknownEvent
from ssf.events.registry import (
    CAEP_BASE,
    EVENT_TYPES,
    OKTA_BASE,
    RISC_BASE,
    SCIM_BASE,
    SSF_BASE,
    STANDARD_EVENT_TYPES,
    STREAM_EVENT_TYPES,
    canonical_type_uri,
    parse_event,
    render_event,
)
from ssf.events.risc import AccountDisabled, CredentialCompromise, IdentifierChanged
from ssf.events.scim import Deactivate, PatchNotice
from ssf.events.ssf import StreamUpdated, Verification
from ssf.events.vendor import DeviceRiskChange, IPChange, UserRiskChange
from tests.ssf.kit import JSON_VALUES, TEXTS, Vector

SESSION_REVOKED = CAEP_BASE + "session-revoked"
CREDENTIAL_CHANGE = CAEP_BASE + "credential-change"


def refusal(type_uri: str, payload: dict[str, Any]) -> EventError:
    with pytest.raises(EventError) as caught:
        parse_event(type_uri, payload)
    return caught.value


def test_the_registry_is_the_list_of_36_standard_types_and_the_private_ones() -> None:
    families = {
        SSF_BASE: 2,
        CAEP_BASE: 8,
        RISC_BASE: 14,
        SCIM_BASE: 12,
    }
    assert len(STANDARD_EVENT_TYPES) == 36
    for base, count in families.items():
        assert sum(uri.startswith(base) for uri in STANDARD_EVENT_TYPES) == count
    assert {uri for uri in EVENT_TYPES if uri not in STANDARD_EVENT_TYPES} == {
        OKTA_BASE + name for name in ("user-risk-change", "device-risk-change", "ip-change")
    }
    assert {SSF_BASE + "verification", SSF_BASE + "stream-updated"} == STREAM_EVENT_TYPES


@pytest.mark.requirement("SSF-VER-1", "SSF-UPD-1", "CAEP-10", "RISC-1", "SCIM-20")
@pytest.mark.parametrize(
    "suffixed",
    [
        *(SSF_BASE + n for n in ("verification", "stream-updated")),
        *(
            CAEP_BASE + n
            for n in (
                "session-revoked",
                "token-claims-change",
                "credential-change",
                "assurance-level-change",
                "device-compliance-change",
                "session-established",
                "session-presented",
                "risk-level-change",
            )
        ),
        *(
            RISC_BASE + n
            for n in (
                "account-credential-change-required",
                "account-purged",
                "account-disabled",
                "account-enabled",
                "identifier-changed",
                "identifier-recycled",
                "credential-compromise",
                "opt-in",
                "opt-out-initiated",
                "opt-out-cancelled",
                "opt-out-effective",
                "recovery-activated",
                "recovery-information-changed",
                "sessions-revoked",
            )
        ),
        *(
            SCIM_BASE + n
            for n in (
                "feed:add",
                "feed:remove",
                "prov:create:notice",
                "prov:create:full",
                "prov:patch:notice",
                "prov:patch:full",
                "prov:put:notice",
                "prov:put:full",
                "prov:delete",
                "prov:activate",
                "prov:deactivate",
                "misc:asyncresp",
            )
        ),
    ],
)
def test_every_standard_type_is_known_by_its_exact_uri(suffixed: str) -> None:
    assert EVENT_TYPES[suffixed].type_uri == suffixed


@pytest.mark.requirement(
    "CAEP-11",
    "CAEP-12",
    "CAEP-13",
    "CAEP-14",
    "CAEP-16",
    "CAEP-17",
    "CAEP-18",
    "CAEP-19",
    "CAEP-20",
    "CAEP-21",
    "CAEP-22",
    "CAEP-23",
    "CAEP-24",
    "CAEP-25",
    "CAEP-26",
    "CAEP-27",
    "CAEP-28",
    "CAEP-29",
    "CAEP-30",
    "CAEP-31",
    "CAEP-32",
    "INT-42",
)
@pytest.mark.parametrize("position", range(7))
def test_every_caep_example_renders_to_what_was_read(position: int, vector: Vector) -> None:
    ((type_uri, payload),) = vector(24)[position].items()
    event = parse_event(type_uri, payload)
    assert not isinstance(event, UnknownEvent)
    assert render_event(event) == payload


@pytest.mark.requirement(
    "RISC-1",
    "RISC-2",
    "RISC-3",
    "RISC-4",
    "RISC-5",
    "RISC-6",
    "RISC-7",
    "RISC-8",
    "RISC-9",
    "RISC-10",
    "RISC-11",
    "RISC-12",
    "RISC-13",
    "RISC-14",
    "EGW-42",
)
@pytest.mark.parametrize("position", range(14))
def test_every_risc_example_renders_to_what_was_read(position: int, vector: Vector) -> None:
    ((type_uri, payload),) = vector(25)[position].items()
    event = parse_event(type_uri, payload)
    assert not isinstance(event, UnknownEvent)
    assert render_event(event) == payload


@pytest.mark.requirement("CAEP-1", "CAEP-2", "CAEP-3", "CAEP-4", "CAEP-10", "INT-40")
def test_the_common_members_of_session_revoked_are_typed(vector: Vector) -> None:
    payload = vector(23)["events"][SESSION_REVOKED]
    assert parse_event(SESSION_REVOKED, payload) == SessionRevoked(
        event_timestamp=1774000305,
        initiating_entity="policy",
        reason_admin={"en": "EDR verdict: credential dumping on LT-0091-77"},
        reason_user={"en": "Please sign in again.", "de": "Bitte erneut anmelden."},
    )


@pytest.mark.requirement("CAEP-5", "CR-20", "EGW-38", "EGW-39")
def test_forms_met_in_the_field_become_the_standard_form() -> None:
    event = parse_event(
        SESSION_REVOKED,
        {
            "event_timestamp": 1774000305123,
            "initiating_entity": "robot",
            "reason_admin": "lost laptop",
            "reason_user": {},
            "extra": [1],
        },
    )
    assert event == SessionRevoked(
        event_timestamp=1774000305.123,
        initiating_entity="robot",
        reason_admin={"en": "lost laptop"},
    )


@pytest.mark.requirement("CAEP-5")
def test_null_members_count_as_absent() -> None:
    assert parse_event(SESSION_REVOKED, {"reason_admin": None}) == SessionRevoked()
    refusal(CREDENTIAL_CHANGE, {"credential_type": None, "change_type": "revoke"})


@pytest.mark.requirement("CAEP-1", "CAEP-5")
@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (0, 0),
        (1774000305, 1774000305),
        (1774000305.5, 1774000305.5),
        (1774000305000, 1774000305),
        (1e11, 100_000_000_000),
    ],
)
def test_event_timestamp_is_in_seconds(sent: float, seconds: float) -> None:
    event = parse_event(SESSION_REVOKED, {"event_timestamp": sent})
    assert isinstance(event, SessionRevoked)
    assert event.event_timestamp == seconds
    assert isinstance(event.event_timestamp, type(seconds))


@pytest.mark.requirement("CAEP-1", "SET-63")
@pytest.mark.parametrize("sent", ["1774000305", True, -1, 10**18, 1e300, [1]])
def test_an_event_timestamp_that_is_no_time_is_refused(sent: object) -> None:
    assert refusal(SESSION_REVOKED, {"event_timestamp": sent}).requirement == "CAEP-1"


@pytest.mark.requirement("SET-63", "CR-20")
def test_values_outside_a_closed_list_are_kept_as_text() -> None:
    event = parse_event(CREDENTIAL_CHANGE, {"credential_type": "ALL_FACTORS", "change_type": "x"})
    assert event == CredentialChange(credential_type="ALL_FACTORS", change_type="x")
    risk = parse_event(
        CAEP_BASE + "risk-level-change", {"principal": "AGENT", "current_level": "high"}
    )
    assert risk == RiskLevelChange(principal="AGENT", current_level="high")


@pytest.mark.requirement("SET-63")
@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("token-claims-change", {}),
        ("token-claims-change", {"claims": []}),
        ("token-claims-change", {"claims": {}}),
        ("credential-change", {"credential_type": "password"}),
        ("credential-change", {"credential_type": "password", "change_type": 1}),
        ("assurance-level-change", {"namespace": "NIST-AAL"}),
        ("device-compliance-change", {"current_status": "compliant"}),
        ("session-established", {"amr": "pwd"}),
        ("session-established", {"amr": [1]}),
        ("session-presented", {"fp_ua": 1}),
        ("risk-level-change", {"current_level": "HIGH"}),
        ("session-revoked", {"reason_admin": ["x"]}),
        ("session-revoked", {"reason_user": {"en": 1}}),
        ("session-revoked", {"initiating_entity": 5}),
    ],
)
def test_a_payload_that_breaks_its_definition_is_refused(
    name: str, payload: dict[str, Any]
) -> None:
    error = refusal(CAEP_BASE + name, payload)
    assert error.code == "invalid_request"
    assert error.requirement in {"SET-63", "CAEP-11"}


@pytest.mark.requirement("SET-63")
def test_the_error_names_the_type_but_no_value_of_the_payload() -> None:
    error = refusal(CREDENTIAL_CHANGE, {"credential_type": "secret-1", "change_type": 9})
    assert "credential-change" in error.description
    assert "secret-1" not in error.description


@pytest.mark.requirement("RISC-3", "RISC-5", "RISC-7")
def test_risc_events_have_their_members() -> None:
    assert parse_event(RISC_BASE + "account-disabled", {"reason": "hijacking"}) == AccountDisabled(
        reason="hijacking"
    )
    changed = IdentifierChanged(new_value="rosa@green.example")
    assert render_event(changed) == {"new-value": "rosa@green.example"}
    assert (
        parse_event(RISC_BASE + "identifier-changed", {"new-value": "rosa@green.example"})
        == changed
    )
    refusal(RISC_BASE + "credential-compromise", {})
    assert parse_event(
        RISC_BASE + "credential-compromise", {"credential_type": "pin", "reason_admin": "x"}
    ) == CredentialCompromise(credential_type="pin", reason_admin={"en": "x"})


@pytest.mark.requirement("SSF-VER-3", "SSF-VER-4")
def test_verification_carries_state_only_when_it_was_asked_for() -> None:
    assert render_event(Verification()) == {}
    assert render_event(Verification(state="s")) == {"state": "s"}
    assert parse_event(SSF_BASE + "verification", {"state": "s"}) == Verification(state="s")
    refusal(SSF_BASE + "verification", {"state": 5})


@pytest.mark.requirement("SSF-UPD-1", "SSF-UPD-6", "CR-21")
def test_stream_updated_without_status_is_read() -> None:
    assert parse_event(SSF_BASE + "stream-updated", {}) == StreamUpdated()
    event = StreamUpdated(status="paused", reason="maintenance")
    assert render_event(event) == {"status": "paused", "reason": "maintenance"}


@pytest.mark.requirement("SCIM-1", "SCIM-7", "EGW-54")
def test_scim_urns_compare_without_case_and_come_out_in_the_registered_form() -> None:
    event = parse_event("urn:ietf:params:SCIM:event:prov:Deactivate", {})
    assert event == Deactivate()
    assert Deactivate.type_uri == "urn:ietf:params:scim:event:prov:deactivate"
    assert canonical_type_uri("urn:ietf:params:scim:event:misc:asyncResp") in EVENT_TYPES
    assert canonical_type_uri(SESSION_REVOKED.upper()) == SESSION_REVOKED.upper()


@pytest.mark.requirement("SCIM-3", "SCIM-4", "SCIM-5")
def test_a_scim_event_carries_data_or_attributes_never_both() -> None:
    notice = SCIM_BASE + "prov:patch:notice"
    assert parse_event(notice, {"attributes": ["name"], "version": "W/1"}) == PatchNotice(
        attributes=("name",), version="W/1"
    )
    assert refusal(notice, {"data": {}}).requirement == "SET-63"
    assert refusal(notice, {"data": {}, "attributes": []}).requirement == "SCIM-3"
    refusal(SCIM_BASE + "prov:put:full", {"attributes": ["name"]})
    assert render_event(parse_event(SCIM_BASE + "prov:delete", {})) == {}


@pytest.mark.requirement("SET-63")
def test_private_types_of_vendors_are_typed() -> None:
    levels = {"previous_level": "low", "current_level": "secure"}
    assert parse_event(OKTA_BASE + "user-risk-change", levels) == UserRiskChange(
        previous_level="low", current_level="secure"
    )
    assert parse_event(OKTA_BASE + "device-risk-change", levels) == DeviceRiskChange(
        previous_level="low", current_level="secure"
    )
    addresses = {"current_ip_address": "192.0.2.1", "previous_ip_address": "192.0.2.2"}
    assert parse_event(OKTA_BASE + "ip-change", addresses) == IPChange(
        current_ip_address="192.0.2.1", previous_ip_address="192.0.2.2"
    )
    refusal(OKTA_BASE + "user-risk-change", {"current_level": "low"})


@pytest.mark.requirement("SET-63", "RISC-26")
def test_a_type_nobody_knows_is_kept_with_its_payload() -> None:
    uri = "https://schemas.openid.net/secevent/oauth/event-type/token-revoked"
    event = parse_event(uri, {"reason": None, "n": [1]})
    assert event == UnknownEvent(type_uri=uri, payload={"reason": None, "n": [1]})
    assert render_event(event) == {"reason": None, "n": [1]}


@pytest.mark.requirement("SUB-23")
def test_an_event_may_name_further_subjects_of_its_own() -> None:
    uri = "https://vendor.example/event-type/ownership-transferred"
    payload = {"transferee": {"format": "email", "email": "tim@green.example"}}
    assert render_event(parse_event(uri, payload)) == payload


@given(st.sampled_from(sorted(EVENT_TYPES)), st.data())
def test_any_payload_is_an_event_or_an_event_error(type_uri: str, data: st.DataObject) -> None:
    fields = msgspec.structs.fields(EVENT_TYPES[type_uri])
    names = st.sampled_from([field.encode_name for field in fields]) if fields else TEXTS
    payload = data.draw(st.dictionaries(names, JSON_VALUES, max_size=5))
    with suppress(EventError):
        event = parse_event(type_uri, payload)
        assert parse_event(type_uri, render_event(event)) == event


@given(
    amr=st.lists(TEXTS, max_size=3),
    moment=st.integers(0, 2**33) | st.floats(0, 2**33),
    reason=st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=2),
)
def test_parsing_what_was_rendered_gives_the_same_event(
    amr: list[str], moment: float, reason: dict[str, str]
) -> None:
    event = SessionEstablished(
        event_timestamp=moment, amr=tuple(amr), acr="AAL2", reason_admin=reason
    )
    assert parse_event(SessionEstablished.type_uri, render_event(event)) == event
