"""Global Token Revocation, as endpoint: who may ask, what follows, and everything refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from runtime.clock import epoch_s
from runtime.ids import new_ulid
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, SESSION_REVOKED, TIM, Story, begin
from tests.hub.test_guard import told

PATH = "/v1/global-token-revocation"
URL = ISSUER + PATH
ROSA_ID = {"format": "email", "email": ROSA}
KEY = JWK.generate(kty="RSA", size=2048, kid="idp-1", alg="RS256", use="sig")
OTHER_KEY = JWK.generate(kty="RSA", size=2048, kid="idp-1", alg="RS256", use="sig")


@dataclass
class Asker:
    """Somebody who may ask for logouts: a SOC tool with a token, and an IdP with a key."""

    story: Story
    tool: httpx2.AsyncClient
    provider_id: str

    @property
    def hub(self) -> Hub:
        return self.story.hub

    async def ask(self, subject: object = ROSA_ID, **headers: str) -> httpx2.Response:
        return await self.tool.post(PATH, json={"sub_id": subject}, headers=headers)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now_s = int(epoch_s(self.hub.clock.now()))
        good = {
            "iss": IDP,
            "sub": "signalhub",
            "aud": URL,
            "jti": new_ulid(),
            "iat": now_s,
            "nbf": now_s - 300,
            "exp": now_s + 300,
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    async def ask_signed(
        self,
        claims: object | None = None,
        *,
        key: JWK = KEY,
        body: object | None = None,
        **header: Any,
    ) -> httpx2.Response:
        token = signed(self.claims() if claims is None else claims, key, **header)
        async with self.hub.client() as idp:
            return await idp.post(
                PATH,
                json={"sub_id": ROSA_ID} if body is None else body,
                headers={"authorization": f"Bearer {token}"},
            )

    async def containments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.story.get("/admin/v1/containments"))["items"]
        return found

    def called(self, url_prefix: str) -> int:
        sent = self.hub.outside.requests
        return sum(request.url.startswith(url_prefix) for request in sent)

    async def provider(self, **changes: Any) -> None:
        path = f"/admin/v1/providers/{self.provider_id}"
        assert (await self.story.admin.patch(path, json=changes)).is_success
        await self.hub.node.feed.refresh()


def signed(claims: object, key: JWK = KEY, **header: Any) -> str:
    protected = {"alg": "RS256", "typ": "global-token-revocation+jwt", "kid": "idp-1"} | header
    jws = JWS(json.dumps(claims).encode())
    jws.add_signature(
        key, None, json.dumps({name: value for name, value in protected.items() if value})
    )
    token: str = jws.serialize(compact=True)
    return token


async def is_live(story: Story, sid: str) -> bool:
    return bool((await story.get(f"/v1/sessions/{sid}?iss={IDP}"))["live"])


@pytest.fixture
async def asker(hub: Hub) -> AsyncIterator[Asker]:
    story = await begin(hub)
    provider = await story.post(
        "/admin/v1/providers",
        {
            "name": "the IdP",
            "issuer": IDP,
            "audiences": [ISSUER],
            "jwks": {"keys": [KEY.export_public(as_dict=True)]},
            "may_revoke": True,
        },
    )
    await hub.node.feed.refresh()
    async with hub.client(await hub.token("logout")) as tool:
        yield Asker(story, tool, provider["id"])
    await story.admin.aclose()


# --- what follows -------------------------------------------------------------------------------


@pytest.mark.requirement("GTR-6", "GTR-7", "GTR-14")
async def test_row_32_a_user_is_logged_out_everywhere_and_may_sign_in_again(asker: Asker) -> None:
    answer = await asker.ask()
    assert answer.status_code == 204
    assert answer.content == b""
    admin = asker.story.admin
    for sid, decision in (("sid-rosa", "TERMINATE"), ("sid-tim", "ALLOW")):
        decided = await admin.post(f"/v1/sessions/{sid}/evaluate", json={"iss": IDP})
        assert decided.json()["decision"] == decision
    decided = await admin.post("/v1/sign-ins/evaluate", json={"user": f"email:{ROSA}"})
    assert decided.json()["decision"] == "ALLOW"

    await asker.hub.settle()

    assert asker.called("https://crm.example/gtr") == 1
    assert asker.called(f"{IDP}/gtr") == 1
    assert asker.called(f"{IDP}/scim") == 0
    pushed = [r for r in asker.hub.outside.requests if r.url == "https://pay.example/ssf"]
    assert len(pushed) == 1
    async with asker.hub.client(asker.story.tokens["wiki"]) as wiki:
        polled = await wiki.post(
            f"/ssf/poll/{asker.story.ids['wiki stream']}", json={"returnImmediately": True}
        )
    (token,) = polled.json()["sets"].values()
    jws = JWS()
    jws.deserialize(token)
    assert SESSION_REVOKED in json.loads(jws.objects["payload"])["events"]
    (containment,) = await asker.containments()
    assert (containment["state"], containment["level"]) == ("closed", "LOW")
    assert containment["actions"] == ["NOTIFY", "UNIVERSAL_LOGOUT"]
    risk = await asker.story.get(f"/api/v1/users/{asker.story.ids['rosa']}/risk")
    assert risk["riskLevel"] == "LOW"
    entry = (await asker.hub.audit())[-1]
    assert (entry.action, entry.ref) == ("user.logout", asker.story.ids["rosa"])
    assert entry.detail == {"by": "client", "outcome": "opened"}


async def test_asking_twice_at_once_is_one_outstanding_call_per_app(asker: Asker) -> None:
    assert [(await asker.ask()).status_code for _ in range(3)] == [204] * 3
    await asker.hub.settle()
    assert asker.called("https://crm.example/gtr") == 1
    assert len(await asker.containments()) == 1
    # Whoever signed in since is logged out by the next request.
    assert (await asker.ask()).status_code == 204
    await asker.hub.settle()
    assert asker.called("https://crm.example/gtr") == 2


async def test_a_contained_user_stays_contained_and_is_logged_out_once_more(asker: Asker) -> None:
    await asker.story.play()
    before = asker.called("https://crm.example/gtr")
    assert (await asker.ask()).status_code == 204
    await asker.hub.settle()
    assert asker.called("https://crm.example/gtr") == before + 1
    (containment,) = await asker.containments()
    assert (containment["state"], containment["level"]) == ("open", "HIGH")
    assert "QUARANTINE" in containment["actions"]
    asker.hub.clock.advance(60)
    await asker.story.push(compliant=True)
    await asker.hub.settle()
    assert [each["state"] for each in await asker.containments()] == ["closed"]


async def test_a_judgement_in_between_does_not_cancel_what_was_asked_for(asker: Asker) -> None:
    """The policy wants nothing of a user at LOW; the request is not the policy's."""
    assert (await asker.ask()).status_code == 204
    said = await asker.story.admin.put(
        f"/api/v1/users/{asker.story.ids['rosa']}/risk", json={"riskLevel": "LOW"}
    )
    assert said.is_success
    await asker.hub.settle()
    assert asker.called("https://crm.example/gtr") == 1
    assert [each["state"] for each in await asker.containments()] == ["closed"]


async def test_a_request_while_the_quarantine_is_lifted_does_not_bring_it_back(
    asker: Asker,
) -> None:
    await asker.story.play()
    asker.hub.clock.advance(60)
    await asker.story.push(compliant=True)
    while await asker.hub._core_step():
        pass
    assert [each["state"] for each in await asker.containments()] == ["restoring"]
    assert (await asker.ask()).status_code == 204
    await asker.hub.node.changes.refresh()
    decided = await asker.story.admin.post("/v1/sign-ins/evaluate", json={"user": f"email:{ROSA}"})
    assert decided.json()["decision"] == "ALLOW"
    await asker.hub.settle()
    assert [each["state"] for each in await asker.containments()] == ["closed"]
    tasks = (await asker.story.get("/admin/v1/tasks"))["items"]
    removed = [task for task in tasks if task["kind"] == "quarantine_remove"]
    assert any(task["state"] == "done" for task in removed)


@ONE_ENGINE
async def test_a_logout_that_failed_waits_for_a_person(asker: Asker) -> None:
    asker.hub.outside.answer("https://crm.example/gtr", 400)
    assert (await asker.ask()).status_code == 204
    await asker.hub.settle()
    assert [each["state"] for each in await asker.containments()] == ["open"]
    (failed,) = (await asker.story.get("/admin/v1/tasks?state=failed"))["items"]
    asker.hub.outside.answer("https://crm.example/gtr", 204)
    await asker.story.post(f"/admin/v1/tasks/{failed['id']}/retry", {})
    await asker.hub.settle()
    assert [each["state"] for each in await asker.containments()] == ["closed"]


@pytest.mark.requirement("GTR-8")
async def test_row_39_beyond_the_guard_it_is_held_with_422_and_no_session_ends(
    asker: Asker,
) -> None:
    """All sessions of those who were held were ended too: for apps that ask, a logout."""
    story = asker.story
    mails = [f"u{number}@customer.example" for number in range(5)]
    for mail in mails:
        put = {"iss": IDP, "user": {"format": "email", "email": mail}}
        assert (await story.admin.put(f"/v1/sessions/of-{mail}", json=put)).status_code == 201
    answers = [await asker.ask({"format": "email", "email": mail}) for mail in mails]
    assert [answer.status_code for answer in answers] == [204] * 3 + [422] * 2
    assert [await is_live(story, f"of-{mail}") for mail in mails] == [False] * 3 + [True] * 2
    noted = [each for each in await asker.hub.audit() if each.action == "user.logout"]
    assert [each.detail["outcome"] for each in noted] == ["opened"] * 3 + ["held"] * 2
    held = [each for each in await asker.containments() if each["state"] == "held"]
    assert len(held) == 2
    await story.post(f"/admin/v1/containments/{held[0]['id']}/approve", {})
    await asker.hub.settle()
    states = {each["id"]: each["state"] for each in await asker.containments()}
    assert states[held[0]["id"]] == "closed"
    assert sum([await is_live(story, f"of-{mail}") for mail in mails]) == 1


@pytest.mark.requirement("GTR-8")
async def test_attack_nobody_logs_a_break_glass_user_out(asker: Asker) -> None:
    """A provider with a stolen key logged the last administrator out, again and again."""
    story = asker.story
    entry = {"user": f"email:{ROSA}", "reason": "the last administrator"}
    entry_id = (await story.post("/admin/v1/break-glass", entry))["id"]
    claims = asker.claims()
    assert (await asker.ask_signed(claims)).status_code == 422
    assert (await asker.ask()).status_code == 422
    assert (await asker.ask_signed(claims)).status_code == 401
    await asker.hub.settle()
    assert await is_live(story, "sid-rosa")
    assert asker.called("https://crm.example/gtr") == asker.called(f"{IDP}/gtr") == 0
    assert await asker.containments() == []

    (notice,) = told(asker.hub, "break_glass.spared")
    assert notice["data"]["user_id"] == story.ids["rosa"]
    assert notice["data"]["asked_by"] == asker.provider_id
    noted = [each for each in await asker.hub.audit() if each.action == "user.logout"]
    assert [(each.ref, each.detail["outcome"]) for each in noted] == [
        (story.ids["rosa"], "spared")
    ] * 2

    assert (await story.admin.delete(f"/admin/v1/break-glass/{entry_id}")).status_code == 204
    assert (await asker.ask()).status_code == 204
    assert not await is_live(story, "sid-rosa")


@ONE_ENGINE
async def test_a_notice_that_failed_belongs_to_no_containment(asker: Asker) -> None:
    """To retry one was a 500, unless it told of a quarantine or of a silence."""
    story = asker.story
    await story.post("/admin/v1/break-glass", {"user": f"email:{ROSA}", "reason": "the last one"})
    asker.hub.outside.answer("https://soc.customer.example/hook", 410)
    assert (await asker.ask()).status_code == 422
    await asker.hub.settle()
    (failed,) = (await story.get("/admin/v1/tasks?state=failed"))["items"]
    for verb in ("retry", "abandon"):
        answer = await story.admin.post(f"/admin/v1/tasks/{failed['id']}/{verb}", json={})
        assert answer.status_code == 409, answer.text


# --- by bearer token ----------------------------------------------------------------------------


@pytest.mark.requirement("GTR-8", "GTR-10", "GTR-11")
async def test_who_may_not_is_told_so_before_whether_the_user_exists(
    asker: Asker, hub: Hub
) -> None:
    await hub.add_tenant("green")
    stranger = {"format": "email", "email": "nobody@customer.example"}
    for token, tenant, status in (
        (None, "default", 401),
        ("nonsense", "default", 401),
        ("a.b.c", "default", 401),
        (await hub.token("risk.write", "admin.write"), "default", 403),
        (await hub.token("logout", tenant="green"), "default", 401),
        (await hub.token("logout", tenant="green"), "green", 404),
    ):
        async with hub.client(token, tenant=tenant) as client:
            for subject in (ROSA_ID, stranger):
                answer = await client.post(PATH, json={"sub_id": subject})
                assert answer.status_code == status, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
    assert (await asker.ask(stranger)).status_code == 404
    assert await asker.containments() == []


@pytest.mark.requirement("GTR-8")
async def test_malformed_requests_are_400(asker: Asker) -> None:
    odd: tuple[Any, ...] = (
        {},
        {"sub_id": None},
        {"sub_id": ROSA},
        {"sub_id": {}},
        {"sub_id": {"format": "email"}},
        {"sub_id": {"format": "email", "email": 7}},
        {"sub_id": {"format": "nonsense", "x": "y"}},
        {"sub_id": {"format": "complex", "user": ROSA_ID}},
        {"sub_id": {"format": "aliases", "identifiers": [ROSA_ID, {**ROSA_ID, "email": TIM}]}},
        {"sub_id": {"format": "aliases", "identifiers": []}},
        {"subject": ROSA_ID},
    )
    for body in odd:
        answer = await asker.tool.post(PATH, json=body)
        assert answer.status_code in {400, 404}, body
        assert (answer.status_code == 404) == ("nonsense" in str(body)), body
    for raw in (b"", b"[]", b"{", b'{"sub_id":1,"sub_id":2}', b"\xff"):
        sent = await asker.tool.post(
            PATH, content=raw, headers={"content-type": "application/json"}
        )
        assert sent.status_code == 400, raw
    form = await asker.tool.post(PATH, content=b"{}", headers={"content-type": "text/plain"})
    assert form.status_code == 415
    assert (await asker.tool.get(PATH)).status_code == 405
    assert await asker.containments() == []


@ONE_ENGINE
async def test_every_name_of_the_user_will_do(asker: Asker) -> None:
    for subject in (
        {"format": "iss_sub", "iss": IDP, "sub": "rosa/1"},
        {"format": "aliases", "identifiers": [ROSA_ID]},
    ):
        assert (await asker.ask(subject)).status_code == 204, subject


# --- by signed JWT ------------------------------------------------------------------------------


@pytest.mark.requirement("GTR-20", "GTR-22")
async def test_a_registered_idp_asks_with_a_signed_jwt_once(asker: Asker) -> None:
    claims = asker.claims()
    assert (await asker.ask_signed(claims)).status_code == 204
    replayed = await asker.ask_signed(claims)
    assert replayed.status_code == 401
    assert 'error="invalid_token"' in replayed.headers["www-authenticate"]
    await asker.hub.settle()
    assert asker.called("https://crm.example/gtr") == 1
    assert (await asker.hub.audit())[-1].actor == asker.provider_id


@pytest.mark.requirement("GTR-22")
async def test_a_jwt_that_proves_nothing_is_401(asker: Asker) -> None:
    now_s = int(epoch_s(asker.hub.clock.now()))
    wrong: tuple[dict[str, Any], ...] = (
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": URL + "/"},
        {"aud": ISSUER},
        {"aud": [URL, "https://other.example"]},
        {"aud": None},
        {"exp": now_s - 61},
        {"exp": now_s + 3_601},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": now_s + 61},
        {"iat": now_s + 61},
        {"jti": ""},
        {"jti": None},
        {"jti": "x" * 256},
        {"sub": None},
        {"sub": ""},
    )
    for changes in wrong:
        answer = await asker.ask_signed(asker.claims(**changes))
        assert answer.status_code == 401, (changes, answer.text)
    for header in (
        {"typ": "secevent+jwt"},
        {"typ": "JWT"},
        {"typ": None},
        {"kid": "unknown"},
        {"crit": ["b64"], "b64": True},
    ):
        assert (await asker.ask_signed(**header)).status_code == 401, header
    assert (await asker.ask_signed(key=OTHER_KEY)).status_code == 401
    odd: tuple[Any, ...] = ([], 7, "x", {})
    for claims in odd:
        assert (await asker.ask_signed(claims)).status_code == 401
    none = signed(asker.claims()).split(".")
    async with asker.hub.client(f"eyJhbGciOiJub25lIn0.{none[1]}.") as idp:
        assert (await idp.post(PATH, json={"sub_id": ROSA_ID})).status_code == 401
    assert await asker.containments() == []


@ONE_ENGINE
@pytest.mark.requirement("GTR-22")
async def test_times_may_be_off_by_a_minute(asker: Asker) -> None:
    now_s = int(epoch_s(asker.hub.clock.now()))
    for changes in ({"exp": now_s - 59}, {"nbf": now_s + 59}, {"nbf": None, "iat": None}):
        assert (await asker.ask_signed(asker.claims(**changes))).status_code == 204, changes
    assert (await asker.ask_signed(asker.claims(aud=[URL]))).status_code == 204


@ONE_ENGINE
@pytest.mark.requirement("GTR-10", "GTR-11")
async def test_a_provider_asks_only_where_it_was_allowed_to(asker: Asker) -> None:
    await asker.provider(subject_scope={"domains": ["elsewhere.example"], "issuers": []})
    assert (await asker.ask_signed()).status_code == 403
    await asker.provider(subject_scope=None)
    assert (await asker.ask_signed()).status_code == 204
    for changes, status in (
        ({"may_revoke": False}, 401),
        ({"may_revoke": True, "mode": "log_only"}, 403),
        ({"mode": "enforce", "status": "quarantined"}, 403),
        ({"status": "inactive"}, 403),
        ({"status": "active"}, 204),
    ):
        await asker.provider(**changes)
        assert (await asker.ask_signed()).status_code == status, changes


@ONE_ENGINE
@pytest.mark.requirement("GTR-15", "OLD-8")
async def test_the_older_name_of_the_member_is_taken_where_that_is_set(asker: Asker) -> None:
    assert (await asker.ask_signed(body={"subject": ROSA_ID})).status_code == 400
    await asker.provider(legacy_subject=True)
    assert (await asker.ask_signed(body={"subject": ROSA_ID})).status_code == 204


@ONE_ENGINE
@pytest.mark.requirement("GTR-9")
async def test_the_metadata_names_the_endpoint(asker: Asker) -> None:
    found = (await asker.tool.get("/.well-known/oauth-authorization-server")).json()
    assert found["global_token_revocation_endpoint"] == URL
    assert (
        "global-token-revocation+jwt"
        in (found["global_token_revocation_endpoint_auth_methods_supported"])
    )
