"""The hub's own front door: what is asked, and what a wrong question gets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from prometheus_client import REGISTRY

from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import Story, begin
from tests.hub.test_inline_cold import without

PATH = "/v1/sessions/sid-rosa/evaluate"


@pytest.fixture
async def story(hub: Hub) -> AsyncIterator[Story]:
    story = await begin(hub)
    yield story
    await story.admin.aclose()


@pytest.fixture
async def idp(story: Story) -> AsyncIterator[httpx2.AsyncClient]:
    token = await story.hub.token("sessions.evaluate", app_id=story.ids["idp"])
    async with story.hub.client(token) as client:
        yield client


def unknown(what: str) -> float:
    return REGISTRY.get_sample_value("hub_inline_unknown_total", {"what": what}) or 0.0


@ONE_ENGINE
async def test_an_app_that_nobody_registered_is_told(story: Story, idp: httpx2.AsyncClient) -> None:
    """It is the answer of the AuthZEN door; the app is known as soon as it is registered."""
    before = unknown("app")
    for _ in range(2):
        decided = (await idp.post(PATH, json={"app_id": "app_nobody"})).json()
        assert (decided["decision"], decided["reasons"]) == ("ALLOW", ["app_unknown"])
        plain = (await idp.post(PATH, json={})).json()
        known = (await idp.post(PATH, json={"app_id": story.ids["wiki"]})).json()
        assert plain["reasons"] == known["reasons"] == []
    assert unknown("app") == before + 2


@ONE_ENGINE
async def test_apps_that_cannot_be_read_keep_nobody_from_an_answer(
    story: Story, idp: httpx2.AsyncClient
) -> None:
    """Regression: 500, outside of the deadline and the fallback, once somebody registered one."""
    hub = story.hub
    question = {"app_id": story.ids["wiki"]}
    assert (await idp.post(PATH, json=question)).json()["decision"] == "ALLOW"
    made = (await story.post("/admin/v1/apps", {"name": "new"}))["id"]
    await hub.node.feed.refresh()
    async with without(hub.database, "apps"):
        for app_id in (story.ids["wiki"], made):
            answer = await idp.post(PATH, json={"app_id": app_id})
            assert answer.status_code == 200, answer.text
    # With the database back it is an ordinary answer.
    for app_id in (story.ids["wiki"], made):
        assert (await idp.post(PATH, json={"app_id": app_id})).json()["reasons"] == []


@ONE_ENGINE
async def test_a_session_that_nobody_registered_is_counted(idp: httpx2.AsyncClient) -> None:
    before = unknown("session")
    decided = (await idp.post("/v1/sessions/nobodys/evaluate", json={})).json()
    assert (decided["decision"], decided["reasons"]) == ("DENY", ["session_unknown"])
    assert unknown("session") == before + 1


@ONE_ENGINE
async def test_a_whole_question_is_answered(idp: httpx2.AsyncClient) -> None:
    question = {
        "ip_chain": ["198.51.100.24", "10.0.0.1"],
        "ua": "Mozilla/5.0 (X11; Linux x86_64)",
        "ja4": "t13d1516h2_8daaf6152771_b0da82dd1658",
        "accept_lang": "en",
        "device": {"id": "LT-1", "token_hash": "ab", "signals": {"encrypted": True, "os": "14"}},
        "app_id": "app_wiki",
        "method": "get",
        "path_class": "/pages",
        "dbsc": {"proof": "verified"},
        "ts": "2026-03-20T09:51:45Z",
        "new": {"in": "a later release"},
    }
    answer = await idp.post(PATH, json=question)
    assert answer.status_code == 200, answer.text
    assert answer.json()["decision"] == "ALLOW"


@ONE_ENGINE
@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [
        ("ip", 7, "/ip_chain/0"),
        ("ip_chain", "198.51.100.24", "/ip_chain"),
        ("ip_chain", ["198.51.100.24"] * 1_000, "/ip_chain"),
        ("ip_chain", [{}], "/ip_chain/0"),
        ("ua", ["x"], "/ua"),
        ("ua", "x" * 5_000, "/ua"),
        ("device", "LT-1", "/device"),
        ("device", {"id": 1}, "/device/id"),
        ("device", {"signals": ["a"]}, "/device/signals"),
        ("device", {"signals": {"a": {}}}, "/device/signals"),
        ("device", {"signals": {str(n): 1 for n in range(100)}}, "/device/signals"),
        ("dbsc", {"proof": {}}, "/dbsc/proof"),
        ("ts", "noon", "/ts"),
        ("ts", 1e300, "/ts"),
    ],
)
async def test_a_wrong_member_is_named(
    idp: httpx2.AsyncClient, member: str, value: object, pointer: str
) -> None:
    answer = await idp.post(PATH, json={member: value})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


@ONE_ENGINE
async def test_the_short_and_the_general_way_say_the_same(
    idp: httpx2.AsyncClient, story: Story
) -> None:
    """A query in the address sends a question the general way."""
    stranger = await story.hub.token("ssf.read")
    headers = [{}, {"authorization": f"Bearer {stranger}"}, {"authorization": "Bearer nobody"}]
    bodies = [b"", b"{}", b'{"ua": 1}', b'{"ua": "a", "ua": "b"}', b"[", b"[]", b'{"iss": "x"}']
    bodies.append(b'{"ua": "' + b"x" * (1024 * 1024) + b'"}')
    for content in bodies:
        for each in headers:
            short = await idp.post(PATH, content=content, headers=each)
            general = await idp.post(f"{PATH}?general", content=content, headers=each)
            assert short.status_code == general.status_code
            assert _shown(short) == _shown(general)
            for name in ("content-type", "cache-control", "www-authenticate"):
                assert short.headers.get(name) == general.headers.get(name)


def _shown(answer: httpx2.Response) -> dict[str, object]:
    shown: dict[str, object] = answer.json()
    return {name: value for name, value in shown.items() if name != "instance"}


@ONE_ENGINE
async def test_a_body_in_many_parts_is_read_whole_and_bounded(idp: httpx2.AsyncClient) -> None:
    async def parts(count: int) -> AsyncIterator[bytes]:
        yield b'{"ua": "'
        for _ in range(count):
            yield b"x" * 1_000
        yield b'"}'

    assert (await idp.post(PATH, content=parts(1))).status_code == 200
    assert (await idp.post(PATH, content=parts(2_000))).status_code == 413


@ONE_ENGINE
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/sessions/evaluate", 405),
        ("POST", "/v1/sessions//evaluate", 400),
        ("POST", "/v1/sessions/a%00b/evaluate", 400),
        ("POST", "/v1/sessions/a/b/evaluate", 200),
    ],
)
async def test_odd_addresses_go_the_general_way(
    idp: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await idp.request(method, path)).status_code == status


@ONE_ENGINE
async def test_an_answer_that_is_held_is_the_same_text(idp: httpx2.AsyncClient) -> None:
    question = {"ip_chain": ["198.51.100.24"], "ua": "Mozilla/5.0 (X11; Linux x86_64)"}
    first = await idp.post(PATH, json=question)
    again = [await idp.post(PATH, json=question) for _ in range(3)]
    assert {each.content for each in again} == {first.content}
