"""A hub on real TLS, in production mode, for who comes from outside: the conformance suite."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hub import store
from hub.auth import TOKEN_PREFIX, token_hash
from hub.certificates import make_development_certificate
from hub.demo.processes import Http, HubProcess, until
from runtime import ids
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.feed import bump
from runtime.keyring import make_keys
from runtime.secrets import SecretBox

HOST: Final = "127.0.0.1"
SCOPES: Final = ["ssf.read", "ssf.manage"]


@dataclass
class Client:
    """A client with its secret, which is a static token too."""

    client_id: str
    token: str


class TLSHub:
    """One hub with its certificate; `issuer` is that of the tenant under test."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.tls = folder / "tls"
        make_development_certificate(self.tls, [HOST, "localhost"], now=SystemClock().now())
        self.admin_token = secrets.token_urlsafe(32)
        environment = {
            "SIGNALHUB_SECRET_KEY": secrets.token_urlsafe(48),
            **settings,
            "SIGNALHUB_TLS_CERT": str(self.tls / "cert.pem"),
            "SIGNALHUB_TLS_KEY": str(self.tls / "key.pem"),
            "SIGNALHUB_EXTRA_CA": str(self.ca),
            "SIGNALHUB_EGRESS_ALLOW": "127.0.0.0/8",
        }
        self.process = HubProcess(folder, admin_token=self.admin_token, environment=environment)
        # As in production: https only, and nothing private reachable but what is named.
        own = {"SIGNALHUB_ISSUER": self.process.url, "SIGNALHUB_DEV_INSECURE": "false"}
        self.process._environment |= own
        self.http = Http(extra_ca=str(self.ca))

    @property
    def ca(self) -> Path:
        """The authority that vouches for the hub, and for whoever it pushes to."""
        return self.tls / "ca.pem"

    async def start(self) -> None:
        """Start it."""
        await self.process.start(self.http)

    async def stop(self) -> None:
        """End it."""
        await self.process.stop()
        await self.http.close()

    def issuer(self, tenant: str) -> str:
        """Return the issuer of a tenant."""
        return self.process.url if tenant == "default" else f"{self.process.url}/t/{tenant}"

    async def add_tenant(self, tenant: str) -> str:
        """Add a tenant with keys; return a token of its admin. There is no API for it yet."""
        clock, token = SystemClock(), ids.new_token(TOKEN_PREFIX)
        environment = self.process._environment
        database = Database.connect(environment["SIGNALHUB_DATABASE_URL"])
        try:
            async with database.transaction() as connection:
                await store.ensure_tenant(connection, tenant, name=tenant, now=clock.now())
                client = store.Client(
                    tenant_id=tenant,
                    client_id=ids.new_id("cli"),
                    name="admin",
                    token_hash=token_hash(token),
                    scopes=("admin.write",),
                    app_id=None,
                    created_at=clock.now(),
                )
                await store.add_client(connection, client)
                await bump(connection, "*", "tenants")
                await bump(connection, tenant, "clients")
            box = SecretBox(environment["SIGNALHUB_SECRET_KEY"])
            await make_keys(database, box, clock, tenant)
        finally:
            await database.close()

        async def is_known() -> bool:
            reply = await self.http.request("GET", f"{self.issuer(tenant)}/jwks.json")
            return reply.status == 200 and bool(reply.json["keys"])

        await until("the tenant is served", is_known)
        return token

    async def admin(self, method: str, url: str, body: object = None, *, token: str) -> Any:
        """Ask the admin API."""
        return await self.http.ask(method, url, body, token=token)

    async def client(self, issuer: str, name: str, *, token: str, **members: object) -> Client:
        """Add a client that may read and manage streams; members: of the admin object."""
        body = {"name": f"{name} {ids.new_ulid()}", "scopes": SCOPES, **members}
        made = await self.admin("POST", f"{issuer}/admin/v1/clients", body, token=token)
        return Client(client_id=made["id"], token=made.get("token") or "")
