"""One session at several apps: what each policy asks, and logouts where it ends, nowhere else."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

from hub.app import make_app
from hub.node import open_node
from hub.operations import LOG_OUT_SESSION
from risk.inline.model import Stand
from risk.inline.orders import SessionLogout
from risk.inline.store import APPS_MAX
from tests.hub.conftest import ONE_ENGINE, Hub, config_for
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import (
    HOME,
    OFFICE,
    SID,
    STOLEN,
    Gateway,
    answer,
    request_from,
    stands_of,
)

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


async def prompt_at_mail(gateway: Gateway) -> None:
    """Let the mail app ask for a proof where the strict ones end."""
    rule = {**ENDS, "name": "prompts", "then": {"decision": "STEP_UP"}}
    body = {"name": "mail", "apps": [gateway.story.ids["mail"]], "mode": "enforce", "rules": [rule]}
    await gateway.story.post("/admin/v1/policies", body)
    await gateway.story.hub.node.feed.refresh()


@pytest.mark.parametrize("decision", ["TERMINATE", "DENY"])
@pytest.mark.parametrize("is_out_first", [True, False])
async def test_row_14_who_is_out_of_one_app_can_step_up_for_another(
    gateway: Gateway, *, decision: str, is_out_first: bool
) -> None:
    """Regression: there was no step-up to answer, or it was gone once the other app was asked."""
    await govern(gateway, apps=[{**ENDS, "then": {"decision": decision}}])
    await prompt_at_mail(gateway)
    out, prompts = at(gateway, OFFICE, "bank"), at(gateway, OFFICE, "mail")
    if is_out_first:
        assert await gateway.decision(out) == decision
        await rest(gateway)
    asked = await gateway.ask(prompts)
    assert asked["decision"] == "STEP_UP"
    assert await gateway.decision(out) == decision
    assert (await answer(gateway, asked["step_up"]["id"])).status_code == 204
    await rest(gateway)
    assert await gateway.decision(prompts) == "ALLOW"
    assert await gateway.decision(at(gateway, OFFICE, "bank")) == (
        "ALLOW" if decision == "DENY" else "TERMINATE"
    )


async def test_row_34_who_asks_again_at_an_app_that_ended_keeps_the_session(
    gateway: Gateway,
) -> None:
    """Regression: what was over for one app was over for the session, once it was read anew."""
    await govern(gateway, apps=[ENDS])
    for _ in range(3):
        decided = await gateway.ask(at(gateway, OFFICE, "bank"))
        assert (decided["decision"], decided["scope"]) == ("TERMINATE", "app")
        await rest(gateway)
        gateway.inline.live.start_over()
    assert await is_live(gateway)
    assert await gateway.decision(at(gateway, OFFICE, "mail")) == "ALLOW"


async def test_row_34_a_violation_at_an_app_ends_that_app(gateway: Gateway) -> None:
    await govern(gateway, apps=[ENDS])
    decided = await gateway.ask(at(gateway, OFFICE, "bank"))
    assert (decided["decision"], decided["scope"]) == ("TERMINATE", "app")
    await rest(gateway)
    assert "https://bank.example/bcl" in logouts(gateway)
    assert await is_live(gateway)
    assert await gateway.decision(at(gateway, OFFICE, "mail")) == "ALLOW"


async def test_what_ended_at_one_app_ends_everywhere_when_the_session_does(
    gateway: Gateway,
) -> None:
    """Regression: its context was over already, at that app, and the session lived on."""
    story = gateway.story
    await govern(gateway, apps=[ENDS])
    decided = await gateway.ask(at(gateway, OFFICE, "bank"))
    assert (decided["decision"], decided["scope"]) == ("TERMINATE", "app")
    await gateway.settle()
    over = {**ENDS, "then": {"decision": "TERMINATE", "scope": "session"}}
    body = {"name": "global-session", "mode": "enforce", "rules": [over]}
    assert (await story.admin.put("/admin/v1/policies/global-session", json=body)).is_success
    await story.hub.node.feed.refresh()
    assert await gateway.decision(at(gateway, OFFICE, "mail")) == "TERMINATE"
    assert not (await story.get(f"/v1/sessions/{SID}?iss={IDP}"))["live"]


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


@asynccontextmanager
async def another_process(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Open a process of the same hub that never heard of any session."""
    hub = gateway.story.hub
    config = config_for(hub.node.config.database_url, index=1)
    async with open_node(config) as opened:
        node = dataclasses.replace(opened, clock=hub.clock)
        app = make_app(node, hub.outside)
        second = dataclasses.replace(hub, node=node, app=app)
        async with second.client(gateway.http.headers["authorization"].split()[1]) as http:
            yield Gateway(dataclasses.replace(gateway.story, hub=second), http)


async def test_row_14_every_process_knows_the_apps_of_a_session(gateway: Gateway) -> None:
    """Also one that starts later: policies of apps used elsewhere take part, and act there."""
    await govern(gateway, apps=[ENDS])
    async with another_process(gateway) as other:
        decided = await other.ask(at(gateway, OFFICE, "mail"))
        assert decided["decision"] == "ALLOW"
        (violation,) = decided["violations"]
        assert set(violation["apps"]) == {gateway.story.ids[name] for name in STRICT}
        await other.inline.behind.flush()
    await rest(gateway)
    assert set(logouts(gateway)) == {f"https://{name}.example/bcl" for name in STRICT}


async def test_an_app_is_heard_of_in_a_process_that_holds_the_session(gateway: Gateway) -> None:
    story = gateway.story
    ask = request_from(HOME, app_id=story.ids["mail"])
    async with another_process(gateway) as other:
        assert await other.decision(ask) == "ALLOW"
        assert await gateway.decision(at(gateway, HOME, "bank")) == "ALLOW"
        await gateway.settle()
        await other.settle()
        assert await other.decision(ask) == "ALLOW"
        live = await other.inline.live.find("default", IDP, SID, None)
        assert live is not None
        assert {story.ids["mail"], story.ids["bank"]} <= live.apps


async def test_no_more_apps_of_a_session_are_kept_than_there_is_room_for(gateway: Gateway) -> None:
    for number in range(APPS_MAX + 3):
        app = await gateway.story.post("/admin/v1/apps", {"name": f"app-{number}"})
        gateway.story.ids[f"app-{number}"] = app["id"]
    await gateway.story.hub.node.feed.refresh()
    for number in range(APPS_MAX + 3):
        await gateway.ask(at(gateway, HOME, f"app-{number}"))
    await gateway.settle()
    async with another_process(gateway) as other:
        assert await other.decision(request_from(HOME)) == "ALLOW"
        live = await other.inline.live.find("default", IDP, SID, None)
        assert live is not None
        assert len(live.apps) == APPS_MAX


@ONE_ENGINE
async def test_names_that_nobody_registered_take_no_room_from_apps(gateway: Gateway) -> None:
    for number in range(APPS_MAX):
        await gateway.ask(request_from(HOME, app_id=f"a-made-up-{number}"))
        await gateway.ask(request_from(OFFICE, app_id=f"a-made-up-{number}"))
    await rest(gateway)
    gateway.inline.live.start_over()
    await govern(gateway, apps=[ENDS])
    live = await gateway.inline.live.find("default", IDP, SID, None)
    assert live is not None
    assert live.apps == {gateway.story.ids[name] for name in APPS}
    gateway.story.hub.clock.advance(1)
    await gateway.ask(at(gateway, "192.0.2.77", "mail"))
    await rest(gateway)
    assert sorted(logouts(gateway)) == ["https://bank.example/bcl", "https://books.example/bcl"]


# --- held for a person --------------------------------------------------------------------------


async def hold(gateway: Gateway) -> dict[str, Any]:
    """Let more users be logged out than the guard lets pass, Rosa last; return what is held."""
    story = gateway.story
    crowd = [f"crowd-{number}" for number in range(3)]
    for sid in crowd:
        user = {"format": "email", "email": f"{sid}@customer.example"}
        put = await story.admin.put(f"/v1/sessions/{sid}", json={"iss": IDP, "user": user})
        assert put.is_success
    await govern(gateway, session=[ENDS])
    for sid in (*crowd, SID):
        await gateway.ask(at(gateway, HOME, "mail"), sid)
        await gateway.settle()
        assert await gateway.decision(at(gateway, OFFICE, "mail"), sid) == "TERMINATE"
    await rest(gateway)
    story.hub.clock.advance(1)
    await rest(gateway)
    items: list[dict[str, Any]] = (await story.get("/admin/v1/session-logouts"))["items"]
    (held,) = items
    assert (held["user_id"], held["sid"], held["state"]) == (story.ids["rosa"], SID, "held")
    assert SID not in {token["sid"] for token in logouts_of(gateway)}
    assert held["apps"] is None
    assert held["reasons"][0] == "global-session/ends"
    return held


def logouts_of(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the claims of all logout tokens that were sent."""
    return [
        claims(parse_qs((request.body or b"").decode())["logout_token"][0])
        for request in gateway.story.hub.outside.requests
        if request.url.endswith("/bcl")
    ]


async def test_row_39_a_held_logout_of_a_session_is_approved(gateway: Gateway) -> None:
    held = await hold(gateway)
    story = gateway.story
    path = f"/admin/v1/session-logouts/{held['id']}"
    done = await story.post(f"{path}/approve", {})
    assert done["state"] == "approved"
    assert done["settled_by"].startswith("cli_")
    await rest(gateway)
    story.hub.clock.advance(1)
    await rest(gateway)
    mine = [token for token in logouts_of(gateway) if token["sid"] == SID]
    assert len(mine) == len(APPS) + 1
    assert [each["sub_id"]["session"]["sub"] for each in pushed(gateway)].count(SID) == 1
    # Once is once.
    for action in ("approve", "refuse"):
        assert (await story.admin.post(f"{path}/{action}", json={})).status_code == 409
    assert (await story.get(path))["state"] == "approved"
    assert (await story.get("/admin/v1/session-logouts?state=held"))["items"] == []
    actions = [entry.action for entry in await story.hub.audit()]
    assert actions.count("session_logout.approve") == 1


async def test_row_39_a_refused_logout_never_happens(gateway: Gateway) -> None:
    held = await hold(gateway)
    story = gateway.story
    path = f"/admin/v1/session-logouts/{held['id']}"
    assert (await story.post(f"{path}/refuse", {}))["state"] == "refused"
    assert (await story.admin.post(f"{path}/approve", json={})).status_code == 409
    story.hub.clock.advance(3_600)
    # Also not when somebody orders it again, and there is room by now.
    order = SessionLogout(
        tenant_id="default",
        user_id=held["user_id"],
        session_id=held["session_id"],
        iss=IDP,
        sid=SID,
        context_key=(await only_terminated(gateway)).context_key,
        app_ids=None,
        at=story.hub.clock.now(),
    )
    await story.hub.node.writer.submit(LOG_OUT_SESSION, order)
    await rest(gateway)
    assert SID not in {token["sid"] for token in logouts_of(gateway)}
    entry = [each for each in await story.hub.audit() if each.action == "session_logout.refuse"]
    assert [each.ref for each in entry] == [held["id"]]


async def test_row_39_a_held_logout_is_not_carried_out_on_the_next_session_of_its_name(
    gateway: Gateway,
) -> None:
    """Regression: it went by `sid`, which the user had signed in anew under meanwhile."""
    held = await hold(gateway)
    story = gateway.story
    story.hub.clock.advance(1)
    anew = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=anew)).is_success
    path = f"/admin/v1/session-logouts/{held['id']}"
    answer = await story.admin.post(f"{path}/approve", json={})
    assert answer.status_code == 409
    assert "began anew" in answer.json()["detail"]
    await rest(gateway)
    assert SID not in {token["sid"] for token in logouts_of(gateway)}
    assert await is_live(gateway)
    assert (await story.get(path))["state"] == "held"
    assert (await story.post(f"{path}/refuse", {}))["state"] == "refused"


async def only_terminated(gateway: Gateway) -> Stand:
    stands: list[Stand] = await stands_of(gateway)
    (stand,) = [each for each in stands if each.state == "terminated"]
    return stand


@ONE_ENGINE
async def test_held_logouts_are_no_business_of_others(gateway: Gateway) -> None:
    held = await hold(gateway)
    hub = gateway.story.hub
    path = f"/admin/v1/session-logouts/{held['id']}"
    await hub.add_tenant("blue")
    async with hub.client(await hub.token(tenant="blue"), tenant="blue") as stranger:
        assert (await stranger.get("/admin/v1/session-logouts")).json()["items"] == []
        assert (await stranger.get(path)).status_code == 404
        for action in ("approve", "refuse"):
            assert (await stranger.post(f"{path}/{action}", json={})).status_code == 404
    for scopes, status in ((("admin.read",), 403), (("sessions.evaluate",), 403)):
        async with hub.client(await hub.token(*scopes)) as client:
            assert (await client.post(f"{path}/approve", json={})).status_code == status
    story = gateway.story
    for unknown in ("hsl_none", "x" * 300):
        answer = await story.admin.post(f"/admin/v1/session-logouts/{unknown}/refuse", json={})
        assert answer.status_code == 404
    assert (await story.admin.get("/admin/v1/session-logouts?state=gone")).status_code == 400
    assert (await story.get(path))["state"] == "held"
