"""The main job in one process: a vendor's event, a containment, logouts, and the undoing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from actions.held.model import HeldLogout, HeldState
from actions.held.store import hold
from runtime.clock import epoch_s
from runtime.ids import new_id, new_ulid
from tests.hub import beginnings
from tests.hub.conftest import DEFAULT, Hub

VENDOR = "https://mdm.vendor.example"
IDP = "https://login.customer.example"
HUB_AUDIENCE = "https://hub.customer.example"
ROSA = "rosa.lind@customer.example"
TIM = "tim.borg@customer.example"
LAPTOP = "LT-0091-77"
PHONE = "PH-0042-01"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
COMPLIANCE_CHANGE = CAEP + "device-compliance-change"
SESSION_REVOKED = CAEP + "session-revoked"
RISK_LEVEL_CHANGE = CAEP + "risk-level-change"
SECEVENT = {"content-type": "application/secevent+jwt"}

VENDOR_KEY = JWK.generate(kty="EC", crv="P-256", kid="mdm-1", alg="ES256", use="sig")


@dataclass
class Story:
    """One tenant of a hub with everything the main job needs. ids: what was made, by name."""

    hub: Hub
    tenant: str
    admin: httpx2.AsyncClient
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    events_url: str = ""

    async def post(self, path: str, document: object) -> dict[str, Any]:
        answer = await self.admin.post(path, json=document)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.admin.get(path)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def introduce(self) -> None:
        """Make policy, provider, people, devices, apps, clients, streams, sessions, a webhook."""
        await self.post("/admin/v1/policies:preset", {"name": "standard", "mode": "enforce"})
        provider = await self.post(
            "/admin/v1/providers",
            {
                "name": "mdm",
                "issuer": VENDOR,
                "audiences": [HUB_AUDIENCE],
                "jwks": {"keys": [VENDOR_KEY.export_public(as_dict=True)]},
                "authorization_header": "Bearer both-sides",
                "source_class": "device",
            },
        )
        self.ids["provider"], self.events_url = provider["id"], provider["events_url"]
        upstream = {
            "name": "edr",
            "issuer": "https://edr.vendor.example",
            "audiences": [HUB_AUDIENCE],
            "jwks_uri": "https://edr.vendor.example/jwks.json",
            "auth": "header",
            "secret": "Bearer upstream-secret",
        }
        self.ids["upstream"] = (await self.post("/admin/v1/upstreams", upstream))["id"]
        for name, email, device in (("rosa", ROSA, LAPTOP), ("tim", TIM, PHONE)):
            await self._enrol(name, email, device)
        await self._introduce_apps()
        self.ids["webhook"] = (
            await self.post("/admin/v1/webhooks", {"url": "https://soc.customer.example/hook"})
        )["id"]

    async def _enrol(self, name: str, email: str, device: str) -> None:
        identifiers = [
            {"format": "email", "email": email},
            {"format": "iss_sub", "iss": IDP, "sub": f"{name}/1"},
        ]
        user = await self.post(
            "/admin/v1/users", {"identifiers": identifiers, "external_id": f"ext-{name}"}
        )
        self.ids[name] = user["id"]
        owned = await self.post(
            "/admin/v1/devices",
            {"identifiers": [{"format": "opaque", "id": device}], "owner": user["id"]},
        )
        self.ids[f"{name} device"] = owned["id"]

    async def _introduce_apps(self) -> None:
        idp = {
            "name": "idp",
            "kind": "idp",
            "issuer": IDP,
            "sensitivity": 100,
            "client_id_at_app": "signalhub",
            "logout": [{"method": "gtr", "endpoint_url": f"{IDP}/gtr"}],
            "scim": {
                "base_url": f"{IDP}/scim",
                "token": "scim-secret",
                "quarantine_group_id": "grp-1",
            },
        }
        self.ids["idp"] = (await self.post("/admin/v1/apps", idp))["id"]
        self.answer()
        server = {"name": "login", "issuer": IDP, "jwks_uri": f"{IDP}/jwks.json"}
        self.ids["login"] = (await self.post("/admin/v1/authorization-servers", server))["id"]
        self.tokens["idp"] = await self._client("idp", ["sessions.write"], self.ids["idp"])
        for name, delivery in (
            ("crm", None),
            ("wiki", {"method": "urn:ietf:rfc:8936"}),
            (
                "pay",
                {
                    "method": "urn:ietf:rfc:8935",
                    "endpoint_url": "https://pay.example/ssf",
                    "authorization_header": "Bearer push-secret",
                },
            ),
        ):
            await self._introduce_app(name, delivery)
        for name, device in (("rosa", LAPTOP), ("tim", PHONE)):
            await self._sign_in(name, device)

    async def _introduce_app(self, name: str, delivery: dict[str, str] | None) -> None:
        logout = (
            {"method": "gtr", "endpoint_url": f"https://{name}.example/gtr"}
            if delivery is None
            else {"method": "ssf"}
        )
        app = {"name": name, "logout": [logout], "client_id_at_app": "signalhub"}
        self.ids[name] = (await self.post("/admin/v1/apps", app))["id"]
        if delivery is None:
            return
        token = await self._client(name, ["ssf.read", "ssf.manage"], self.ids[name])
        self.tokens[name] = token
        async with self.hub.client(token, tenant=self.tenant) as client:
            wanted = {
                "events_requested": [SESSION_REVOKED, RISK_LEVEL_CHANGE],
                "delivery": delivery,
            }
            made = await client.post("/ssf/streams", json=wanted)
            assert made.status_code == 201, made.text
            self.ids[f"{name} stream"] = made.json()["stream_id"]

    def answer(self) -> None:
        """Let the IdP know Rosa."""
        resources = {"totalResults": 1, "Resources": [{"id": "scim-1", "userName": ROSA}]}
        self.hub.outside.answer(f"{IDP}/scim/Users", 200, resources)
        self.hub.outside.answer(f"{IDP}/scim/Groups", 200, {"totalResults": 0, "Resources": []})

    async def _client(self, name: str, scopes: list[str], app_id: str) -> str:
        made = await self.post(
            "/admin/v1/clients", {"name": name, "scopes": scopes, "app_id": app_id}
        )
        self.ids[f"{name} client"] = made["id"]
        token: str = made["token"]
        return token

    async def _sign_in(self, name: str, device: str) -> None:
        sid = f"sid-{name}"
        async with self.hub.client(self.tokens["idp"], tenant=self.tenant) as idp:
            body = {"user": self.ids[name], "device": device, "amr": ["pwd"]}
            answer = await idp.put(f"/v1/sessions/{sid}", json=body)
            assert answer.status_code == 201, answer.text
        self.ids[f"{name} session"] = sid

    async def push(self, *, compliant: bool = False, **changes: Any) -> httpx2.Response:
        """Let the vendor say that Rosa's device is compliant or not."""
        return await self.push_raw(sign(self.claims(compliant=compliant, **changes)))

    async def push_raw(self, raw: bytes) -> httpx2.Response:
        """Push these bytes to the intake."""
        async with self.hub.client() as vendor:
            return await vendor.post(
                self.events_url,
                content=raw,
                headers={**SECEVENT, "authorization": "Bearer both-sides"},
            )

    def claims(self, *, compliant: bool = False, **changes: Any) -> dict[str, Any]:
        now_s = epoch_s(self.hub.clock.now())
        status = ("not-compliant", "compliant") if compliant else ("compliant", "not-compliant")
        good = {
            "iss": VENDOR,
            "aud": HUB_AUDIENCE,
            "iat": now_s,
            "jti": new_ulid(),
            "txn": "txn-1",
            "sub_id": {
                "format": "complex",
                "user": {"format": "email", "email": ROSA},
                "device": {"format": "opaque", "id": LAPTOP},
            },
            "events": {
                COMPLIANCE_CHANGE: {
                    "previous_status": status[0],
                    "current_status": status[1],
                    "event_timestamp": now_s,
                }
            },
        }
        return good | changes

    async def play(self) -> None:
        """Rosa's laptop is compromised: everything that follows, until the hub is at rest."""
        answer = await self.push()
        assert answer.status_code == 202, answer.text
        await self.hub.settle()

    async def hold_logout(self) -> str:
        """Let the guard hold the logout of Rosa's session back; return the id of what is held."""
        held = HeldLogout(
            tenant_id=self.tenant,
            held_id=new_id("hsl"),
            order_key=new_ulid(),
            user_id=self.ids["rosa"],
            session_id="ses_rosa",
            iss=IDP,
            sid="sid-rosa",
            context_key="c",
            app_ids=None,
            reasons=("global-session/high-logout",),
            trace_id="chg_1",
            state=HeldState.HELD,
            held_at=self.hub.clock.now(),
        )
        async with self.hub.database.transaction() as connection:
            await hold(connection, [held])
        return held.held_id


async def begin(hub: Hub, tenant: str = DEFAULT) -> Story:
    """Return a tenant of `hub` in which the story can be played.

    In a new hub it is there at once when it has been made on this engine before.
    """
    is_new = tenant == DEFAULT and await beginnings.is_new(hub)
    if is_new and (known := beginnings.find(hub)) is not None:
        await beginnings.restore(known, hub)
        tokens = dict(known.tokens)
        admin = hub.client(tokens["admin"])
        story = Story(hub=hub, tenant=tenant, admin=admin, ids=dict(known.ids), tokens=tokens)
        story.events_url = known.events_url
        story.answer()
        return story
    token = await hub.token(tenant=tenant, name="the admin")
    story = Story(hub=hub, tenant=tenant, admin=hub.client(token, tenant=tenant))
    story.tokens["admin"] = token
    await story.introduce()
    if is_new:
        await beginnings.keep(story)
    return story


def sign(claims: object, key: JWK = VENDOR_KEY) -> bytes:
    """Return a SET signed by the vendor."""
    protected = {"alg": key.get("alg"), "typ": "secevent+jwt", "kid": key.get("kid")}
    jws = JWS(claims if isinstance(claims, bytes) else json.dumps(claims).encode())
    jws.add_signature(key, None, json.dumps(protected))
    compact: str = jws.serialize(compact=True)
    return compact.encode()
