"""Who may speak of sign-ins and sessions, for which app, and whose word is learned from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest

from tests.hub.conftest import ONE_ENGINE
from tests.hub.story import ROSA
from tests.hub.test_inline import request_from
from tests.hub.test_sign_ins import (
    AWAY,
    FIREFOX,
    HOME,
    LAPTOP,
    PHONE,
    SIGN_IN,
    Gate,
    gate,
    names,
    routed,
)

__all__ = ["gate"]

PROVED = {"phase": "after", "outcome": "success", "amr": ["pwd", "otp"]}
STRANGE = {"user": f"email:{ROSA}", "ip": AWAY, "device": PHONE, "user_agent": FIREFOX}
KNOWN = {"user": f"email:{ROSA}", "ip": HOME, "device": LAPTOP, "user_agent": FIREFOX}


class Callers:
    """Clients that may ask for decisions and nothing else."""

    def __init__(self, gate: Gate, stack: AsyncExitStack) -> None:
        self.gate = gate
        self._stack = stack

    async def add_app(self, kind: str) -> str:
        """Register an app of that kind; return its id."""
        app = {"name": f"some {kind}", "kind": kind, "issuer": f"https://{kind}.example"}
        made = await self.gate.story.post("/admin/v1/apps", app)
        await self.gate.story.hub.node.feed.refresh()
        return str(made["id"])

    async def of(self, app_id: str | None) -> httpx2.AsyncClient:
        """Return the client of an app."""
        hub = self.gate.story.hub
        token = await hub.token("sessions.evaluate", app_id=app_id)
        return await self._stack.enter_async_context(hub.client(token))


@pytest.fixture
async def callers(gate: Gate) -> AsyncIterator[Callers]:
    async with AsyncExitStack() as stack:
        yield Callers(gate, stack)


async def told(http: httpx2.AsyncClient, **body: object) -> dict[str, object]:
    answer = await http.post(SIGN_IN, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


@pytest.mark.parametrize(
    ("kind", "level"), [("rp", "HIGH"), ("gateway", "HIGH"), ("idp", "LOW"), (None, "LOW")]
)
async def test_a_place_is_learned_from_whoever_checks_credentials(
    gate: Gate, callers: Callers, kind: str | None, level: str
) -> None:
    """With the token of any app one made-up success made a stranger's place and device Rosa's."""
    await gate.know_rosa(6)
    before = await gate.ask(ip=AWAY, device=PHONE)
    assert (before["decision"], before["login_risk"]["level"]) == ("STEP_UP", "HIGH")
    app_id = None if kind is None else await callers.add_app(kind)
    await told(await callers.of(app_id), **STRANGE, **PROVED)
    await gate.settle()
    gate.story.hub.clock.advance(24 * 3600)
    after = await gate.ask(ip=AWAY, device=PHONE)
    assert after["login_risk"]["level"] == level


@ONE_ENGINE
@pytest.mark.parametrize(("kind", "left"), [("rp", True), ("gateway", True), ("idp", False)])
async def test_failures_are_forgotten_on_the_word_of_whoever_checks_credentials(
    gate: Gate, callers: Callers, kind: str, *, left: bool
) -> None:
    await gate.know_rosa(6)
    for _ in range(5):
        await gate.ask(phase="after", outcome="failure")
        await told(gate.idp, user=f"email:{ROSA}", phase="after", outcome="failure")
    assert "failures" in names(await gate.ask())
    http = await callers.of(await callers.add_app(kind))
    await told(http, **KNOWN, **PROVED)
    await told(http, user=f"email:{ROSA}", phase="after", outcome="success")
    assert ("failures" in names(await gate.ask())) is left


@ONE_ENGINE
@pytest.mark.requirement("AZH-11")
async def test_an_app_speaks_of_sign_ins_for_itself_only(gate: Gate, callers: Callers) -> None:
    app_id, other = await callers.add_app("rp"), gate.story.ids["crm"]
    http = await callers.of(app_id)
    for body in (KNOWN, KNOWN | PROVED, {"user": f"email:{ROSA}"}):
        refused = await http.post(SIGN_IN, json=body | {"app": other})
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await told(http, **body, app=app_id))["decision"] == "ALLOW"
    edge = await callers.of(await callers.add_app("gateway"))
    assert (await told(edge, **KNOWN, app=other))["decision"] == "ALLOW"


@ONE_ENGINE
async def test_a_sign_in_for_no_app_in_particular_is_one_for_the_app_that_asks(
    gate: Gate, callers: Callers
) -> None:
    """Its own policies would not hold for whoever leaves it out."""
    app_id = await callers.add_app("rp")
    await told(await callers.of(app_id), **KNOWN)
    await told(gate.idp, **KNOWN)
    await gate.settle()
    kept = (await gate.idp.get("/v1/sign-ins")).json()["items"]
    assert [each["app"] for each in kept] == [None, app_id]


@ONE_ENGINE
@pytest.mark.requirement("AZH-11")
async def test_an_app_asks_natively_about_itself_only(gate: Gate, callers: Callers) -> None:
    """Also about what it asked, and what is held, from before it became such an app."""
    app_id, other = await callers.add_app("idp"), gate.story.ids["crm"]
    http = await callers.of(app_id)
    session = {"iss": "https://idp.example", "user": f"email:{ROSA}"}
    assert (await gate.story.admin.put("/v1/sessions/s-1", json=session)).is_success
    path, mine = "/v1/sessions/s-1/evaluate", request_from(HOME, iss="https://idp.example")
    for kind, status in (("idp", 200), ("rp", 403), ("gateway", 200), ("rp", 403)):
        changed = await gate.story.admin.patch(f"/admin/v1/apps/{app_id}", json={"kind": kind})
        assert changed.is_success, changed.text
        await gate.story.hub.node.feed.refresh()
        for _ in range(2):
            answer = await http.post(path, json=mine | {"app_id": other})
            assert answer.status_code == status, (kind, answer.text)
        for itself in (mine | {"app_id": app_id}, mine):
            assert (await http.post(path, json=itself)).json()["decision"] == "ALLOW"
    await routed(gate.app).state.inline.behind.flush()
