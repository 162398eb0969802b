"""Rows 23 and 28 of the threat model: every event in every form, and a device that heals."""

from __future__ import annotations

from typing import Any, Final

import pytest

from ssf.events.registry import EVENT_TYPES
from tests.hub.conftest import Hub
from tests.hub.story import HUB_AUDIENCE, LAPTOP, ROSA, VENDOR, VENDOR_KEY, Story, begin, sign

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
OKTA: Final = "https://schemas.okta.com/secevent/okta/event-type/"
SCIM: Final = "urn:ietf:params:scim:event:"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
JAMF_CLEAN: Final = {"previous_level": "high", "current_level": "low"}
JAMF_INFECTED: Final = {
    "previous_level": "low",
    "current_level": "high",
    "reason_admin": {"en": "Infected by OSX.Example"},
}

#: event type -> payload, and what becomes of it by the shipped mappings
_SAID: Final[dict[str, tuple[dict[str, Any], str]]] = {
    CAEP + "session-revoked": ({}, "session_end"),
    CAEP + "token-claims-change": ({"claims": {"role": "guest"}}, ""),
    CAEP + "credential-change": (
        {
            "credential_type": "x509",
            "change_type": "revoke",
            "x509_issuer": "CN=CA",
            "x509_serial": "1a:2b",
        },
        "credential_changed:x509",
    ),
    CAEP + "assurance-level-change": (
        {"namespace": "NIST-AAL", "current_level": "nist-aal1", "change_direction": "decrease"},
        "assurance_lowered",
    ),
    CAEP + "device-compliance-change": (
        {"previous_status": "compliant", "current_status": "not-compliant"},
        "device_not_compliant",
    ),
    CAEP + "session-established": ({"acr": "aal2", "amr": ["pwd"]}, "session_seen"),
    CAEP + "session-presented": ({"ext_id": "12345"}, "session_seen"),
    CAEP + "risk-level-change": (
        {"principal": "USER", "current_level": "MEDIUM", "risk_reason": "PASSWORD_FOUND"},
        "partner_lowered, partner_reported_risk",
    ),
    RISC + "account-credential-change-required": ({}, "credential_change_required"),
    RISC + "account-purged": ({}, "session_end"),
    RISC + "account-disabled": ({"reason": "hijacking"}, "session_end, account_hijacked"),
    RISC + "account-enabled": ({}, "account_enabled"),
    RISC + "identifier-changed": ({"new-value": "new@customer.example"}, ""),
    RISC + "identifier-recycled": ({}, ""),
    RISC + "credential-compromise": ({"credential_type": "password"}, "password_compromised"),
    RISC + "opt-in": ({}, ""),
    RISC + "opt-out-initiated": ({}, ""),
    RISC + "opt-out-cancelled": ({}, ""),
    RISC + "opt-out-effective": ({}, ""),
    RISC + "recovery-activated": ({}, "recovery_activated"),
    RISC + "recovery-information-changed": ({}, "recovery_information_changed"),
    RISC + "sessions-revoked": ({}, "session_end, sessions_revoked"),
    SCIM + "feed:add": ({}, ""),
    SCIM + "feed:remove": ({}, ""),
    SCIM + "prov:create:notice": ({"attributes": ["userName"]}, ""),
    SCIM + "prov:create:full": ({"data": {"userName": "rosa"}}, ""),
    SCIM + "prov:patch:notice": ({"attributes": ["active"], "version": 'W/"1"'}, ""),
    SCIM + "prov:patch:full": ({"data": {"Operations": []}, "version": 'W/"1"'}, ""),
    SCIM + "prov:put:notice": ({"attributes": ["title"], "version": 'W/"1"'}, ""),
    SCIM + "prov:put:full": ({"data": {"title": "x"}, "version": 'W/"1"'}, ""),
    SCIM + "prov:delete": ({}, "session_end"),
    SCIM + "prov:activate": ({}, "account_enabled"),
    SCIM + "prov:deactivate": ({}, "session_end, account_disabled"),
    SCIM + "misc:asyncresp": ({"method": "POST", "status": "201", "location": "/Users/1"}, ""),
    OKTA + "user-risk-change": (
        {"previous_level": "low", "current_level": "high"},
        "partner_reported_risk",
    ),
    OKTA + "device-risk-change": (JAMF_INFECTED, "device_compromised"),
    OKTA + "ip-change": (
        {"current_ip_address": "192.0.2.1", "previous_ip_address": "192.0.2.2"},
        "",
    ),
    SSF + "verification": ({}, ""),
    SSF + "stream-updated": ({"status": "enabled"}, ""),
}
NEW_SUBJECT: Final = {
    "format": "complex",
    "user": {"format": "email", "email": ROSA},
    "device": {"format": "opaque", "id": LAPTOP},
}
OLD_SUBJECT: Final = {
    "user": {"subject_type": "email", "email": ROSA},
    "device": {"subject_type": "opaque", "id": LAPTOP},
}
SIMPLE_SUBJECTS: Final = ({"format": "email", "email": ROSA},)


async def push(story: Story, event_type: str, payload: dict[str, Any], **changes: Any) -> None:
    claims = story.claims(**changes, events={event_type: payload})
    claims = {name: value for name, value in claims.items() if value is not None}
    answer = await story.push_raw(sign(claims))
    assert answer.status_code == 202, f"{event_type}: {answer.text}"


def test_every_event_type_is_said_here() -> None:
    assert _SAID.keys() == EVENT_TYPES.keys()


@pytest.mark.requirement(
    "CAEP-10", "CAEP-15", "CAEP-22", "RISC-1", "RISC-8", "SCIM-6", "SCIM-21", "SCIM-22", "SCIM-23",
    "SCIM-24", "SCIM-25", "SCIM-26", "SCIM-27", "SCIM-28", "SCIM-29", "SCIM-30", "SCIM-31",
)  # fmt: skip
@pytest.mark.parametrize("form", ["new", "simple", "old"])
async def test_row_23_every_event_is_taken_and_means_what_its_mapping_says(
    hub: Hub, form: str
) -> None:
    story = await begin(hub)
    await story.admin.patch(
        f"/admin/v1/providers/{story.ids['provider']}", json={"legacy_subject": form == "old"}
    )
    for event_type, (payload, _) in _SAID.items():
        if form == "old":
            await push(story, event_type, {**payload, "subject": OLD_SUBJECT}, sub_id=None)
        elif form == "new":
            await push(story, event_type, payload, sub_id=NEW_SUBJECT)
        else:
            await push(story, event_type, payload, sub_id=SIMPLE_SUBJECTS[0])
        hub.clock.advance(1)
    await hub.settle()

    signals = (await story.get("/admin/v1/signals?limit=100"))["items"]
    found = {each["event_type"]: (each["state"], each["detail"]) for each in signals}
    assert found.keys() == _SAID.keys()
    for event_type, (_, said) in _SAID.items():
        state, detail = found[event_type]
        assert state == ("assessed" if said else "ignored"), event_type
        assert not said or detail == said, event_type
    names = {each["name"] for each in (await story.get("/v1/detections?limit=100"))["items"]}
    assert {"password_compromised", "account_hijacked", "device_compromised"} <= names


async def test_row_28_an_infected_device_is_high_until_the_same_issuer_says_it_is_healthy(
    hub: Hub,
) -> None:
    """Row 28. The shape is that of the vendor's public documentation, not a recording."""
    story = await begin(hub)
    other = "https://edr.vendor.example"
    second = await story.post(
        "/admin/v1/providers",
        {
            "name": "another vendor",
            "issuer": other,
            "audiences": [HUB_AUDIENCE],
            "jwks": {"keys": [VENDOR_KEY.export_public(as_dict=True)]},
        },
    )
    event = OKTA + "device-risk-change"

    async def level() -> str:
        await hub.settle()
        hub.clock.advance(60)
        risk = await story.get(f"/api/v1/users/{story.ids['rosa']}/risk")
        return str(risk["riskLevel"])

    await push(story, event, JAMF_INFECTED, sub_id=NEW_SUBJECT)
    assert await level() == "HIGH"

    claims = story.claims(iss=other, sub_id=NEW_SUBJECT, events={event: JAMF_CLEAN})
    async with hub.client() as vendor:
        answer = await vendor.post(
            second["events_url"],
            content=sign(claims),
            headers={"content-type": "application/secevent+jwt"},
        )
    assert answer.status_code == 202
    assert await level() == "HIGH"

    another = {**NEW_SUBJECT, "device": {"format": "opaque", "id": "PH-0042-01"}}
    await push(story, event, JAMF_CLEAN, sub_id=another, iss=VENDOR)
    assert await level() == "HIGH"

    await push(story, event, JAMF_CLEAN, sub_id=NEW_SUBJECT)
    assert await level() == "LOW"
    # Another issuer's healthy word while it was infected: said, and of no effect.
    assert (await story.get("/admin/v1/containments"))["items"][0]["state"] == "closed"
