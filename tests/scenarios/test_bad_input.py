"""Bad SETs over real HTTP: each is refused with its code, changes nothing, and is never a 500."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hub.demo.incident import Incident
from hub.demo.world import World
from tests.scenarios.kit import enrolled, live_sessions

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

FAR_FUTURE_S = 4_000_000_000
#: name -> (how the SET is bent, status, RFC 8935 error code)
BENT: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "signed with another key": ({"key": "foreign"}, 400, "authentication_failed"),
    "not signed": ({"key": "none"}, 400, "invalid_key"),
    "HMAC with the public key": ({"key": "public_as_hmac"}, 400, "invalid_key"),
    "another kind of JWT": ({"header": {"typ": "JWT"}}, 400, "invalid_request"),
    "another issuer": ({"claims": {"iss": "https://evil.example"}}, 400, "invalid_issuer"),
    "another audience": ({"claims": {"aud": "https://other.example"}}, 400, "invalid_audience"),
    "from the future": ({"iat": FAR_FUTURE_S}, 400, "invalid_request"),
    "with an end": ({"claims": {"exp": FAR_FUTURE_S}}, 400, "invalid_request"),
    "without an event": ({"claims": {"events": {}}}, 400, "invalid_request"),
    "with a member twice": ({"payload_text": '{"iss":"a","iss":"b"}'}, 400, "invalid_request"),
    "with broken JSON": ({"payload_text": '{"iss":'}, 400, "invalid_request"),
    "no JWT": ({"body": "hello"}, 400, "invalid_request"),
    "without the secret": ({"authorization": "Bearer wrong"}, 401, "authentication_failed"),
    "of another content type": ({"content_type": "application/json"}, 415, None),
    "too large": ({"body": "a" * 900_000}, 413, None),
}


@pytest.mark.requirement("SET-50", "SET-53", "PUSH-12", "PUSH-14")
async def test_row_23_each_bad_set_gets_its_answer_and_changes_nothing(world: World) -> None:
    incident = await enrolled(world, "lied-about")
    await incident.sign_in()
    before = await live_sessions(world, incident.user)
    stored = await _newest_signal(world)
    for name, (bend, status, code) in BENT.items():
        sent = await _emit(incident, bend)
        assert sent["status"] == status, (name, sent)
        if code is not None:
            assert msgspec.json.decode(sent["answer"])["err"] == code, (name, sent)
    assert await _newest_signal(world) == stored
    assert await incident.is_at("LOW")()
    assert await live_sessions(world, incident.user) == before
    assert not await world.containments(incident.user)


async def test_nobody_is_found_at_the_address_of_an_unknown_provider(world: World) -> None:
    incident = await enrolled(world, "at-a-wrong-address")
    url, _, _ = world.push_settings[world.vendor.url][0].rpartition("/receivers/")
    sent = await _emit(incident, {"push_url": f"{url}/receivers/prv_unknown/events"})
    assert sent["status"] == 404


async def _emit(incident: Incident, bend: dict[str, Any]) -> Any:
    order: dict[str, Any] = {
        "shape": "device-compliance-change",
        "user": {"format": "email", "email": incident.user},
        "device": {"format": "opaque", "id": incident.person.devices[0]},
        "status": "not-compliant",
        "attempts_max": 1,
        **bend,
    }
    return await incident.world.emit(**order)


async def _newest_signal(world: World) -> list[dict[str, Any]]:
    listed = await world.admin("GET", "/admin/v1/signals?limit=1")
    newest: list[dict[str, Any]] = listed["items"]
    return newest
