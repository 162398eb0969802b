"""The demo's world: a hub, an MDM vendor, an IdP, four apps and a SecOps webhook.

Tina has two devices and a session on each at every app; Ravi, a bystander, has one device. More
people can join.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from hub.demo.processes import Http, HubProcess, PeerProcess
from runtime.clock import CLOCK_FILE_VARIABLE, SystemClock, epoch_s

TINA: Final = "tina.smith@mediaxmedia.example"
RAVI: Final = "ravi.patel@mediaxmedia.example"
LAPTOP: Final = "TINA-LAPTOP-01"
PHONE: Final = "TINA-PHONE-02"
RAVIS_LAPTOP: Final = "RAVI-LAPTOP-07"
#: app name -> how it is told to log a user out
APPS: Final = {"mail": "gtr", "crm": "bcl", "files": "push", "wiki": "poll"}
IDP: Final = "idp"
#: where people have sessions
PLACES: Final = (IDP, *APPS)
QUARANTINE: Final = "grp-quarantine"
SALES: Final = "grp-sales"
#: Devices are looked at from time to time, so what is reported now happened a while ago. Event
#: times have whole seconds and tell which of two events is newer, so no two here are equal.
FOUND_LATER_S: Final = 60
#: the hub contains at most 25 users in 10 minutes, then it waits for a person's approval
CONTAINED_MAX: Final = 20
GUARD_WINDOW_S: Final = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with devices; the email address names the person everywhere."""

    label: str
    email: str
    devices: tuple[str, ...]


TINA_SMITH: Final = Person(label="Tina Smith", email=TINA, devices=(LAPTOP, PHONE))
RAVI_PATEL: Final = Person(label="Ravi Patel", email=RAVI, devices=(RAVIS_LAPTOP,))


class Hub(Protocol):
    """What the world needs of a hub: one process tree, or several behind one address."""

    issuer: str
    admin_token: str
    database_url: str
    log: Path

    async def start(self, http: Http) -> None:
        """Start and wait until it is ready."""
        ...

    async def stop(self) -> None:
        """End it."""
        ...


class World:
    """Everything that runs in the demo, introduced to each other.

    hub: a hub that is configured already; else `environment` says how its settings differ from
    those of a first start. movable_clock: everybody follows `move_clock`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hub: Hub | None = None,
        environment: Mapping[str, str] | None = None,
        movable_clock: bool = False,
    ) -> None:
        self.folder = folder
        self.http = Http()
        self._clock_file = folder / "clock"
        self._clock_offset_s = 0.0
        self._contained = 0
        self._peer_environment: dict[str, str] = {}
        if movable_clock:
            self._clock_file.write_text("0")
            self._peer_environment[CLOCK_FILE_VARIABLE] = str(self._clock_file)
        self.hub: Hub = hub or HubProcess(
            folder,
            admin_token=secrets.token_urlsafe(32),
            environment={**(environment or {}), **self._peer_environment},
        )
        self.vendor: PeerProcess
        self.idp: PeerProcess
        self.webhook: PeerProcess
        self.idp_token: str
        self.apps: dict[str, PeerProcess] = {}
        self.user_ids: dict[str, str] = {}
        #: (app or "idp", user, device) -> id of the session opened last
        self.sessions: dict[tuple[str, str, str], str] = {}
        #: URL of a vendor -> where it pushes, and the Authorization value it sends
        self.push_settings: dict[str, tuple[str, str]] = {}
        self._event_time = epoch_s(SystemClock().now()) - FOUND_LATER_S

    async def start(self) -> None:
        """Start all processes side by side, then introduce them. Raises StepFailed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hub.start(self.http))
            vendor = group.create_task(self.start_peer("vendor", "mdm"))
            idp = group.create_task(self.start_peer("idp", "idp"))
            webhook = group.create_task(self.start_peer("app", "secops", mode="webhook"))
            apps = {
                name: group.create_task(self.start_peer("app", name, mode=mode))
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

    async def start_peer(self, role: str, name: str, **options: object) -> PeerProcess:
        """Start one more peer, with its ledger in the world's folder."""
        ledger = str(self.folder / f"{name}.ledger.jsonl")
        return await PeerProcess.start(
            role, environment=self._peer_environment, name=name, ledger=ledger, **options
        )

    def make_room(self, people: int) -> None:
        """Let time pass when the hub's guard would hold so many more containments.

        Needs a movable clock, and so many users that the guard's limit is its highest.
        """
        self._contained += people
        if self._contained > CONTAINED_MAX:
            self._contained = people
            self._clock_offset_s += GUARD_WINDOW_S
            self._clock_file.write_text(str(self._clock_offset_s))

    # What an admin does once, in the order of the README.

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call the hub's admin API; return the JSON. Raises StepFailed."""
        url = f"{self.hub.issuer}{path}"
        return await self.http.ask(method, url, body, token=self.hub.admin_token)

    async def _introduce(self) -> None:
        await self.admin(
            "POST", "/admin/v1/policies:preset", {"name": "standard", "mode": "enforce"}
        )
        await self.introduce_vendor(self.vendor, "Example MDM")
        await self._introduce_idp()
        for person in (TINA_SMITH, RAVI_PATEL):
            await self.enrol(person)
        await self.add_group(SALES, [TINA])
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

    async def enrol(self, person: Person) -> None:
        """Make a person known to the hub, with devices, and to the IdP."""
        user = await self.admin("POST", "/admin/v1/users", self.described(person))
        self.user_ids[person.email] = user["id"]
        for device in person.devices:
            await self.admin(
                "POST",
                "/admin/v1/devices",
                {
                    "label": device,
                    "identifiers": [{"format": "opaque", "id": device}],
                    "owner": user["id"],
                },
            )
        await self.enrol_at_idp(person)

    def described(self, person: Person) -> dict[str, object]:
        """Return what the hub's admin says of a person."""
        return {
            "label": person.label,
            "identifiers": [
                {"format": "email", "email": person.email},
                {"format": "iss_sub", "iss": self.idp.urls["issuer"], "sub": person.email},
            ],
        }

    async def enrol_at_idp(self, person: Person) -> None:
        """Make a person known to the IdP alone."""
        email = person.email
        await self.http.ask(
            "POST",
            f"{self.idp.url}/control/users",
            {"id": email, "user_name": email, "email": email, "sub": email},
        )

    async def add_group(self, group: str, members: list[str]) -> None:
        """Make a group at the IdP, or set who is in it."""
        await self.http.ask(
            "POST",
            f"{self.idp.url}/control/groups",
            {"id": group, "display_name": group, "members": members},
        )

    async def introduce_vendor(self, vendor: PeerProcess, name: str) -> None:
        """Make a vendor a provider of the hub, and tell it where to push."""
        secret = f"Bearer {secrets.token_urlsafe(24)}"
        provider = await self.admin(
            "POST",
            "/admin/v1/providers",
            {
                "name": name,
                "issuer": vendor.urls["issuer"],
                "jwks_uri": vendor.urls["jwks_uri"],
                "audiences": [self.hub.issuer],
                "authorization_header": secret,
                "legacy_subject": True,
                "source_class": "device",
            },
        )
        self.push_settings[vendor.url] = (provider["events_url"], secret)
        await self.configure(
            vendor,
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
        scopes = ["sessions.write", "sessions.read", "sessions.evaluate"]
        self.idp_token = await self.add_client("idp", scopes, idp["id"])
        await self.configure(
            self.idp,
            hub=self.hub.issuer,
            hub_token=self.idp_token,
            quarantine_group=QUARANTINE,
        )
        await self.add_group(QUARANTINE, [])

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
            settings["hub_token"] = await self.add_client(
                name, ["ssf.read", "ssf.manage"], app["id"]
            )
        await self.configure(peer, **settings)
        if mode in {"push", "poll"}:
            await self.http.ask("POST", f"{peer.url}/control/connect", {})

    async def add_client(self, name: str, scopes: list[str], app_id: str) -> str:
        """Give an app a client at the hub; return its token."""
        client = await self.admin(
            "POST", "/admin/v1/clients", {"name": name, "scopes": scopes, "app_id": app_id}
        )
        token: str = client["token"]
        return token

    async def configure(self, peer: PeerProcess, **options: object) -> None:
        """Tell a peer what it has to know."""
        await self.http.ask("POST", f"{peer.url}/control/configure", options)

    # What people and vendors do.

    async def sign_in(self, person: Person) -> None:
        """Open a session at the IdP and at every app, on every device of a person."""
        for place in PLACES:
            for device in person.devices:
                await self.open_session(place, person.email, device)

    async def open_session(self, place: str, user: str, device: str) -> str:
        """Open one session; return its id."""
        opened = await self.http.ask(
            "POST", f"{self.peer(place).url}/control/sessions", {"user": user, "device": device}
        )
        sid: str = opened["sid"]
        self.sessions[place, user, device] = sid
        return sid

    async def emit(self, *, by: PeerProcess | None = None, **order: Any) -> Any:
        """Let the vendor, or another one, sign and push a SET; return what it saw."""
        vendor = by or self.vendor
        self._event_time += 1
        order = {"event_timestamp": self._event_time, **order}
        return await self.http.ask("POST", f"{vendor.url}/control/emit", order)

    def peer(self, name: str) -> PeerProcess:
        """Return a peer by name: vendor, webhook, idp or an app."""
        found: PeerProcess = self.apps[name] if name in self.apps else getattr(self, name)
        return found

    async def alive(self, place: str, user: str) -> int:
        """Return how many live sessions `user` has at the IdP or an app, by its own account."""
        return len(await self.http.ask("GET", f"{self.peer(place).url}/sessions?user={user}"))

    async def ledger(self, name: str, **wanted: object) -> list[dict[str, Any]]:
        """Return the entries of a peer's ledger, filtered as its README says."""
        entries: list[dict[str, Any]] = await self.http.ask(
            "GET", f"{self.peer(name).url}/ledger?{urlencode(wanted)}"
        )
        return entries

    async def members(self, group: str) -> list[str]:
        """Return who is in a group of the IdP."""
        shown = await self.http.ask("GET", f"{self.idp.url}/control/groups/{group}")
        members: list[str] = shown["members"]
        return members

    async def risk(self, user: str) -> Any:
        """Return the user's risk as the hub tells it."""
        return await self.admin("GET", f"/api/v1/users/{self.user_ids[user]}/risk")

    async def decision(self, user: str) -> str:
        """Return what the hub tells the IdP about a sign-in of the user."""
        url = f"{self.hub.issuer}/v1/sign-ins/evaluate"
        body = {"user": {"format": "email", "email": user}}
        decided = await self.http.ask("POST", url, body, token=self.idp_token)
        return str(decided["decision"])

    async def containments(self, user: str) -> list[dict[str, Any]]:
        """Return the user's containments, newest first."""
        user_id = self.user_ids[user]
        listed = await self.admin("GET", f"/admin/v1/containments?user={user_id}&limit=100")
        found: list[dict[str, Any]] = listed["items"]
        return found
