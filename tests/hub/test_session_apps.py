"""One session at several apps: what each policy asks, and logouts where it ends, nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.hub.conftest import Hub
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import HOME, OFFICE, SID, STOLEN, Gateway, request_from

APPS = ("mail", "chat", "files", "books", "bank")
STRICT = ("books", "bank")
ENDS = {
    "name": "ends",
    "priority": 1,
    "when": {"level": {"at_least": "MEDIUM"}},
    "then": {"decision": "TERMINATE"},
}


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    """Five apps that know sessions, which Rosa has used at home."""
    story = await begin(hub)
    for name in APPS:
        bcl = {"method": "bcl", "endpoint_url": f"https://{name}.example/bcl"}
        app = {"name": name, "logout": [bcl], "client_id_at_app": "signalhub"}
        story.ids[name] = (await story.post("/admin/v1/apps", app))["id"]
    both = [
        {"method": "gtr", "endpoint_url": f"{IDP}/gtr"},
        {"method": "bcl", "endpoint_url": f"{IDP}/bcl"},
    ]
    idp = f"/admin/v1/apps/{story.ids['idp']}"
    assert (await story.admin.patch(idp, json={"logout": both})).is_success
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def govern(
    gateway: Gateway,
    session: Sequence[dict[str, Any]] = (),
    apps: Sequence[dict[str, Any]] = (),
    mode: str = "enforce",
) -> None:
    """Set the rules for whole sessions, and those of the strict apps; then let Rosa use all."""
    story = gateway.story
    path = "/admin/v1/policies/global-session"
    body = {"name": "global-session", "mode": mode, "rules": list(session)}
    answer = await story.admin.put(path, json=body)
    assert answer.is_success, answer.text
    if apps:
        strict = {"name": "strict", "apps": [story.ids[name] for name in STRICT]}
        await story.post("/admin/v1/policies", {**strict, "mode": mode, "rules": list(apps)})
    await story.hub.node.feed.refresh()
    for name in APPS:
        assert await gateway.decision(at(gateway, HOME, name)) == "ALLOW"
    await rest(gateway)
    story.hub.outside.requests.clear()


def at(gateway: Gateway, ip: str, app: str) -> dict[str, Any]:
    return request_from(ip, app_id=gateway.story.ids[app])


async def rest(gateway: Gateway) -> None:
    """Let everything happen that was ordered."""
    await gateway.settle()
    await gateway.story.hub.settle()
    await gateway.settle()


def logouts(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """Return the claims of the logout tokens that were sent, by URL."""
    found: dict[str, dict[str, Any]] = {}
    for request in gateway.story.hub.outside.requests:
        if request.url.endswith("/bcl"):
            assert request.url not in found
            (token,) = parse_qs((request.body or b"").decode())["logout_token"]
            found[request.url] = claims(token)
        assert not request.url.endswith("/gtr")
    return found


def pushed(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the claims of the SETs about sessions that pay's stream got."""
    requests = gateway.story.hub.outside.requests
    sets = [claims((each.body or b"").decode()) for each in requests if "pay.example" in each.url]
    return [each for each in sets if any("session-revoked" in name for name in each["events"])]


def claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return read


async def is_live(gateway: Gateway, sid: str = SID) -> bool:
    return bool((await gateway.story.get(f"/v1/sessions/{sid}?iss={IDP}"))["live"])


@pytest.mark.requirement("BCL-3")
async def test_row_14_exactly_the_apps_whose_policies_fail_are_acted_on(gateway: Gateway) -> None:
    await govern(gateway, apps=[ENDS])

    # A lax app is asked for; what fails at the others is told, and acted on there.
    decided = await gateway.ask(at(gateway, OFFICE, "mail"))
    assert decided["decision"] == "ALLOW"
    (violation,) = decided["violations"]
    assert (violation["policy"], violation["rule"]) == ("strict", "ends")
    assert set(violation["apps"]) == {gateway.story.ids[name] for name in STRICT}
    await rest(gateway)

    sent = logouts(gateway)
    assert set(sent) == {f"https://{name}.example/bcl" for name in STRICT}
    assert {token["sid"] for token in sent.values()} == {SID}
    assert {token["sub"] for token in sent.values()} == {ROSA}
    assert pushed(gateway) == []
    assert await is_live(gateway)
    for name in APPS:
        wanted = "TERMINATE" if name in STRICT else "ALLOW"
        assert await gateway.decision(at(gateway, OFFICE, name)) == wanted
    await rest(gateway)
    # Once per session and context, however often it is judged.
    assert len(logouts(gateway)) == len(STRICT)


async def test_row_34_a_violation_at_an_app_ends_that_app(gateway: Gateway) -> None:
    await govern(gateway, apps=[ENDS])
    decided = await gateway.ask(at(gateway, OFFICE, "bank"))
    assert (decided["decision"], decided["scope"]) == ("TERMINATE", "app")
    await rest(gateway)
    assert "https://bank.example/bcl" in logouts(gateway)
    assert await is_live(gateway)
    assert await gateway.decision(at(gateway, OFFICE, "mail")) == "ALLOW"


async def test_row_34_a_global_violation_ends_that_session_everywhere(gateway: Gateway) -> None:
    other = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await gateway.story.admin.put("/v1/sessions/phone", json=other)).is_success
    await govern(gateway, session=[ENDS])

    decided = await gateway.ask(at(gateway, OFFICE, "mail"))
    assert (decided["decision"], decided["scope"]) == ("TERMINATE", "session")
    await rest(gateway)
    # The apps follow the identity provider.
    gateway.story.hub.clock.advance(1)
    await rest(gateway)

    sent = logouts(gateway)
    assert set(sent) == {f"https://{name}.example/bcl" for name in APPS} | {f"{IDP}/bcl"}
    assert {token["sid"] for token in sent.values()} == {SID}
    (revoked,) = pushed(gateway)
    assert revoked["sub_id"]["format"] == "complex"
    assert revoked["sub_id"]["session"] == {"format": "iss_sub", "iss": IDP, "sub": SID}
    assert revoked["sub_id"]["user"]
    assert not await is_live(gateway)
    assert await is_live(gateway, "phone")


async def test_row_15_a_thief_logs_nobody_out(gateway: Gateway) -> None:
    await govern(gateway, session=[ENDS], apps=[ENDS])
    stolen = {**STOLEN, "app_id": gateway.story.ids["bank"]}
    assert await gateway.decision(stolen) == "TERMINATE"
    await rest(gateway)
    assert logouts(gateway) == {}
    assert pushed(gateway) == []
    assert await is_live(gateway)


async def test_row_17_monitor_logs_nobody_out(gateway: Gateway) -> None:
    await govern(gateway, session=[ENDS], apps=[ENDS], mode="monitor")
    for name in APPS:
        decided = await gateway.ask(at(gateway, OFFICE, name))
        assert (decided["decision"], decided["would_have"]) == ("ALLOW", "TERMINATE")
    await rest(gateway)
    assert logouts(gateway) == {}
    assert pushed(gateway) == []


async def test_row_39_break_glass_users_are_not_logged_out(gateway: Gateway) -> None:
    entry = {"user": f"email:{ROSA}", "reason": "the last one who can mend it"}
    await gateway.story.post("/admin/v1/break-glass", entry)
    await govern(gateway, apps=[ENDS])
    assert await gateway.decision(at(gateway, OFFICE, "bank")) == "TERMINATE"
    await rest(gateway)
    assert logouts(gateway) == {}


async def test_row_12_a_lax_app_passes_and_a_strict_one_prompts_and_is_quiet_then(
    gateway: Gateway,
) -> None:
    asks = {**ENDS, "name": "asks", "then": {"decision": "STEP_UP", "max_age": 0}}
    await govern(gateway, apps=[asks])

    # The same session in the same new network.
    for lax in ("mail", "chat"):
        decided = await gateway.ask(at(gateway, OFFICE, lax))
        assert decided["decision"] == "ALLOW"
        assert "step_up" not in decided
    prompted = await gateway.ask(at(gateway, OFFICE, "bank"))
    assert (prompted["decision"], prompted["scope"]) == ("STEP_UP", "app")
    await gateway.settle()
    # The prompt at the bank is none of the mail's business.
    assert await gateway.decision(at(gateway, OFFICE, "mail")) == "ALLOW"

    passed = await gateway.story.admin.post(
        f"/v1/sessions/{SID}/step-ups/{prompted['step_up']['id']}",
        json={"iss": IDP, "outcome": "passed"},
    )
    assert passed.status_code == 204, passed.text
    await rest(gateway)
    for app in APPS:
        assert await gateway.decision(at(gateway, OFFICE, app)) == "ALLOW"
    assert logouts(gateway) == {}
