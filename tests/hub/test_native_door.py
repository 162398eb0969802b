"""The hub's own front door: what is asked, and what a wrong question gets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import Story, begin

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
