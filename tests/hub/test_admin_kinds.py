"""The admin API: what the document shows works, lists are whole, writes are exact and audited."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from hub.admin.examples import ANSWERS
from hub.admin.kinds import PAGE_MAX, Kind
from hub.admin.openapi import document
from hub.admin.routes import ALL_KINDS, KINDS
from receivers.registry.store import providers
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub
from tests.hub.story import Story, begin

CREATABLE = [kind for kind in ALL_KINDS if kind.create is not None]
CHANGEABLE = [kind for kind in KINDS if kind.change is not None and kind.create is not None]
KINDS_BY_NAME = {kind.name: kind for kind in ALL_KINDS}


def name_of(kind: Kind) -> str:
    return kind.name


def example_of(path: str, method: str = "post") -> Any:
    operation = document()["paths"][path][method]
    return operation["requestBody"]["content"]["application/json"]["example"]


def answer_of(path: str, method: str, status: str) -> Any:
    operation = document()["paths"][path][method]
    return operation["responses"][status]["content"]["application/json"]["example"]


async def create(admin: httpx2.AsyncClient, kind: Kind) -> dict[str, Any]:
    answer = await admin.post(f"/admin/v1/{kind.name}", json=example_of(f"/admin/v1/{kind.name}"))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def let_go(admin: httpx2.AsyncClient, kind: Kind, path: str) -> None:
    """Deactivate what may not be deleted while it is active."""
    if kind.name == "zones":
        assert (await admin.delete(path)).status_code == 409
        assert (await admin.post(f"{path}/deactivate")).status_code == 200


@pytest.mark.parametrize("kind", CREATABLE, ids=name_of)
async def test_the_documented_example_is_taken_and_answered_as_documented(
    admin: httpx2.AsyncClient, kind: Kind
) -> None:
    path = f"/admin/v1/{kind.name}"
    answer = await admin.post(path, json=example_of(path))

    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"{ISSUER}{path}/{made['id']}"
    assert answer.headers["etag"]
    assert shape_of(made) == shape_of(answer_of(path, "post", "201"))
    listed = (await admin.get(path)).json()["items"]
    shown = {name: value for name, value in made.items() if name not in kind.secret_once}
    assert shown in listed
    if kind.read is not None:
        read = await admin.get(f"{path}/{made['id']}")
        assert read.json() == shown
        assert (await admin.get(f"{path}/{made['id']}")).headers["etag"] == read.headers["etag"]


@ONE_ENGINE
async def test_everything_listed_has_the_documented_shape(hub: Hub) -> None:
    story = await begin(hub)
    # One dead SET and one failed task.
    hub.outside.answer("https://pay.example/ssf", 400, {"err": "invalid_request"})
    hub.outside.answer("https://crm.example/gtr", 400)
    await story.post("/admin/v1/relays", example_of("/admin/v1/relays"))
    await story.play()
    unknown = {"format": "email", "email": "nobody@customer.example"}
    await story.push(sub_id=unknown)
    await story.hold_logout()
    await hub.settle()

    for kind in KINDS:
        path = f"/admin/v1/{kind.name}"
        items = (await story.get(path))["items"]
        if not items and kind.create is not None:
            await story.post(path, example_of(path))
            items = (await story.get(path))["items"]
        assert items, kind.name
        shown = shape_of(answer_of(path, "get", "200")["items"][0])
        assert all(shape_of(item).keys() == shown.keys() for item in items), kind.name
        if kind.read is not None:
            read = await story.get(f"{path}/{items[0]['id']}")
            assert read.items() >= items[0].items(), kind.name


def test_every_kind_has_a_documented_answer() -> None:
    assert ANSWERS.keys() == KINDS_BY_NAME.keys()


@pytest.mark.parametrize("kind", CREATABLE, ids=name_of)
async def test_a_page_at_a_time_shows_every_item_once(
    hub: Hub, admin: httpx2.AsyncClient, kind: Kind
) -> None:
    path = f"/admin/v1/{kind.name}"
    for number in range(5):
        answer = await admin.post(path, json=numbered(example_of(path), number))
        assert answer.status_code == 201, answer.text
    everything = (await admin.get(path)).json()
    seen, cursor = [], ""
    while True:
        page = (await admin.get(path, params={"limit": 2, "cursor": cursor})).json()
        assert len(page["items"]) <= 2
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert everything["next_cursor"] is None
    assert seen == everything["items"]
    assert len(seen) == len({item["id"] for item in seen}) >= 5


@ONE_ENGINE
async def test_what_happened_is_listed_page_by_page_too(hub: Hub) -> None:
    story = await begin(hub)
    await story.play()
    for name in ("tasks", "signals", "audit", "deliveries", "keys"):
        everything = (await story.get(f"/admin/v1/{name}"))["items"]
        seen: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(len(everything)):
            page = await story.get(f"/admin/v1/{name}?limit=1&cursor={cursor}")
            seen += page["items"]
            cursor = page["next_cursor"] or "end"

        assert seen == everything, name
        assert cursor == "end", name


@ONE_ENGINE
async def test_a_list_of_more_than_the_largest_page_is_not_cut(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    for number in range(PAGE_MAX + 1):
        body = {"identifiers": [{"format": "email", "email": f"u{number}@customer.example"}]}
        assert (await admin.post("/admin/v1/users", json=body)).status_code == 201

    page = (await admin.get(f"/admin/v1/users?limit={PAGE_MAX}")).json()
    rest = (await admin.get(f"/admin/v1/users?cursor={page['next_cursor']}")).json()

    assert (len(page["items"]), len(rest["items"])) == (PAGE_MAX, 1)
    assert rest["next_cursor"] is None


@ONE_ENGINE
@pytest.mark.requirement("PD-3")
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        f"limit={PAGE_MAX + 1}",
        "limit=ten",
        "limit=1e1",
        "limit=",
        "limit=%C2%B2",
        "limit=0000019999999",
        "limit=99999999999999999999",
        "sort=name",
        f"cursor={'x' * 10_000}",
    ],
)
async def test_a_list_refuses_what_it_does_not_understand(
    admin: httpx2.AsyncClient, query: str
) -> None:
    answer = await admin.get(f"/admin/v1/users?{query}")

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


@ONE_ENGINE
@pytest.mark.parametrize("path", ["containments?state=gone", "tasks?state=x", "signals?state="])
async def test_an_unknown_filter_value_is_refused(admin: httpx2.AsyncClient, path: str) -> None:
    answer = await admin.get(f"/admin/v1/{path}")

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == "state"


@pytest.mark.parametrize("kind", CHANGEABLE, ids=name_of)
async def test_a_change_leaves_the_other_members(admin: httpx2.AsyncClient, kind: Kind) -> None:
    made = await create(admin, kind)
    path = f"/admin/v1/{kind.name}/{made['id']}"
    answer = await admin.patch(path, json={"name": "renamed"})

    assert answer.status_code == 200
    changed = answer.json()
    assert changed["name"] == "renamed"
    volatile = {"name", "updated_at", "version", *kind.secret_once}
    assert without(changed, volatile) == without(made, volatile)
    assert (await admin.get(path)).json() == changed


@pytest.mark.parametrize("kind", CHANGEABLE, ids=name_of)
async def test_an_empty_change_changes_nothing(admin: httpx2.AsyncClient, kind: Kind) -> None:
    made = await create(admin, kind)
    answer = await admin.patch(f"/admin/v1/{kind.name}/{made['id']}", json={})

    volatile = {"updated_at", *kind.secret_once}
    assert without(answer.json(), volatile) == without(made, volatile)


@pytest.mark.parametrize("kind", [k for k in CHANGEABLE if k.replace], ids=name_of)
async def test_replacing_falls_back_to_defaults(admin: httpx2.AsyncClient, kind: Kind) -> None:
    made = await create(admin, kind)
    path = f"/admin/v1/{kind.name}"
    bodies: dict[str, dict[str, Any]] = {
        "apps": {"name": "bare"},
        "providers": {
            "name": "bare",
            "issuer": "https://bare.example",
            "audiences": ["https://hub.example"],
            "jwks_uri": "https://bare.example/jwks",
        },
        "relays": {"name": "bare"},
        "policies": {"name": "bare"},
        "zones": {"name": "bare", "type": "DYNAMIC_V2", "asns": {"include": ["64496"]}},
        "mappings": {"name": "bare", "event_type": "https://bare.example/event", "rules": []},
    }
    needed = bodies[kind.name]
    replaced = (await admin.put(f"{path}/{made['id']}", json=needed)).json()
    fresh = (await admin.post(path, json=numbered(needed, 2))).json()

    own = {
        "id",
        "name",
        "issuer",
        "event_type",
        "version",
        "created_at",
        "updated_at",
        "events_url",
    }
    assert without(replaced, own) == without(fresh, own)
    assert replaced["id"] == made["id"]


@pytest.mark.requirement("PD-4")
@pytest.mark.parametrize("kind", CHANGEABLE, ids=name_of)
async def test_a_change_of_what_has_changed_meanwhile_is_refused(
    admin: httpx2.AsyncClient, kind: Kind
) -> None:
    made = await create(admin, kind)
    path = f"/admin/v1/{kind.name}/{made['id']}"
    read = await admin.get(path)
    stale = {"if-match": read.headers["etag"]}
    first = await admin.patch(path, json={"name": "first"}, headers=stale)
    second = await admin.patch(path, json={"name": "second"}, headers=stale)
    removed = await admin.delete(path, headers=stale)

    assert (first.status_code, second.status_code, removed.status_code) == (200, 412, 412)
    assert (await admin.get(path)).json()["name"] == "first"
    fresh = {"if-match": f'"other", {first.headers["etag"]}'}
    assert (await admin.patch(path, json={"name": "third"}, headers=fresh)).status_code == 200
    await let_go(admin, kind, path)
    assert (await admin.delete(path, headers={"if-match": "*"})).status_code == 204


@pytest.mark.parametrize("kind", [k for k in CREATABLE if k.delete], ids=name_of)
async def test_what_is_deleted_is_gone(admin: httpx2.AsyncClient, kind: Kind) -> None:
    made = await create(admin, kind)
    path = f"/admin/v1/{kind.name}/{made['id']}"
    await let_go(admin, kind, path)
    answer = await admin.delete(path)

    assert (answer.status_code, answer.content) == (204, b"")
    assert (await admin.delete(path)).status_code == 404
    listed = (await admin.get(f"/admin/v1/{kind.name}")).json()["items"]
    assert made["id"] not in {item["id"] for item in listed}


@ONE_ENGINE
@pytest.mark.requirement("PD-3")
@pytest.mark.parametrize("kind", CREATABLE, ids=name_of)
async def test_an_unknown_member_is_pointed_at(admin: httpx2.AsyncClient, kind: Kind) -> None:
    path = f"/admin/v1/{kind.name}"
    answer = await admin.post(path, json={**example_of(path), "a/b~c": 1})

    assert answer.status_code == 400
    assert "/a~1b~0c" in {error["pointer"] for error in answer.json()["errors"]}
    assert not await created(admin, path)


@ONE_ENGINE
@pytest.mark.requirement("PD-4")
@pytest.mark.parametrize("kind", CREATABLE, ids=name_of)
@pytest.mark.parametrize("media_type", [None, "text/plain", "application/merge-patch+json", "json"])
async def test_another_media_type_is_refused(
    admin: httpx2.AsyncClient, kind: Kind, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    answer = await admin.post(f"/admin/v1/{kind.name}", content=b"{}", headers=headers)

    assert answer.status_code == 415


@ONE_ENGINE
async def test_a_charset_is_taken(admin: httpx2.AsyncClient) -> None:
    media_type = {"content-type": "Application/JSON; charset=utf-8"}
    answer = await admin.post("/admin/v1/apps", content=b'{"name":"x"}', headers=media_type)

    assert answer.status_code == 201


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"x"',
        b'{"name":"x","name":"y"}',
        b'{"name":"\\u0000"}',
        b'{"name":"\\ud800"}',
        b'{"name":"\xff"}',
        b'{"name":NaN}',
        b'{"name":"x","sensitivity":1e999}',
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_not_clean_json_is_refused(
    admin: httpx2.AsyncClient, body: bytes
) -> None:
    for path in ("/admin/v1/apps", "/admin/v1/policies:preset"):
        answer = await admin.post(path, content=body, headers={"content-type": "application/json"})

        assert answer.status_code == 400, answer.text
        assert len(answer.content) < 2_000


@pytest.mark.parametrize("name", ["apps", "clients", "providers"])
async def test_a_name_is_given_once(admin: httpx2.AsyncClient, name: str) -> None:
    kind = KINDS_BY_NAME[name]
    await create(admin, kind)
    again = await admin.post(f"/admin/v1/{name}", json=example_of(f"/admin/v1/{name}"))

    assert again.status_code == 409
    assert len(await created(admin, f"/admin/v1/{name}")) == 1


@ONE_ENGINE
@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (
            "apps",
            {"name": "a", "logout": [{"method": "gtr", "endpoint_url": "http://a.example/gtr"}]},
            "/logout/0/endpoint_url",
        ),
        (
            "apps",
            {
                "name": "i",
                "kind": "idp",
                "scim": {
                    "base_url": "HTTP://idp.example",
                    "quarantine_group_id": "g",
                    "token": "t",
                },
            },
            "/scim/base_url",
        ),
        ("webhooks", {"url": "http://soc.example/hook"}, "/url"),
        (
            "providers",
            {"name": "p", "issuer": "https://p.example", "client_id": "cli_none"},
            "/client_id",
        ),
    ],
)
async def test_what_could_never_work_is_refused_when_it_is_set(
    admin: httpx2.AsyncClient, path: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await admin.post(f"/admin/v1/{path}", json=body)

    assert answer.status_code == 400, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@ONE_ENGINE
async def test_what_could_never_work_is_refused_in_changes_too(admin: httpx2.AsyncClient) -> None:
    logout = [{"method": "gtr", "endpoint_url": "http://a.example/gtr"}]
    app = (await admin.post("/admin/v1/apps", json={"name": "a"})).json()
    keys = {"jwks_uri": "https://p.example/jwks", "audiences": ["https://hub.example"]}
    body = {"name": "p", "issuer": "https://p.example", **keys}
    provider = (await admin.post("/admin/v1/providers", json=body)).json()
    of_app, of_provider = f"/admin/v1/apps/{app['id']}", f"/admin/v1/providers/{provider['id']}"

    assert (await admin.patch(of_app, json={"logout": logout})).status_code == 400
    assert (await admin.put(of_app, json={"name": "a", "logout": logout})).status_code == 400
    for given in ({"client_id": "cli_none"}, {**body, "client_id": "cli_none"}):
        send = admin.put if "name" in given else admin.patch
        answer = await send(of_provider, json=given)
        assert answer.status_code == 400
        assert answer.json()["errors"] == [{"pointer": "/client_id", "detail": "no such client"}]
    assert (await admin.get(of_provider)).json()["client_id"] is None


@ONE_ENGINE
async def test_secrets_are_shown_once_or_never(hub: Hub) -> None:
    story = await begin(hub)
    secrets = (
        "both-sides",
        "upstream-secret",
        "scim-secret",
        "push-secret",
        *story.tokens.values(),
    )
    shown = [
        (await story.admin.get(f"/admin/v1/{kind.name}?limit={PAGE_MAX}")).text for kind in KINDS
    ]
    for kind in KINDS:
        if kind.read is not None:
            items = (await story.get(f"/admin/v1/{kind.name}"))["items"]
            shown += [
                (await story.admin.get(f"/admin/v1/{kind.name}/{item['id']}")).text
                for item in items
            ]

    for secret in secrets:
        assert not [text for text in shown if secret in text]


@ONE_ENGINE
async def test_users_are_read_by_any_of_their_names(hub: Hub) -> None:
    story = await begin(hub)
    rosa = await story.get(f"/admin/v1/users/{story.ids['rosa']}")
    for reference in (
        "email:rosa.lind@customer.example",
        "ext:ext-rosa",
        "iss_sub:https%3A%2F%2Flogin.customer.example%7Crosa%2F1",
        "iss_sub:https://login.customer.example|rosa/1",
    ):
        assert await story.get(f"/admin/v1/users/{reference}") == rosa


@ONE_ENGINE
async def test_deliveries_show_what_became_of_each_set(hub: Hub) -> None:
    story = await begin(hub)
    hub.outside.answer("https://pay.example/ssf", 400, {"err": "invalid_request"})
    await story.play()

    dead = (await story.get("/admin/v1/deliveries?state=dead"))["items"]
    waiting = await story.get(f"/admin/v1/deliveries?stream={story.ids['wiki stream']}")
    assert {item["stream_id"] for item in dead} == {story.ids["pay stream"]}
    assert {item["err"] for item in dead} == {"invalid_request"}
    assert {item["state"] for item in waiting["items"]} == {"pending"}

    sets = await _poll(story)
    await _poll(story, ack=list(sets))
    delivered = (await story.get("/admin/v1/deliveries?state=delivered"))["items"]
    assert {item["jti"] for item in delivered} == set(sets)
    assert all(item["settled_at"] for item in delivered)
    assert (await story.get("/admin/v1/deliveries?stream=str_none"))["items"] == []


@ONE_ENGINE
async def test_a_dead_set_is_delivered_again_when_redriven(hub: Hub) -> None:
    story = await begin(hub)
    hub.outside.answer("https://pay.example/ssf", 400, {"err": "invalid_request"})
    await story.play()
    hub.outside.answer("https://pay.example/ssf", 202)
    letters = (await story.get("/admin/v1/dead-letters"))["items"]
    for letter in letters:
        body = {"stream_id": letter["stream_id"], "jti": letter["jti"]}
        redriven = await story.post("/admin/v1/dead-letters:redrive", body)
        assert redriven == {"redriven": 1, "more": False, "after": None}
        again = await story.admin.post("/admin/v1/dead-letters:redrive", json=body)
        assert again.status_code == 404
    await hub.settle()

    assert letters
    assert (await story.get("/admin/v1/dead-letters"))["items"] == []


@ONE_ENGINE
async def test_a_failed_task_is_retried_or_given_up(hub: Hub) -> None:
    story = await begin(hub)
    hub.outside.answer("https://crm.example/gtr", 400)
    await story.play()
    (failed,) = (await story.get("/admin/v1/tasks?state=failed"))["items"]
    path = f"/admin/v1/tasks/{failed['id']}"
    assert (await story.admin.post(f"{path}/retry")).status_code == 200
    await hub.settle()
    assert (await story.admin.post(f"{path}/abandon")).status_code == 200

    assert (await story.get("/admin/v1/tasks?state=failed"))["items"] == []
    assert (await story.admin.post(f"{path}/retry")).status_code == 409
    assert (await story.admin.post("/admin/v1/tasks/tsk_none/retry")).status_code == 404


async def _poll(story: Story, **request: Any) -> dict[str, str]:
    path = f"/ssf/poll/{story.ids['wiki stream']}"
    async with story.hub.client(story.tokens["wiki"], tenant=story.tenant) as client:
        answer = await client.post(path, json={"returnImmediately": True, **request})
    sets: dict[str, str] = answer.json()["sets"]
    return sets


async def created(admin: httpx2.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Return what a list has besides the client that asks."""
    items: list[dict[str, Any]] = (await admin.get(path)).json()["items"]
    own = (await admin.get("/admin/v1/audit")).json()["items"]
    made = {entry["ref"] for entry in own}
    return [item for item in items if item["id"] in made]


def shape_of(value: Any) -> Any:
    """Return the members of a document, and of those in it, without their values."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape_of(inner) for inner in value[:1]]
    return None


def without(document_: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in document_.items() if name not in names}


def numbered(example: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the example with names of its own."""
    body = dict(example)
    if "id" in body:
        body["id"] = f"{body['id']}-{number}"
    if "name" in body:
        body["name"] = f"{body['name']}-{number}"
    if "event_type" in body:
        body["event_type"] = f"{body['event_type']}/{number}"
    if "issuer" in body:
        body["issuer"] = f"{body['issuer']}/{number}"
    if "identifiers" in body:
        body["identifiers"] = [{"format": "opaque", "id": f"id-{number}"}]
        body.pop("external_id", None)
    return body


async def test_what_a_release_before_took_hinders_no_other_change(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    """A provider with a type of event that is no URI could not be switched off."""
    keys = {"jwks_uri": "https://p.example/jwks", "audiences": ["https://hub.example"]}
    body: dict[str, Any] = {"name": "p", "issuer": "https://p.example", **keys}
    made = (await admin.post("/admin/v1/providers", json=body)).json()
    path, old = f"/admin/v1/providers/{made['id']}", ["session-revoked", "*"]
    async with hub.database.transaction() as connection:
        await connection.execute(
            sa.update(providers)
            .where(providers.c.tenant_id == "default", providers.c.provider_id == made["id"])
            .values(event_types=old)
        )

    changed = await admin.patch(path, json={"status": "inactive"})
    assert (changed.status_code, changed.json()["status"]) == (200, "inactive"), changed.text
    kept = await admin.put(path, json=body | {"event_types": old[:1]})
    assert (kept.status_code, kept.json()["event_types"]) == (200, old[:1]), kept.text
    refused = await admin.patch(path, json={"event_types": old})
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/event_types"]
