"""Questions that are known by their bytes: what is remembered, and what never is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.doors.heard import BODY_BYTES_MAX, Heard
from hub.inline.case import asked_of
from hub.inline.model import SessionQuestion
from runtime.caller import Caller
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, begin
from tests.hub.test_inline import HOME, OFFICE, SID, Gateway, request_from, state_of

pytestmark = ONE_ENGINE


def caller(client_id: str = "cli_1", app_id: str | None = None) -> Caller:
    return Caller(tenant_id="default", client_id=client_id, scopes=frozenset(), app_id=app_id)


def question(hub: Hub, **more: Any) -> SessionQuestion:
    return SessionQuestion(tenant_id="default", at=hub.clock.now(), iss=IDP, sid=SID, **more)


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def test_the_same_bytes_mean_the_same_for_the_same_caller_only(hub: Hub) -> None:
    heard = Heard(hub.node.feed)
    asked = question(hub)
    heard.keep(heard.name(caller(), SID, b"{}"), asked, asked_of(caller(), asked))
    assert heard.find(heard.name(caller(), SID, b"{}")) is not None
    for other in (
        heard.name(caller("cli_2"), SID, b"{}"),
        heard.name(caller(app_id="app_1"), SID, b"{}"),
        heard.name(caller(), "another", b"{}"),
        heard.name(caller(), SID, b"{ }"),
    ):
        assert heard.find(other) is None


async def test_what_is_remembered_is_bounded(hub: Hub) -> None:
    heard = Heard(hub.node.feed, heard_max=10)
    asked = question(hub)
    for number in range(50):
        name = heard.name(caller(), f"sid-{number}", b"{}")
        heard.keep(name, asked, asked_of(caller(), asked))
    assert len(heard) == 10
    heard.keep(
        heard.name(caller(), SID, b" " * (BODY_BYTES_MAX + 1)), asked, asked_of(caller(), asked)
    )
    assert heard.find(heard.name(caller(), "sid-49", b"{}")) is not None


async def test_a_question_with_a_proof_is_read_each_time(hub: Hub) -> None:
    heard = Heard(hub.node.feed)
    proving = question(hub, dbsc_proof="a.b.c")
    heard.keep(heard.name(caller(), SID, b"{}"), proving, asked_of(caller(), proving))
    assert len(heard) == 0


async def test_an_apps_other_issuer_makes_its_questions_others(gateway: Gateway) -> None:
    hub = gateway.story.hub
    heard: Heard = state_of(hub).heard
    before = heard.name(caller(), SID, b"{}")
    answer = await gateway.story.admin.post("/admin/v1/apps", json={"name": "Another app"})
    assert answer.status_code == 201, answer.text
    await hub.node.feed.refresh()
    assert heard.name(caller(), SID, b"{}") != before


async def test_a_remembered_question_is_judged_anew_when_it_has_to_be(gateway: Gateway) -> None:
    for _ in range(3):
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()
    ended = await gateway.story.admin.request("DELETE", f"/v1/sessions/{SID}", params={"iss": IDP})
    assert ended.is_success, ended.text
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    assert await gateway.decision(request_from(OFFICE)) == "TERMINATE"
