"""No tenant reaches another: in the schema, in every statement, and on every route."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from hub.admin.openapi import document
from hub.admin.routes import KINDS
from runtime.database import metadata
from runtime.store import StoredKey
from tests.hub.conftest import Hub, opened_hub
from tests.hub.statements import SYSTEM, UnnamedTenantError, Watcher, check
from tests.hub.story import COMPLIANCE_CHANGE, IDP, Story, begin

ROOT = Path(__file__).parents[2]
PACKAGES = ("actions", "hub", "receivers", "risk", "runtime", "transmitters")

#: The only functions whose statements may span tenants (contracts §2): leases, configuration
#: versions and the change feed belong to the installation; due work is found for all tenants at
#: once; routing needs the list of tenants. What they find carries its tenant, and every statement
#: that follows names it.
SYSTEM_FUNCTIONS = {
    "hub.store.system_list_tenants",
    "hub.oauth.store.system_purge_assertions",
    "hub.oauth.store.system_purge_revoked",
    "hub.guard.store.system_untold",
    "runtime.leases.store.system_lock_leases",
    "runtime.store.system_config_versions",
    "runtime.store.system_changes_after",
    "runtime.store.system_feed_end",
    "runtime.store.system_purge_changes",
    "receivers.store._system_waiting_tenants",
    "receivers.refusals.store.system_purge_errors",
    "risk.levels.store.system_due_tenants",
    "risk.baselines.store.system_purge_org_values",
    "risk.signins.store.system_purge_sign_ins",
    "risk.signins.store.system_purge_tallies",
    "risk.ips.store.system_purge_claims",
    "risk.inline.store.system_purge_stands",
    "risk.inline.store.system_purge_proofs",
    "risk.inline.store.system_purge_trails",
    "risk.contexts.store.system_purge_contexts",
    "risk.reviews.store.system_due_reviews",
    "risk.reviews.store.system_purge_reviews",
    "risk.reviews.store.system_count_reviews",
    "risk.sweeps.store.system_running",
    "actions.held.store.system_purge_held",
    "risk.inline.store.system_purge_apps",
    "risk.app_use.store.system_purge_uses",
    "actions.tasks.store.system_due_tasks",
    "actions.tasks.store.system_local_due",
    "actions.registry.store.system_apps_of",
    "actions.registry.store.system_webhooks_of",
    "transmitters.delivery.store.system_push_targets",
    "transmitters.delivery.store.system_targets_among",
    "transmitters.delivery.store.system_waiting_streams",
    "receivers.upstreams.due.store.system_due_upstreams",
}
#: The only indexes that do not begin with the tenant: what system functions alone read by.
SYSTEM_INDEXES = {
    "ix_changes_at",
    "ix_changes_position",
    "ix_ip_claims_expires_at",
    "ix_org_values_last_at",
    "ix_session_contexts_at",
    "ix_session_proofs_at",
    "ix_session_reviews_at",
    "ix_held_session_logouts_held_at",
    "ix_session_apps_at",
    "ix_sweeps_state",
    "ix_session_stands_at",
    "ix_session_trails_at",
    "ix_sign_in_failures_at",
    "ix_sign_ins_at",
    "ix_user_apps_last_at",
}


# --- the schema ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_key_and_index_begins_with_the_tenant(table: sa.Table) -> None:
    keys: list[Any] = [
        table.primary_key,
        *(each for each in table.constraints if isinstance(each, sa.UniqueConstraint)),
        *table.indexes,
    ]
    for key in keys:
        first = next(iter(key.columns)).name
        assert first == "tenant_id" or key.name in SYSTEM_INDEXES, f"{table.name}: {key.name}"


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_no_row_is_without_a_tenant(table: sa.Table) -> None:
    assert not table.c.tenant_id.nullable


def test_the_list_of_system_functions_is_whole() -> None:
    found = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.AsyncFunctionDef) and (
                    node.name.lstrip("_").startswith(SYSTEM)
                ):
                    found.add(f"{module}.{node.name}")

    assert found == SYSTEM_FUNCTIONS


# --- the reader of statements -------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT apps.name FROM apps WHERE apps.tenant_id = ?",
        "SELECT apps.name FROM apps WHERE apps.tenant_id = $1::VARCHAR AND apps.app_id = $2",
        "SELECT a.name FROM apps AS a WHERE a.tenant_id IN (?, ?)",
        "SELECT name FROM apps WHERE (apps.tenant_id, apps.app_id) IN ((?, ?), (?, ?))",
        (
            "SELECT 1 FROM signals JOIN providers ON providers.tenant_id = signals.tenant_id "
            "WHERE signals.tenant_id = ?"
        ),
        "SELECT 1 FROM tasks, apps AS x WHERE x.tenant_id = tasks.tenant_id AND x.tenant_id = ?",
        "UPDATE apps SET name=? WHERE apps.tenant_id = ?",
        "DELETE FROM apps WHERE apps.tenant_id = ? AND apps.app_id = ?",
        "INSERT INTO webhooks (tenant_id, webhook_id, events) VALUES (?, ?, ?)",
        "SELECT 1 FROM detections INDEXED BY ix_detections_active WHERE tenant_id = ?",
        (
            "SELECT 1 FROM apps WHERE apps.tenant_id = ? AND EXISTS (SELECT 1 FROM tasks "
            "WHERE tasks.tenant_id = apps.tenant_id)"
        ),
        "BEGIN IMMEDIATE",
        "SELECT pg_advisory_xact_lock($1::BIGINT)",
    ],
)
def test_a_statement_that_names_its_tenant_passes(sql: str) -> None:
    check(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT apps.tenant_id, apps.name FROM apps",
        "SELECT apps.name FROM apps WHERE apps.app_id = ?",
        "SELECT apps.name FROM apps WHERE apps.tenant_id > ?",
        "SELECT apps.name FROM apps WHERE apps.tenant_id != ?",
        (
            "SELECT 1 FROM signals JOIN providers ON providers.provider_id = signals.provider_id "
            "WHERE signals.tenant_id = ?"
        ),
        "SELECT 1 FROM tasks AS a JOIN tasks AS b ON a.task_id = b.undo_of WHERE a.tenant_id = ?",
        "SELECT 1 FROM tasks, apps WHERE tasks.tenant_id = apps.tenant_id",
        "UPDATE apps SET tenant_id=?, name=? WHERE apps.app_id = ?",
        "DELETE FROM apps WHERE apps.app_id = ?",
        "INSERT INTO webhooks (webhook_id, events) VALUES (?, ?)",
        (
            "SELECT 1 FROM apps WHERE apps.tenant_id = ? AND EXISTS (SELECT 1 FROM tasks "
            "WHERE tasks.app_id = apps.app_id)"
        ),
    ],
)
def test_a_statement_that_does_not_is_caught(sql: str) -> None:
    with pytest.raises(UnnamedTenantError):
        check(sql)


# --- every statement ----------------------------------------------------------------------------


@pytest.fixture
async def two_tenants(database_url: str, signing_keys: tuple[StoredKey, ...]) -> AsyncIterator[Hub]:
    async with opened_hub(database_url, signing_keys, ("default", "green", "blue")) as hub:
        yield hub


#: takes the events of the story's vendor
RELAY = {"name": "all of it", "mode": "enforce", "event_types": [COMPLIANCE_CHANGE]}


async def use_everything(story: Story) -> None:
    """Ask and change whatever there is, as admin, app, IdP and vendor of one tenant."""
    rosa, ids = story.ids["rosa"], story.ids
    for kind in KINDS:
        items = (await story.get(f"/admin/v1/{kind.name}"))["items"]
        await story.get(f"/admin/v1/{kind.name}?limit=1&cursor={items[0]['id'] if items else ''}")
        if kind.read is not None and items:
            await story.get(f"/admin/v1/{kind.name}/{items[0]['id']}")
    for path in (
        "/admin/v1/containments?state=open",
        f"/admin/v1/containments?user={rosa}",
        "/admin/v1/tasks?state=failed",
        "/admin/v1/signals?state=unmatched",
        f"/admin/v1/deliveries?stream={ids['wiki stream']}&state=pending",
        "/admin/v1/deliveries?txn=txn-1&since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z",
        f"/api/v1/users/{rosa}/risk",
        "/v1/risk/users?level=HIGH&since=2026-01-01T00:00:00Z",
        "/v1/risk/users/ext:ext-rosa",
        f"/v1/risk/users/{rosa}/history",
        f"/v1/risk/users/{rosa}/explain",
        f"/v1/detections?user={rosa}&state=active",
        f"/v1/detections?device={ids['rosa device']}",
        f"/v1/sessions?user={rosa}",
        "/.well-known/ssf-configuration",
        "/jwks.json",
        "/readyz",
    ):
        await story.get(path)
    await story.admin.put(f"/api/v1/users/{ids['tim']}/risk", json={"riskLevel": "MEDIUM"})
    await story.admin.put(f"/api/v1/users/{ids['tim']}/risk", json={"riskLevel": "LOW"})
    at = story.hub.clock.now().isoformat()
    subjects = [{"ip": "198.51.100.7", "riskLevel": "HIGH"}]
    reported = await story.admin.post(
        "/api/v1/risk/events/ip", json=[{"timestamp": at, "subjects": subjects}]
    )
    assert reported.status_code == 202
    await story.get("/v1/ip/198.51.100.7")
    await _use_as_app(story)
    await _change_everything(story)
    story.hub.clock.advance(60)
    await story.push(compliant=True)
    await story.hub.settle()
    story.hub.clock.advance(90_000)
    await story.hub.settle()
    await story.hub.tend()
    # Everything is held too long by then, and after another while kept too long.
    for days in (15, 31):
        story.hub.clock.advance(days * 86_400)
        await story.hub.tend()


async def _use_as_app(story: Story) -> None:
    hub, tenant = story.hub, story.tenant
    async with hub.client(story.tokens["wiki"], tenant=tenant) as wiki:
        stream = story.ids["wiki stream"]
        await wiki.get("/ssf/streams")
        await wiki.get(f"/ssf/streams?stream_id={stream}")
        await wiki.get(f"/ssf/status?stream_id={stream}")
        polled = await wiki.post(f"/ssf/poll/{stream}", json={"returnImmediately": True})
        jtis = list(polled.json()["sets"])
        refusals = {jti: {"err": "invalid_request", "description": "no"} for jti in jtis[1:]}
        settled = {"ack": jtis[:1], "setErrs": refusals, "returnImmediately": True}
        assert (await wiki.post(f"/ssf/poll/{stream}", json=settled)).status_code == 200
        for jti in jtis[1:]:
            body = {"stream_id": stream, "jti": jti}
            await story.post("/admin/v1/dead-letters:redrive", body)
        replayed = {"since": "2026-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
        await story.post(f"/admin/v1/streams/{stream}/replay", replayed)
    async with hub.client(story.tokens["idp"], tenant=tenant) as idp:
        await idp.get("/v1/sessions/sid-rosa")
        body = {"user": "email:rosa.lind@customer.example", "device": "NEW-1"}
        await idp.put("/v1/sessions/sid-rosa", json=body)
        await idp.put("/v1/sessions/sid-new", json=body)
        await idp.delete("/v1/sessions/sid-new")
    for path, question in (
        ("/v1/sessions/sid-rosa/evaluate", {"iss": IDP}),
        ("/v1/sign-ins/evaluate", {"user": story.ids["rosa"], "ip": "198.51.100.7"}),
    ):
        assert (await story.admin.post(path, json=question)).status_code == 200


async def _change_everything(story: Story) -> None:
    admin, ids = story.admin, story.ids
    await admin.patch(f"/admin/v1/providers/{ids['provider']}", json={"level_cap": "HIGH"})
    await admin.patch(f"/admin/v1/apps/{ids['crm']}", json={"sensitivity": 1})
    await admin.put(f"/admin/v1/apps/{ids['crm']}", json={"name": "crm"})
    key = {"idempotency-key": "k-1"}
    made, _ = [
        await admin.post("/admin/v1/apps", json={"name": "brief"}, headers=key) for _ in range(2)
    ]
    await admin.delete(f"/admin/v1/apps/{made.json()['id']}")
    emitted = {**EMITTED, "stream_id": ids["wiki stream"]}
    await story.post("/admin/v1/events:emit", emitted)
    shaped = await admin.patch(f"/admin/v1/streams/{ids['pay stream']}", json={"profile": "sse"})
    assert shaped.status_code == 200
    await admin.delete(f"/admin/v1/streams/{ids['pay stream']}")
    await admin.delete(f"/admin/v1/clients/{ids['pay client']}")
    await admin.delete(f"/admin/v1/webhooks/{ids['webhook']}")


async def test_every_statement_names_its_tenant(two_tenants: Hub) -> None:
    hub = two_tenants
    watcher = Watcher()
    watcher.watch(hub.database)
    stories = [await begin(hub, "green"), await begin(hub, "blue")]
    hub.outside.answer("https://crm.example/gtr", 400)
    for story in stories:
        await story.post("/admin/v1/relays", RELAY)
        await story.post("/admin/v1/relays", {**RELAY, "name": "later", "event_types": None})
        assert (await story.push()).status_code == 202
        assert (await story.push(txn="txn_of_ours")).status_code == 202
        unknown = {"format": "email", "email": "late@customer.example"}
        assert (await story.push(sub_id=unknown)).status_code == 202
    await hub.settle()
    for story in stories:
        late = {"identifiers": [{"format": "email", "email": "late@customer.example"}]}
        await story.post("/admin/v1/users", late)
        await use_everything(story)

    assert watcher.unnamed == []
    assert watcher.count > 1_000
    allowed = {name.rpartition(".")[2] for name in SYSTEM_FUNCTIONS}
    assert watcher.crossings <= allowed
    assert "system_due_tasks" in watcher.crossings


async def test_a_request_of_one_tenant_never_names_another(two_tenants: Hub) -> None:
    hub = two_tenants
    green, blue = await begin(hub, "green"), await begin(hub, "blue")
    await green.play()
    await blue.play()
    await hub.node.feed.refresh()
    watcher = Watcher()
    watcher.watch(hub.database)
    for kind in KINDS:
        await green.get(f"/admin/v1/{kind.name}")
    await green.admin.patch(f"/admin/v1/apps/{green.ids['crm']}", json={"sensitivity": 1})
    await green.admin.put(f"/api/v1/users/{green.ids['rosa']}/risk", json={"riskLevel": "HIGH"})
    await _use_as_app(green)

    assert watcher.mentions("green")
    assert not watcher.mentions("blue")


# --- every route --------------------------------------------------------------------------------

#: which of a tenant's objects the id in a path names, where the first that is listed will not do
NAMED_BY: dict[str, str] = {
    "/receivers/{provider}/events": "provider",
    "/v1/signals/webhook/{provider}": "provider",
    "/ssf/poll/{stream_id}": "wiki stream",
    "/api/v1/users/{user}/risk": "rosa",
    "/v1/risk/users/{user}": "rosa",
    "/v1/risk/users/{user}/history": "rosa",
    "/v1/risk/users/{user}/explain": "rosa",
    "/v1/sessions/{sid}": "private session",
    "/v1/sessions/{sid}/evaluate": "private session",
    "/v1/sessions/{sid}/step-ups/{step_up_id}": "private session",
    "/admin/v1/mappings/{id}": "mapping",
    **dict.fromkeys(
        (
            "/admin/v1/zones/{id}",
            "/admin/v1/zones/{id}/activate",
            "/admin/v1/zones/{id}/deactivate",
            "/admin/v1/zones/{id}/explain",
        ),
        "zone",
    ),
    "/admin/v1/keys/{id}/activate": "signing key",
    "/admin/v1/keys/{id}/withdraw": "signing key",
    "/admin/v1/tasks/{id}/retry": "task",
    "/admin/v1/tasks/{id}/abandon": "task",
}
#: whose risk the paths below `/v1/risk/` are about, by kind
AT_RISK = {
    "users": "rosa",
    "devices": "rosa device",
    "sessions": "private session",
    "apps": "crm",
}
#: one policy per tenant under a fixed name; an address is nobody's object (tests/hub/test_ips.py)
SAME_EVERYWHERE = {"/admin/v1/policies/{id}", "/v1/ip/{ip}"}
#: what stands behind it is the path at the gateway, and no object
NO_OBJECT = {"/v1/forward-auth/{tail}"}
#: what no tenant but the root has
OWNERS = {"/admin/v1/tenants/{id}", "/admin/v1/feeds/{id}"}
#: what a path names that belongs to no tenant's data, and is told to everybody
PUBLIC = {"/.well-known/oauth-protected-resource/{path}"}
#: a question about an unknown session has an answer: no
EMITTED = {
    "event_type": "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "subject": {"format": "opaque", "id": "test"},
}
UNKNOWN_IS_ANSWERED = {"/v1/sessions/{sid}/evaluate": 200}
ABSENT = {
    "rosa": "usr_01KJQ2M80000ZC4T9W6YR0QXN1",
    "private session": "nobodys",
    "provider": "prv_01KJQ2M80000ZC4T9W6YR0QXN1",
}


async def test_what_belongs_to_another_tenant_is_not_there_on_any_route(two_tenants: Hub) -> None:
    green, blue = await _two_full_tenants(two_tenants)
    paths = (
        {path for path in document()["paths"] if "{" in path}
        - SAME_EVERYWHERE
        - PUBLIC
        - OWNERS
        - NO_OBJECT
    )
    assert paths >= NAMED_BY.keys()
    named = {path: await _object_of(blue, path) for path in paths}
    before = await _everything(blue)
    for path in sorted(paths):
        object_id = named[path]
        absent = ABSENT.get(NAMED_BY.get(path, ""), f"{object_id[:4]}01KJQ2M80000ZC4T9W6YR0QXN1")
        for method in document()["paths"][path]:
            body = _body_of(path, method)
            foreign = await _ask(green, method, path, object_id, body)
            missing = await _ask(green, method, path, absent, body)

            expected = UNKNOWN_IS_ANSWERED.get(path, 404)
            assert foreign.status_code == expected, f"{method} {path}: {foreign.text}"
            assert _told(foreign) == _told(missing), f"{method} {path}"

    assert await _everything(blue) == before


async def _object_of(story: Story, path: str) -> str:
    """Return the id of an object of the tenant that a path may name.

    A kind that is new needs nothing here: the first of its objects is taken, and where there is
    none, one is made of the kind's own example.
    """
    if path in NAMED_BY:
        return str(story.ids[NAMED_BY[path]])
    if path.startswith("/v1/detections/"):
        return str((await story.get("/v1/detections"))["items"][0]["detection_id"])
    kind = path.removeprefix("/admin/v1/").removeprefix("/v1/risk/").partition("/")[0]
    if path.startswith("/v1/risk/") and kind in AT_RISK:
        return str(story.ids[AT_RISK[kind]])
    if kind == "service-accounts":
        path = f"/admin/v1/{kind}"
    assert path.startswith("/admin/v1/"), f"say in NAMED_BY what {path} names"
    listed = (await story.get(f"/admin/v1/{kind}"))["items"]
    # What comes with the hub is in every tenant, under the same id.
    items = [each for each in listed if not each.get("built_in")]
    if not items:
        example = _body_of(f"/admin/v1/{kind}", "post")
        items = [await story.post(f"/admin/v1/{kind}", example)]
    return str(items[0]["id"])


async def test_another_tenants_objects_cannot_be_named_in_bodies_and_queries(
    two_tenants: Hub,
) -> None:
    green, blue = await _two_full_tenants(two_tenants)
    before = await _everything(blue)
    letter = (await blue.get("/admin/v1/deliveries?state=dead"))["items"][0]
    device = {"identifiers": [{"format": "opaque", "id": "X-1"}], "owner": blue.ids["rosa"]}
    session = {"iss": "https://login.customer.example", "user": blue.ids["rosa"]}
    client = {"name": "x", "scopes": ["ssf.read"], "app_id": blue.ids["crm"]}
    dead = {"stream_id": letter["stream_id"], "jti": letter["jti"]}
    for method, path, body, status in (
        ("POST", "/admin/v1/devices", device, 404),
        ("POST", "/admin/v1/clients", client, 400),
        ("POST", "/admin/v1/dead-letters:redrive", dead, 404),
        ("POST", "/admin/v1/events:emit", {**EMITTED, "stream_id": letter["stream_id"]}, 404),
        ("POST", f"/admin/v1/streams/{green.ids['pay stream']}/replay", {"jti": dead["jti"]}, 404),
        ("PUT", "/v1/sessions/x", session, 404),
        ("PUT", "/v1/sessions/x", {**session, "device": blue.ids["rosa device"]}, 404),
        ("GET", f"/v1/sessions?user={blue.ids['rosa']}", None, 404),
        ("GET", f"/v1/detections?user={blue.ids['rosa']}", None, 404),
        ("GET", f"/v1/detections?device={blue.ids['rosa device']}", None, 404),
    ):
        answer = await green.admin.request(method, path, json=body)
        assert answer.status_code == status, f"{path}: {answer.text}"
    for path in (
        f"/admin/v1/containments?user={blue.ids['rosa']}",
        f"/admin/v1/deliveries?stream={blue.ids['pay stream']}",
    ):
        assert (await green.get(path))["items"] == []
    async with green.hub.client(green.tokens["wiki"], tenant="green") as wiki:
        for path in ("/ssf/streams", "/ssf/status"):
            answer = await wiki.get(f"{path}?stream_id={blue.ids['wiki stream']}")
            assert answer.status_code == 404

    assert await _everything(blue) == before


async def test_a_stream_is_its_own_clients_within_a_tenant_too(two_tenants: Hub) -> None:
    green = await begin(two_tenants, "green")
    async with green.hub.client(green.tokens["pay"], tenant="green") as pay:
        stream = green.ids["wiki stream"]
        answers = [
            await pay.get(f"/ssf/streams?stream_id={stream}"),
            await pay.get(f"/ssf/status?stream_id={stream}"),
            await pay.delete(f"/ssf/streams?stream_id={stream}"),
            await pay.post(f"/ssf/poll/{stream}", json={"returnImmediately": True}),
        ]
        own = await pay.get("/ssf/streams")

    assert {answer.status_code for answer in answers} == {404}
    assert [each["stream_id"] for each in own.json()] == [green.ids["pay stream"]]


async def test_a_vendor_of_one_tenant_moves_nobody_of_another(two_tenants: Hub) -> None:
    green, blue = await begin(two_tenants, "green"), await begin(two_tenants, "blue")
    await green.play()

    assert (await green.get("/admin/v1/containments"))["items"]
    assert (await blue.get("/admin/v1/containments"))["items"] == []
    assert (await blue.get("/admin/v1/signals"))["items"] == []
    risk = await blue.get(f"/api/v1/users/{blue.ids['rosa']}/risk")
    assert risk["riskLevel"] == "LOW"


async def _two_full_tenants(hub: Hub) -> tuple[Story, Story]:
    """Return two tenants with objects of every kind; blue has a dead letter and a failed task."""
    hub.outside.answer("https://pay.example/ssf", 400, {"err": "invalid_request"})
    hub.outside.answer("https://crm.example/gtr", 400)
    stories = []
    for tenant in ("green", "blue"):
        story = await begin(hub, tenant)
        await story.play()
        story.ids["containment"] = (await story.get("/admin/v1/containments"))["items"][0]["id"]
        story.ids["held logout"] = await story.hold_logout()
        story.ids["task"] = (await story.get("/admin/v1/tasks?state=failed"))["items"][0]["id"]
        story.ids["signing key"] = (await story.post("/admin/v1/keys:prepare", {"purpose": "set"}))[
            "id"
        ]
        unknown = {"format": "email", "email": "nobody@customer.example"}
        assert (await story.push(sub_id=unknown)).status_code == 202
        await hub.settle()
        mapping = {"name": "odd", "event_type": "https://vendor.example/odd", "rules": []}
        story.ids["mapping"] = (await story.post("/admin/v1/mappings", mapping))["id"]
        zone = {"name": "office", "type": "IP", "gateways": [{"value": "192.0.2.0/24"}]}
        story.ids["zone"] = (await story.post("/admin/v1/zones", zone))["id"]
        story.ids["private session"] = f"only-{tenant}"
        async with hub.client(story.tokens["idp"], tenant=tenant) as idp:
            body = {"user": story.ids["tim"], "device": "PH-0042-01"}
            await idp.put(f"/v1/sessions/only-{tenant}", json=body)
        stories.append(story)
    await hub.settle()
    return stories[0], stories[1]


async def _everything(story: Story) -> dict[str, Any]:
    """Return all that a tenant's admin can list."""
    shown = {kind.name: await story.get(f"/admin/v1/{kind.name}") for kind in KINDS}
    for path in ("/v1/risk/users", "/v1/detections", f"/v1/sessions?user={story.ids['tim']}"):
        shown[path] = await story.get(path)
    return shown


async def _ask(story: Story, method: str, path: str, object_id: str, body: Any) -> httpx2.Response:
    address = re.sub(r"\{\w+\}", object_id, path)
    if path.startswith("/v1/sessions") and method != "put":
        address += "?iss=https://login.customer.example"
    if path == "/v1/sessions/{sid}" and method == "put":
        # A session that nobody registered is registered; the user is what must be known.
        body = {"iss": "https://login.customer.example", "user": "usr_01KJQ2M80000ZC4T9W6YR0QXN1"}
    return await story.admin.request(method, address, json=body)


def _body_of(path: str, method: str) -> Any:
    """Return a body that the operation takes: the example of its kind."""
    paths = document()["paths"]
    operation = paths[path][method]
    if method == "put" and path.startswith("/admin/"):
        operation = paths[path.removesuffix("/{id}")]["post"]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return content.get("example", {})


def _told(answer: httpx2.Response) -> tuple[int, dict[str, Any], set[str]]:
    """Return what an answer tells: all but the ids of this one request."""
    body = answer.json() if answer.content else {}
    body.pop("instance", None)
    return answer.status_code, body, set(answer.headers)
