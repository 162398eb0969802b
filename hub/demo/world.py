"""The demo's world: a hub, an MDM vendor, an IdP, four apps and a SecOps webhook.

Tina has two devices and a session on each at every app; Ravi, a bystander, has one device.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hub.demo.processes import Http, HubProcess, PeerProcess

TINA: Final = "tina.smith@mediaxmedia.example"
RAVI: Final = "ravi.patel@mediaxmedia.example"
LAPTOP: Final = "TINA-LAPTOP-01"
PHONE: Final = "TINA-PHONE-02"
RAVIS_LAPTOP: Final = "RAVI-LAPTOP-07"
DEVICES: Final = {TINA: (LAPTOP, PHONE), RAVI: (RAVIS_LAPTOP,)}
#: app name -> how it is told to log a user out
APPS: Final = {"mail": "gtr", "crm": "bcl", "files": "push", "wiki": "poll"}
QUARANTINE: Final = "grp-quarantine"
SALES: Final = "grp-sales"


class World:
    """Everything that runs in the demo, introduced to each other."""

    def __init__(self, folder: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.http = Http()
        self.hub = HubProcess(
            folder, admin_token=secrets.token_urlsafe(32), environment=environment or {}
        )
        self.vendor: PeerProcess
        self.idp: PeerProcess
        self.webhook: PeerProcess
        self.apps: dict[str, PeerProcess] = {}
        self.user_ids: dict[str, str] = {}
        #: (app or "idp", user, device) -> session id
        self.sessions: dict[tuple[str, str, str], str] = {}

    async def start(self) -> None:
        """Start all processes side by side, then introduce them."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hub.start(self.http))
            vendor = group.create_task(self._peer("vendor", "mdm", issuer=None))
            idp = group.create_task(self._peer("idp", "idp"))
            webhook = group.create_task(self._peer("app", "secops", mode="webhook"))
            apps = {
                name: group.create_task(self._peer("app", name, mode=mode))
                for name, mode in APPS.items()
            }
        self.vendor, self.idp, self.webhook = vendor.result(), idp.result(), webhook.result()
        self.apps = {name: task.result() for name, task in apps.items()}
        await self._introduce()

    async def stop(self) -> None:
        """End all processes; the data folder stays."""
        peers = [
            peer
            for name in ("vendor", "idp", "webhook")
            if (peer := getattr(self, name, None)) is not None
        ]
        await asyncio.gather(
            self.hub.stop(), *(peer.stop() for peer in (*peers, *self.apps.values()))
        )
        await self.http.close()

    async def _peer(self, role: str, name: str, **options: object) -> PeerProcess:
        ledger = str(self.folder / f"{name}.ledger.jsonl")
        given = {key: value for key, value in options.items() if value is not None}
        return await PeerProcess.start(role, name=name, ledger=ledger, **given)

    # What an admin does once, in the order of the README.

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call the hub's admin API; return the JSON. Raises StepFailed."""
        url = f"{self.hub.issuer}{path}"
        return await self.http.ask(method, url, body, token=self.hub.admin_token)

    async def _introduce(self) -> None:
        await self.admin(
            "POST", "/admin/v1/policies:preset", {"name": "standard", "mode": "enforce"}
        )
        await self._introduce_people()
        await self._introduce_vendor()
        await self._introduce_idp()
        for name, mode in APPS.items():
            await self._introduce_app(name, mode)
        await self.admin(
            "POST",
            "/admin/v1/webhooks",
            {
                "url": self.webhook.urls["webhook_url"],
                "secret": self.webhook.urls["webhook_secret"],
            },
        )

    async def _introduce_people(self) -> None:
        for email, label in ((TINA, "Tina Smith"), (RAVI, "Ravi Patel")):
            user = await self.admin(
                "POST",
                "/admin/v1/users",
                {
                    "label": label,
                    "identifiers": [
                        {"format": "email", "email": email},
                        {"format": "iss_sub", "iss": self.idp.urls["issuer"], "sub": email},
                    ],
                },
            )
            self.user_ids[email] = user["id"]
            for device in DEVICES[email]:
                await self.admin(
                    "POST",
                    "/admin/v1/devices",
                    {
                        "label": device,
                        "identifiers": [{"format": "opaque", "id": device}],
                        "owner": user["id"],
                    },
                )

    async def _introduce_vendor(self) -> None:
        secret = f"Bearer {secrets.token_urlsafe(24)}"
        provider = await self.admin(
            "POST",
            "/admin/v1/providers",
            {
                "name": "Example MDM",
                "issuer": self.vendor.urls["issuer"],
                "jwks_uri": self.vendor.urls["jwks_uri"],
                "audiences": [self.hub.issuer],
                "authorization_header": secret,
                "legacy_subject": True,
                "source_class": "device",
            },
        )
        await self.configure(
            self.vendor,
            push_url=provider["events_url"],
            authorization=secret,
            audience=self.hub.issuer,
        )

    async def _introduce_idp(self) -> None:
        idp = await self.admin(
            "POST",
            "/admin/v1/apps",
            {
                "name": "idp",
                "kind": "idp",
                "issuer": self.idp.urls["issuer"],
                "sensitivity": 100,
                "subject_formats": ["email"],
                "client_id_at_app": "signalhub",
                "logout": [{"method": "gtr", "endpoint_url": self.idp.urls["gtr_url"]}],
                "scim": {
                    "base_url": self.idp.urls["scim_url"],
                    "token": self.idp.urls["scim_token"],
                    "quarantine_group_id": QUARANTINE,
                    "user_attribute": "userName",
                },
            },
        )
        token = await self._client("idp", ["sessions.write", "sessions.read"], idp["id"])
        await self.configure(
            self.idp, hub=self.hub.issuer, hub_token=token, quarantine_group=QUARANTINE
        )
        for email in DEVICES:
            await self.http.ask(
                "POST",
                f"{self.idp.url}/control/users",
                {"id": email, "user_name": email, "email": email, "sub": email},
            )
        for group, members in ((QUARANTINE, []), (SALES, [TINA])):
            await self.http.ask(
                "POST",
                f"{self.idp.url}/control/groups",
                {"id": group, "display_name": group, "members": members},
            )

    async def _introduce_app(self, name: str, mode: str) -> None:
        peer = self.apps[name]
        logout: dict[str, dict[str, object]] = {
            "gtr": {"method": "gtr", "endpoint_url": peer.urls.get("gtr_url")},
            "bcl": {"method": "bcl", "endpoint_url": peer.urls.get("backchannel_logout_uri")},
        }
        app = await self.admin(
            "POST",
            "/admin/v1/apps",
            {
                "name": name,
                "kind": "rp",
                "sensitivity": 50,
                "subject_formats": ["email", "iss_sub"],
                "client_id_at_app": peer.urls.get("client_id", name),
                "logout": [logout.get(mode, {"method": "ssf"})],
            },
        )
        settings: dict[str, object] = {"hub": self.hub.issuer, "idp": self.idp.url}
        if mode in {"push", "poll"}:
            settings["hub_token"] = await self._client(name, ["ssf.read", "ssf.manage"], app["id"])
        await self.configure(peer, **settings)
        if mode in {"push", "poll"}:
            await self.http.ask("POST", f"{peer.url}/control/connect", {})

    async def _client(self, name: str, scopes: list[str], app_id: str) -> str:
        client = await self.admin(
            "POST", "/admin/v1/clients", {"name": name, "scopes": scopes, "app_id": app_id}
        )
        token: str = client["token"]
        return token

    async def configure(self, peer: PeerProcess, **options: object) -> None:
        """Tell a peer what it has to know."""
        await self.http.ask("POST", f"{peer.url}/control/configure", options)

    # What people and vendors do.

    async def sign_everybody_in(self) -> None:
        """Open a session at the IdP and at every app, for every person on every device."""
        for user, devices in DEVICES.items():
            for device in devices:
                session = await self.http.ask(
                    "POST", f"{self.idp.url}/control/sessions", {"user": user, "device": device}
                )
                self.sessions["idp", user, device] = session["sid"]
                for name, peer in self.apps.items():
                    opened = await self.http.ask(
                        "POST", f"{peer.url}/control/sessions", {"user": user, "device": device}
                    )
                    self.sessions[name, user, device] = opened["sid"]

    async def emit(self, **order: object) -> Any:
        """Let the vendor sign and push a SET; return what it saw."""
        return await self.http.ask("POST", f"{self.vendor.url}/control/emit", order)

    async def alive(self, where: str, user: str) -> int:
        """Return how many live sessions `user` has at the IdP or an app, by its own account."""
        peer = self.idp if where == "idp" else self.apps[where]
        return len(await self.http.ask("GET", f"{peer.url}/sessions?user={user}"))

    async def members(self, group: str) -> list[str]:
        """Return who is in a group of the IdP."""
        shown = await self.http.ask("GET", f"{self.idp.url}/control/groups/{group}")
        members: list[str] = shown["members"]
        return members

    async def risk(self, user: str) -> Any:
        """Return the user's risk as the hub tells it."""
        return await self.admin("GET", f"/api/v1/users/{self.user_ids[user]}/risk")
