"""Webhooks of vendors: from the signed message to a contained user, and everything refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import sqlalchemy as sa

from receivers.registry.store import providers
from runtime.clock import epoch_s
from tests.hub.commands import Shell
from tests.hub.conftest import ONE_ENGINE, Hub

FIXTURES = Path(__file__).parents[1] / "receivers" / "fixtures"
ROSA = "rosa.lind@customer.example"
TEXT = "a-secret-of-both-sides"
KEY = bytes(range(32))
STANDARD_SECRET = "whsec_" + base64.b64encode(KEY).decode()
ISSUER = "https://vendor.example"
JSON = {"content-type": "application/json"}
PRODUCTS = sorted({file.name.partition(".")[0] for file in FIXTURES.glob("*.json")})


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return found


@dataclass
class Vendor:
    """One provider with a webhook, and the people it speaks of."""

    hub: Hub
    admin: httpx2.AsyncClient
    provider: dict[str, Any]

    async def send(
        self, message: object, headers: dict[str, str] | None = None, *, raw: bytes | None = None
    ) -> httpx2.Response:
        body = json.dumps(message).encode() if raw is None else raw
        proof = {"authorization": f"Bearer {TEXT}"} if headers is None else headers
        async with self.hub.client() as http:
            path = urlsplit(self.provider["webhook_url"]).path
            return await http.post(path, content=body, headers={**JSON, **proof})

    async def level(self, user: str = f"email:{ROSA}") -> str:
        await self.hub.settle()
        found = await self.admin.get(f"/api/v1/users/{user}/risk")
        level: str = found.json()["riskLevel"]
        return level

    async def signals(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.admin.get("/admin/v1/signals")).json()["items"]
        return found


async def add(hub: Hub, admin: httpx2.AsyncClient, **body: Any) -> Vendor:
    whole = {"name": "vendor", "issuer": ISSUER, "webhook_secrets": [TEXT]} | body
    made = await admin.post("/admin/v1/providers", json=whole)
    assert made.status_code == 201, made.text
    return Vendor(hub, admin, made.json())


async def enrol(admin: httpx2.AsyncClient, *devices: str) -> None:
    """Make Rosa, whose devices these are, and let the policy enforce."""
    identifiers = [{"format": "email", "email": ROSA}]
    user = await admin.post("/admin/v1/users", json={"identifiers": identifiers})
    for device in devices:
        named = {"identifiers": [{"format": "opaque", "id": device}], "owner": user.json()["id"]}
        assert (await admin.post("/admin/v1/devices", json=named)).is_success
    preset = {"name": "standard", "mode": "enforce"}
    assert (await admin.post("/admin/v1/policies:preset", json=preset)).is_success


@pytest.fixture
async def vendor(hub: Hub, admin: httpx2.AsyncClient) -> Vendor:
    await enrol(admin, "3f0c6a7f91")
    return await add(hub, admin, profile="crowdstrike")


# --- what follows -------------------------------------------------------------------------------


@ONE_ENGINE
@pytest.mark.parametrize("product", PRODUCTS)
async def test_row_27_a_products_bad_message_raises_its_user_and_the_twin_does_not(
    hub: Hub, admin: httpx2.AsyncClient, product: str
) -> None:
    bad = fixture(f"{product}.infected")
    await enrol(admin, *(each["device"] for each in bad["expect"] if "device" in each))
    secret = "jamf:a-long-password" if product == "jamf-pro" else TEXT
    vendor = await add(hub, admin, profile=product, webhook_secrets=[secret])
    style = vendor.provider["webhook"]["style"]
    proof = f"Bearer {secret}"
    if style == "basic":
        proof = "Basic " + base64.b64encode(secret.encode()).decode()
    headers = {"authorization": proof}

    answer = await vendor.send(bad["message"], headers)
    assert answer.status_code == 202, answer.text
    assert answer.content == b""
    assert await vendor.level() == "HIGH"
    contained = (await admin.get("/admin/v1/containments")).json()["items"]
    assert [each["state"] for each in contained] == ["open"]

    for twin in sorted(FIXTURES.glob(f"{product}.*.json")):
        other = json.loads(twin.read_text())
        if not other["expect"]:
            assert (await vendor.send(other["message"], headers)).status_code == 202
            assert await vendor.level() == "HIGH"
    if (FIXTURES / f"{product}.clean.json").exists():
        hub.clock.advance(7_200)
        clean = fixture(f"{product}.clean")["message"]
        assert (await vendor.send(clean, headers)).status_code == 202
        assert await vendor.level() == "LOW"


async def test_a_clean_message_clears_only_what_the_same_issuer_said(
    vendor: Vendor, hub: Hub, admin: httpx2.AsyncClient
) -> None:
    other = await add(
        hub, admin, name="other", issuer="https://other.example", profile="crowdstrike"
    )
    await vendor.send(fixture("crowdstrike.infected")["message"])
    assert await vendor.level() == "HIGH"
    await other.send(fixture("crowdstrike.clean")["message"])
    assert await vendor.level() == "HIGH"
    await vendor.send(fixture("crowdstrike.clean")["message"])
    assert await vendor.level() == "LOW"


@pytest.mark.requirement("WH-12", "WH-13")
async def test_a_repeat_is_answered_alike_and_changes_nothing(vendor: Vendor) -> None:
    message = fixture("crowdstrike.infected")["message"]
    answers = [await vendor.send(message) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len(await vendor.signals()) == 1


@ONE_ENGINE
async def test_a_user_nobody_knows_is_kept_and_applied_when_it_appears(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    vendor = await add(hub, admin, profile="netskope")
    assert (await vendor.send(fixture("netskope.infected")["message"])).status_code == 202
    await hub.settle()
    assert (await admin.get("/admin/v1/unmatched")).json()["items"]
    await enrol(admin)
    assert await vendor.level() == "HIGH"


@ONE_ENGINE
async def test_a_mapping_of_ones_own_and_a_standard_signature(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    await enrol(admin)
    rule = {
        "name": "leak",
        "when": [{"path": "/type", "is": "credential.leaked"}],
        "subject": {"format": "email", "email": {"path": "/data/email"}},
        "event": {
            "type": "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
            "members": {"credential_type": "password"},
        },
    }
    vendor = await add(
        hub, admin, webhook={"mapping": {"rules": [rule]}}, webhook_secrets=[STANDARD_SECRET]
    )
    assert vendor.provider["webhook"]["style"] == "standard"
    message = {"type": "credential.leaked", "data": {"email": ROSA}}
    body = json.dumps(message).encode()

    def signed(at: float, message_id: str = "msg_1") -> dict[str, str]:
        content = f"{message_id}.{int(at)}.".encode() + body
        signature = base64.b64encode(hmac.digest(KEY, content, "sha256")).decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at)),
            "webhook-signature": f"v1,{signature}",
        }

    now_s = epoch_s(hub.clock.now())
    assert (await vendor.send(message, signed(now_s - 400))).status_code == 401
    assert (await vendor.send(message, signed(now_s + 400))).status_code == 401
    assert (await vendor.send(message, {**signed(now_s), "webhook-id": "msg_2"})).status_code == 401
    assert await vendor.signals() == []
    assert (await vendor.send(message, signed(now_s))).status_code == 202
    hub.clock.advance(10)
    assert (await vendor.send(message, signed(now_s + 10))).status_code == 202
    assert len(await vendor.signals()) == 1
    assert await vendor.level() == "HIGH"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.requirement("WH-13")
async def test_a_wrong_signature_is_401_and_nothing_is_kept(vendor: Vendor) -> None:
    message = fixture("crowdstrike.infected")["message"]
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TEXT}"},
        {"authorization": ""},
        {"authorization": f"Bearer {await vendor.hub.token()}"},
    ):
        answer = await vendor.send(message, headers)
        assert answer.status_code == 401, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == "The message is not signed as it must be."
    assert await vendor.signals() == []


@pytest.mark.requirement("WH-10")
async def test_who_sent_it_is_asked_before_what_it_says(vendor: Vendor) -> None:
    assert (await vendor.send(None, {}, raw=b"\xff{")).status_code == 401


async def test_what_cannot_be_mapped_is_400_with_what_is_missing_and_stays_visible(
    vendor: Vendor,
) -> None:
    message = fixture("crowdstrike.infected")["message"]
    del message["device_id"]
    answer = await vendor.send(message)
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"pointer": "/device_id", "detail": "is not there"}]
    assert (await vendor.send(message)).status_code == 400
    (kept,) = (await vendor.admin.get("/admin/v1/signals?state=failed")).json()["items"]
    assert kept["detail"] == "/device_id: is not there"
    assert await vendor.level() == "LOW"


@ONE_ENGINE
async def test_what_could_not_be_mapped_is_replayed_once_the_mapping_is_mended(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    await enrol(admin)
    vendor = await add(hub, admin, profile="crowdstrike")
    message = {"type": "leak", "mail": ROSA, "api_key": "k-1"}
    assert (await vendor.send(message)).status_code == 400
    listed = (await admin.get("/admin/v1/ingest-errors?kind=failed")).json()["items"]
    (error_id,) = [each["id"] for each in listed]
    path = f"/admin/v1/ingest-errors/{error_id}"
    assert (await admin.get(path)).json()["claims"] == {**message, "api_key": "***"}
    still = await admin.post(f"{path}/replay")
    assert still.status_code == 400
    assert still.json()["errors"]

    rule = {
        "name": "leak",
        "when": [{"path": "/type", "is": "leak"}],
        "subject": {"format": "email", "email": {"path": "/mail"}},
        "event": {
            "type": "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
            "members": {"credential_type": "password"},
        },
    }
    mended = await admin.patch(
        f"/admin/v1/providers/{vendor.provider['id']}",
        json={"webhook": {"mapping": {"rules": [rule]}}, "webhook_secrets": [STANDARD_SECRET]},
    )
    assert mended.is_success, mended.text
    again = await admin.post(f"{path}/replay")
    assert again.status_code == 200, again.text
    assert again.json()["reason"] == "mapped again: stored"
    assert await vendor.level() == "HIGH"
    assert (await admin.get("/admin/v1/ingest-errors?kind=failed")).json()["items"] == []
    assert (await admin.post(f"{path}/replay")).status_code == 404


@ONE_ENGINE
async def test_a_subject_or_event_outside_what_it_may_say_is_refused(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    scoped = await add(
        hub,
        admin,
        profile="netskope",
        subject_scope={"domains": ["elsewhere.example"], "issuers": []},
    )
    assert (await scoped.send(fixture("netskope.infected")["message"])).status_code == 400
    typed = await add(hub, admin, name="t", profile="netskope", event_types=["urn:other"])
    assert (await typed.send(fixture("netskope.infected")["message"])).status_code == 400


@ONE_ENGINE
async def test_a_mapping_that_makes_no_valid_event_is_refused(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    rule = {
        "name": "r",
        "subject": {"format": "email", "email": {"path": "/email"}},
        "event": {
            "type": "https://schemas.openid.net/secevent/caep/event-type/risk-level-change",
            "members": {"principal": {"path": "/principal"}, "current_level": "HIGH"},
        },
    }
    vendor = await add(hub, admin, webhook={"style": "bearer", "mapping": {"rules": [rule]}})
    for message in (
        {"email": 7, "principal": "USER"},
        {"email": "nobody", "principal": {}},
        {"email": ROSA, "principal": ["USER"]},
        {"email": {}, "principal": "USER"},
    ):
        assert (await vendor.send(message)).status_code == 400, message


@ONE_ENGINE
async def test_a_time_at_the_edge_of_what_can_be_said_is_no_failure(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    rule = {
        "name": "r",
        "occurred_at": {"path": "/at"},
        "subject": {"format": "email", "email": {"path": "/email"}},
        "event": {
            "type": "https://schemas.openid.net/secevent/caep/event-type/risk-level-change",
            "members": {"principal": "USER", "current_level": "HIGH"},
        },
    }
    vendor = await add(hub, admin, webhook={"style": "bearer", "mapping": {"rules": [rule]}})
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = await vendor.send({"email": ROSA, "at": at})
        assert answer.status_code == 400, answer.text
        assert "is no time" in answer.text
    for edge in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 253_402_300_799, 1e300):
        answer = await vendor.send({"email": ROSA, "at": edge})
        assert answer.status_code in {202, 400}, answer.text


async def test_odd_bodies_are_refused_properly(vendor: Vendor) -> None:
    deep, nul = b"[" * 5_000, b'{"a":"\\u0000"}'
    for raw in (b"", b"{", b"7", b"null", b'{"a":1,"a":2}', b"\xff", deep, nul):
        answer = await vendor.send(None, raw=raw)
        assert answer.status_code == 400, raw
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await vendor.send(None, raw=b"{" + b" " * 300_000 + b"}")).status_code == 413
    async with vendor.hub.client() as http:
        path = urlsplit(vendor.provider["webhook_url"]).path
        for media_type in ("text/plain", "", "application/x-www-form-urlencoded"):
            sent = await http.post(path, content=b"{}", headers={"content-type": media_type})
            assert sent.status_code == 415
        assert (await http.get(path)).status_code == 405


@ONE_ENGINE
@pytest.mark.requirement("WH-13")
async def test_switched_off_is_410_and_unknown_is_404(vendor: Vendor, hub: Hub) -> None:
    other = await vendor.admin.post(
        "/admin/v1/providers",
        json={
            "name": "sets only",
            "issuer": "https://s.example",
            "audiences": ["x"],
            "jwks_uri": "https://s.example/jwks",
        },
    )
    async with hub.client() as http:
        for provider_id in ("nobody", "prv_x", other.json()["id"]):
            path = f"/v1/signals/webhook/{provider_id}"
            assert (await http.post(path, json={})).status_code == 404
    await hub.add_tenant("green")
    async with hub.client(tenant="green") as green:
        path = f"/v1/signals/webhook/{vendor.provider['id']}"
        sent = await green.post(path, json={}, headers={"authorization": f"Bearer {TEXT}"})
        assert sent.status_code == 404
    off = f"/admin/v1/providers/{vendor.provider['id']}"
    await vendor.admin.patch(off, json={"status": "inactive"})
    await hub.node.feed.refresh()
    assert (await vendor.send({})).status_code == 410


@ONE_ENGINE
async def test_a_provider_without_keys_takes_no_sets(vendor: Vendor, hub: Hub) -> None:
    async with hub.client() as http:
        path = urlsplit(vendor.provider["events_url"]).path
        sent = await http.post(
            path, content=b"a.b.c", headers={"content-type": "application/secevent+jwt"}
        )
    assert sent.status_code == 400


# --- administering it ---------------------------------------------------------------------------


async def test_secrets_are_sealed_masked_in_the_audit_and_never_shown(
    vendor: Vendor, hub: Hub
) -> None:
    shown = await vendor.admin.get(f"/admin/v1/providers/{vendor.provider['id']}")
    assert shown.json()["has_webhook_secrets"] is True
    assert TEXT not in shown.text
    assert TEXT not in json.dumps(vendor.provider)
    async with hub.database.snapshot() as connection:
        sealed = await connection.scalar(
            sa.select(providers.c.webhook_secrets_sealed).where(providers.c.tenant_id == "default")
        )
    assert sealed
    assert TEXT not in sealed
    assert TEXT not in str(await hub.audit())


async def test_secrets_are_rotated_with_both_valid_and_dropped_with_the_webhook(
    vendor: Vendor, hub: Hub
) -> None:
    path = f"/admin/v1/providers/{vendor.provider['id']}"
    message = fixture("crowdstrike.infected")["message"]
    new = {"authorization": "Bearer another-secret-entirely"}
    rotated = {"webhook_secrets": ["another-secret-entirely", TEXT]}
    assert (await vendor.admin.patch(path, json=rotated)).status_code == 200
    await hub.node.feed.refresh()
    assert (await vendor.send(message, new)).status_code == 202
    assert (await vendor.send(message)).status_code == 202
    renamed = await vendor.admin.patch(path, json={"name": "renamed"})
    assert renamed.json()["profile"] == "crowdstrike"
    await hub.node.feed.refresh()
    assert (await vendor.send(message, new)).status_code == 202
    other_style = {"webhook": {"style": "hmac", "prefix": "sha256="}}
    changed = await vendor.admin.patch(path, json=other_style)
    assert changed.json()["webhook"]["style"] == "hmac"
    assert changed.json()["profile"] == "crowdstrike"
    await hub.node.feed.refresh()
    body = json.dumps(message).encode()
    digest = hmac.new(TEXT.encode(), body, hashlib.sha256).hexdigest()
    signed = {"x-hub-signature-256": f"sha256={digest}"}
    assert (await vendor.send(message, signed)).status_code == 202
    assert (await vendor.send(message)).status_code == 401
    keys = {"webhook": None, "profile": None, "audiences": ["x"], "jwks_uri": "https://v.example/j"}
    dropped = await vendor.admin.patch(path, json=keys)
    assert dropped.status_code == 200, dropped.text
    assert dropped.json()["webhook"] is None
    assert dropped.json()["has_webhook_secrets"] is False


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        {"profile": "nobody"},
        {"profile": "crowdstrike", "webhook_secrets": []},
        {"profile": "crowdstrike", "webhook_secrets": ["short"]},
        {"profile": "crowdstrike", "webhook_secrets": [TEXT] * 3},
        {"profile": "crowdstrike", "webhook": {"style": "magic"}},
        {"profile": "crowdstrike", "webhook": {"style": "standard"}},
        {"profile": "crowdstrike", "webhook": {"mapping": {"rules": []}}},
        {"profile": "crowdstrike", "webhook": {"tolerance_s": 10**9}},
        {"webhook": {"style": "bearer"}},
        {"webhook": {"style": "bearer", "mapping": {"rules": [{"name": "x"}]}}},
        {"webhook": {"style": "bearer", "mapping": {"rules": [["x"] * 70]}}},
        {"webhook_secrets": [TEXT]},
    ],
)
async def test_settings_that_cannot_work_are_refused(
    admin: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    whole = {"name": "vendor", "issuer": ISSUER, "webhook_secrets": [TEXT]} | body
    answer = await admin.post("/admin/v1/providers", json=whole)
    assert answer.status_code == 400, answer.text
    assert TEXT not in answer.text


def test_a_message_is_tried_on_the_command_line(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text(json.dumps(fixture("jamf-pro.infected")["message"]))
    tried = shell.run("webhook", "test", str(file), "--profile", "jamf-pro")
    assert tried.code == 0, tried.err
    found = json.loads(tried.out)["signals"]
    assert [each["sub_id"]["device"]["id"] for each in found] == ["jamf:91", "jamf:92"]
    wrong = shell.run("webhook", "test", str(file), "--profile", "netskope")
    assert wrong.code == 2
    assert "no rule of the mapping fits" in wrong.err
    listed = shell.run("webhook", "profiles")
    assert {each["profile"] for each in json.loads(listed.out)} == set(PRODUCTS)
